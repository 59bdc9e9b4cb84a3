"""How time and memory grow with the number of tensors, and how threads share the work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .report import memory_of, seconds, table
from .results import CaseResult
from .settings import Settings

#: Kind of work, by the name of its case: the sizes to try.
SIZES = {
    "scale-load": (100, 1_000, 10_000, 100_000, 1_000_000),
    "scale-save": (100, 1_000, 10_000, 100_000, 1_000_000),
    "scale-keys": (100, 1_000, 10_000, 100_000, 1_000_000, 1_250_000),
    "scale-model": (100, 1_000, 10_000, 100_000),
}
THREADS = (1, 2, 4)
PEERS = ("ours", "reference")


def case_names(settings: Settings) -> list[str]:
    largest = settings.scaled(10_000_000, 1_000)
    names = [f"{kind}:{size}" for kind, sizes in SIZES.items() for size in sizes if size <= largest]
    return names + [f"threads:{count}" for count in THREADS]


def slope(points: Mapping[int, float]) -> float | None:
    """The power of the size with which the time grows, by least squares, from 1,000 on: below, fixed costs rule."""
    logs = [(math.log(size), math.log(time)) for size, time in points.items() if size >= 1_000]
    if len(logs) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def curves(results: Sequence[CaseResult]) -> dict[str, dict[str, dict[int, float]]]:
    """Seconds by kind of work, peer and size."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for result in results:
        kind, _, size = result.name.partition(":")
        for peer in result.peers:
            median = result.time(peer)
            if kind in SIZES and median is not None:
                found.setdefault(kind, {}).setdefault(peer, {})[int(size)] = median
    return found


def report(results: Sequence[CaseResult], *, markdown: bool = False) -> str:
    rows = []
    for result in results:
        kind, _, size = result.name.partition(":")
        for peer, of_peer in result.peers.items():
            median = result.time(peer)
            speed = f"{result.nbytes / median / 1e9:.1f} GB/s" if median and kind == "threads" else ""
            time = seconds(median) if median else of_peer.failure or ""
            rows.append([kind, f"{int(size):,}", peer, time, speed, f"{memory_of(of_peer)} MB"])
    text = table(["work", "size", "peer", "time", "speed", "peak memory"], rows, markdown=markdown)
    fits = [
        f"{kind}, {peer}: time grows with size to the power of {power:.2f}"
        for kind, of_kind in curves(results).items()
        for peer, points in of_kind.items()
        if (power := slope(points)) is not None
    ]
    return "\n".join([text, "", *fits])
