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

#: Where the axis ends: an alias instead of a copy is faster by any factor, and says nothing of the others.
LARGEST_RATIO = 1000
OURS, OTHER, QUIET, FAINT = "#1f6f8b", "#d1495b", "#8d99a6", "#e3e7eb"


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
    ours = [result.ratio("reference") or 1 for result in shown]
    widths = [value - 1 for value in ours]
    axes.barh(range(len(shown)), widths, left=1, color=OURS, height=0.62, label="torch_safetensors", zorder=2)
    for place, value in enumerate(ours):
        style = {"va": "center", "fontweight": "bold", "color": OURS}
        end = {"xycoords": ("axes fraction", "data"), "xytext": (8, 0), "textcoords": "offset points"}
        axes.annotate(times(value), (1.0, place), **end, **style)
    marked = _draw_marks(axes, shown)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(min([0.5, *ours]) * 0.8, min(LARGEST_RATIO, 1.3 * max([2.0, *ours, *marked])))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_yticks(range(len(shown)), [result.name for result in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("times as fast as the reference, safetensors 0.8.0 (higher is better)")
    axes.grid(axis="x", color=FAINT, zorder=0)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw_marks(axes: Any, shown: Sequence[CaseResult]) -> list[float]:
    """What there is to compare a bar with; returns all ratios that got a mark."""
    marks = {
        "goal": (_goal, {"marker": "|", "color": "black", "s": 130, "linewidths": 1.8}),
        "limit of the machine": (_limit, {"marker": "D", "color": QUIET, "s": 26}),
        "best other loader": (_best_other, {"marker": "o", "color": OTHER, "s": 26}),
    }
    marked = []
    for label, (ratio_of, style) in marks.items():
        points = [(ratio, place) for place, result in enumerate(shown) if (ratio := ratio_of(result))]
        if points:
            axes.scatter(*zip(*points, strict=True), label=label, zorder=3, **style)
        marked += [ratio for ratio, _ in points]
    return marked


def _limit(result: CaseResult) -> float | None:
    return result.ratio("reference", to="limit")


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
        axes.grid(color=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("seconds")
    grid[0][0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
