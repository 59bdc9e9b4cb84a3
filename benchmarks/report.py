"""The results as a table, for a terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .goals import judge
from .results import CaseResult, PeerResult

HEADINGS = ["case", "ours", "reference", "ratio", "limit", "others", "goal", "", "peak memory"]


def seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * scale >= 1 or unit == "us":
            return f"{value * scale:.3g} {unit}" if value * scale < 1000 else f"{value * scale:,.0f} {unit}"
    raise AssertionError


def ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}x" if value < 10 else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def time_of(result: PeerResult | None) -> str:
    if result is None:
        return ""
    if result.failure is not None or result.median is None:
        return "failed" if result.failure else ""
    return f"{seconds(result.median)} ±{result.spread / 2:.0%}"


def memory_of(result: PeerResult | None) -> str:
    if result is None or result.peak is None:
        return "-"
    return f"{result.peak['own'] / 1e6:+,.0f}"


def row(result: CaseResult) -> list[str]:
    """The ratio is the reference's time over ours, as is that of others; limit: our time over the limit's."""
    others = {
        name: result.ratio("reference", to=name)
        for name in result.peers
        if name not in ("ours", "reference", "limit") and result.time(name)
    }
    best_first = sorted(others.items(), key=lambda item: -(item[1] or 0))
    limit, ours = result.time("limit"), result.time("ours")
    verdict = judge(result)
    memory = [memory_of(result.peers.get(name)) for name in ("ours", "reference")]
    return [
        result.name,
        time_of(result.peers.get("ours")),
        time_of(result.peers.get("reference")),
        ratio(result.ratio("reference")),
        ratio(ours / limit) if ours and limit else "",
        ", ".join(f"{name} {ratio(value)}" for name, value in best_first),
        verdict.goal if verdict else "",
        verdict.outcome if verdict else "",
        "" if memory == ["-", "-"] else f"{memory[0]} / {memory[1]} MB",
    ]


def lines(results: Sequence[CaseResult], missing: Mapping[str, str]) -> list[str]:
    """What the table has no room for."""
    found = [f"{name}: missing: {why}" for name, why in missing.items()]
    for result in results:
        if result.failure:
            found.append(f"{result.name}: not measured: {result.failure}")
        for name, peer in result.peers.items():
            if peer.failure:
                found.append(f"{result.name}, {name}: {peer.failure}")
            found += [f"{result.name}, {name}: {note}" for note in peer.notes]
    return found


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    if markdown:
        cells = [headings, ["---"] * len(headings), *rows]
        return "\n".join("| " + " | ".join(row) + " |" for row in cells)
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    aligned = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [headings, *rows]
    ]
    return "\n".join(line.rstrip() for line in aligned)
