"""The run for an accelerator: which cases, and a table in GB/s."""

from __future__ import annotations

from collections.abc import Sequence

from .report import ratio, seconds, table
from .results import CaseResult

COUNTS = (300, 20_000)


def case_names(gigabytes: Sequence[float]) -> list[str]:
    return [f"device-{state}:{count}:{size:g}" for size in gigabytes for count in COUNTS for state in ("warm", "cold")]


def report(results: Sequence[CaseResult], *, markdown: bool = False) -> str:
    rows = []
    for result in results:
        case, count, gigabytes = result.name.split(":")
        limit = result.time("limit")
        fastest_first = sorted(result.peers, key=lambda peer: result.time(peer) or 1e9)
        for peer in fastest_first:
            time = result.time(peer)
            if time is None:
                continue
            rows.append(
                [
                    case.removeprefix("device-"),
                    f"{float(gigabytes):g} GB",
                    f"{int(count):,}",
                    peer,
                    f"{seconds(time)} ±{result.peers[peer].spread / 2:.0%}",
                    f"{result.nbytes / time / 1e9:.2f}",
                    f"{limit / time:.0%}" if limit else "",
                    ratio(result.ratio("reference", to=peer)),
                ]
            )
    headings = ["cache", "size", "tensors", "peer", "time", "GB/s", "of the limit", "ratio"]
    return table(headings, rows, markdown=markdown)
