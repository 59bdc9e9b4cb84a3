"""Charts, with matplotlib where there is one (requirements/bench/matplotlib.txt)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .goals import GOALS
from .report import ratio as times
from .results import CaseResult
from .settings import Settings

OURS, OTHER, QUIET = "#1f6f8b", "#d1495b", "#8d99a6"


def load_pyplot(settings: Settings) -> Any:
    """Raises ImportError where it is missing."""
    folder = str(settings.peers / "matplotlib")
    if folder not in sys.path:
        sys.path.append(folder)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_ratios(results: Sequence[CaseResult], path: Path, settings: Settings) -> None:
    """A bar per case: how many times faster than the reference; with goal, limit and best other peer."""
    pyplot = load_pyplot(settings)
    shown = [result for result in results if result.ratio("reference") is not None and not _is_absolute(result)][::-1]
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.34 * len(shown)), layout="constrained")
    places = range(len(shown))
    ours = [result.ratio("reference") or 1 for result in shown]
    axes.barh(
        places, [value - 1 for value in ours], left=1, color=OURS, height=0.62, label="torch_safetensors", zorder=2
    )
    for place, value in zip(places, ours, strict=True):
        axes.annotate(
            times(value),
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=OURS,
        )
    marks = {
        "goal": ("|", "black", [_goal(result) for result in shown]),
        "limit of the machine": ("D", QUIET, [result.ratio("reference", to="limit") for result in shown]),
        "best other loader": ("o", OTHER, [_best_other(result) for result in shown]),
    }
    for label, (marker, color, values) in marks.items():
        points = [(value, place) for place, value in zip(places, values, strict=True) if value]
        size = 130 if marker == "|" else 26
        style = {"linewidths": 1.8} if marker == "|" else {}
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, color=color, s=size, label=label, zorder=3, **style)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_yticks(places, [result.name for result in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("times as fast as the reference, safetensors 0.8.0 (higher is better)")
    axes.grid(axis="x", color="#e3e7eb", zorder=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=9)
    for side in "top", "right", "left":
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _is_absolute(result: CaseResult) -> bool:
    return result.name in GOALS and GOALS[result.name].seconds


def _goal(result: CaseResult) -> float | None:
    goal = GOALS.get(result.name)
    return goal.at_least if goal is not None and goal.against == "reference" else None


def _best_other(result: CaseResult) -> float | None:
    names = [
        name for name in result.peers if name not in ("ours", "limit") and not name.startswith(("ours", "reference"))
    ]
    return max((ratio for name in names if (ratio := result.ratio("reference", to=name))), default=None)


def draw_curves(curves: Mapping[str, Mapping[str, Mapping[int, float]]], path: Path, settings: Settings) -> None:
    """For each kind of work, seconds over size, a line per peer."""
    pyplot = load_pyplot(settings)
    figure, grid = pyplot.subplots(
        1, len(curves), figsize=(3.6 * len(curves), 3.4), layout="constrained", squeeze=False
    )
    colors = {"ours": OURS, "reference": OTHER}
    for axes, (title, lines) in zip(grid[0], curves.items(), strict=True):
        for peer, points in lines.items():
            axes.loglog(
                list(points), list(points.values()), marker="o", markersize=4, color=colors.get(peer), label=peer
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("tensors")
        axes.grid(color="#e3e7eb")
        for side in "top", "right":
            axes.spines[side].set_visible(False)
    grid[0][0].set_ylabel("seconds")
    grid[0][0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
