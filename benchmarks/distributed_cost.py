"""What loading by many ranks takes, by formula and by simulation: ``python -m benchmarks.distributed_cost``.

Formulas are those of torch_safetensors/distributed/_cost.py; benchmarks/distributed/simulation.py is the simulation.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_safetensors.distributed._cost import Hardware, Strategy, Work, block_of, choose, seconds

from .distributed.simulation import simulate
from .plot import FAINT, OTHER, OURS, load_pyplot
from .report import seconds as time_of
from .report import table
from .settings import ROOT, Settings

#: A large parallel file system, and a network of 100 Gbit/s.
CLUSTER = Hardware(
    storage_bandwidth=100e9,
    client_bandwidth=5e9,
    storage_latency=1e-3,
    storage_requests=1e6,
    network_bandwidth=10e9,
    network_latency=2e-5,
)
SIMULATED_ROUNDS = 20
STRATEGIES: tuple[Strategy, ...] = ("independent", "broadcast", "everything")
#: Where lines lie on each other all of them can be seen.
STYLES: dict[Strategy, dict[str, Any]] = {
    "independent": {"color": OURS, "linewidth": 3.5},
    "broadcast": {"color": "black", "linestyle": "--"},
    "everything": {"color": OTHER, "linestyle": ":", "linewidth": 2.5},
}
LAYOUTS = {
    "rows": "fully_shard over all ranks",
    "replicated groups": "fully_shard over 8 ranks, replicated over groups of 8",
    "replicated": "every rank needs everything",
}


@dataclasses.dataclass(frozen=True)
class Point:
    layout: str
    ranks: int
    strategy: Strategy
    by_formula: float
    by_simulation: float


def work_of(layout: str, ranks: int, nbytes: int, tensors: int) -> Work:
    groups = {"rows": 1, "replicated groups": max(1, ranks // 8), "replicated": ranks}[layout]
    shared = {groups: nbytes} if groups > 1 else {}
    return Work(ranks, groups * nbytes, nbytes, shared, requests=tensors, header=100 * tensors, tensors=tensors)


def points(ranks: Sequence[int], nbytes: int, tensors: int, hardware: Hardware, jitter: float) -> list[Point]:
    found = []
    for layout in LAYOUTS:
        for count in ranks:
            work = work_of(layout, count, nbytes, tensors)
            for strategy in STRATEGIES:
                simulated = simulate_at_length(strategy, work, hardware, jitter)
                found.append(Point(layout, count, strategy, seconds(strategy, work, hardware), simulated))
    return found


def simulate_at_length(strategy: Strategy, work: Work, hardware: Hardware, jitter: float) -> float:
    """Of thousands of equal rounds the first are simulated; the others take as long as the last of these."""
    among = max(work.shared, default=1)
    of_round = work.ranks * block_of(among)
    rounds = work.of_several / of_round
    if strategy != "broadcast" or rounds <= 2 * SIMULATED_ROUNDS:
        return simulate(strategy, work, hardware, jitter=jitter)
    some, more = (
        simulate(strategy, dataclasses.replace(work, unique=shared, shared={among: shared}), hardware, jitter=jitter)
        for shared in (SIMULATED_ROUNDS * of_round, 2 * SIMULATED_ROUNDS * of_round)
    )
    return more + (more - some) * (rounds / SIMULATED_ROUNDS - 2)


def rows(found: Sequence[Point], nbytes: int, tensors: int, hardware: Hardware) -> list[list[str]]:
    """A row for each layout and number of ranks; formula, and simulation."""
    by_place: dict[tuple[str, int], list[str]] = {}
    for point in found:
        times = by_place.setdefault((point.layout, point.ranks), [])
        times.append(f"{time_of(point.by_formula)}, {time_of(point.by_simulation)}")
    return [
        [layout, f"{ranks:,}", *times, choose(work_of(layout, ranks, nbytes, tensors), hardware).strategy]
        for (layout, ranks), times in by_place.items()
    ]


def draw(found: Sequence[Point], path: Path, settings: Settings) -> None:
    """Lines by formula, points by simulation."""
    pyplot = load_pyplot(settings)
    figure, grid = pyplot.subplots(
        1, len(LAYOUTS), figsize=(3.8 * len(LAYOUTS), 3.6), layout="constrained", sharey=True
    )
    for axes, (layout, title) in zip(grid, LAYOUTS.items(), strict=True):
        for strategy in STRATEGIES:
            of_line = [point for point in found if (point.layout, point.strategy) == (layout, strategy)]
            counts = [point.ranks for point in of_line]
            axes.loglog(counts, [point.by_formula for point in of_line], label=strategy, **STYLES[strategy])
            axes.scatter(counts, [point.by_simulation for point in of_line], color=STYLES[strategy]["color"], s=18)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("ranks")
        axes.grid(color=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("seconds (lines: formula, points: simulation)")
    grid[0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def header_times(tensors: int) -> str:
    """Measured here: what each rank does on its own, before it reads any tensor."""
    import torch

    import torch_safetensors

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        names = (f"model.layers.{number // 10}.mlp.experts.{number}.weight" for number in range(tensors))
        torch_safetensors.save_file({name: torch.zeros(1) for name in names}, path)
        size = path.stat().st_size - 4 * tensors
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            torch_safetensors.safe_open(path)
            times.append(time.perf_counter() - begin)
    return f"a header of {tensors:,} tensors: {size / 1e6:.1f} MB, read and parsed in {time_of(min(times))} here"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed_cost", description=__doc__)
    add = parser.add_argument
    add("--ranks", nargs="+", type=int, default=[1, 8, 64, 256, 1000])
    add("--gigabytes", type=float, default=1000)
    add("--tensors", type=int, default=10_000)
    add("--jitter", type=float, default=0.0, help="how much slower a cable may be, as a part of 1 (0)")
    add("--plot", type=Path, metavar="FILE.png", help="draw a chart")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--peers-folder", type=Path, default=ROOT / "build/peers", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    nbytes = int(options.gigabytes * 1e9)
    found = points(options.ranks, nbytes, options.tensors, CLUSTER, options.jitter)
    headings = ["layout", "ranks", *STRATEGIES, "auto"]
    print(table(headings, rows(found, nbytes, options.tensors, CLUSTER), markdown=options.markdown))
    print(f"\nby formula, by simulation; {CLUSTER}\n{header_times(options.tensors)}")
    if options.plot:
        draw(found, options.plot, Settings(Path(), Path(), peers=options.peers_folder))


if __name__ == "__main__":
    main()
