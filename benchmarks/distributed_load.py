"""Loading one checkpoint by several ranks from a slow storage: ``python -m benchmarks.distributed_load``.

The storage is benchmarks/slow_fs.py, where each rank has a page cache of its own, as a host has. The ways to load take
turns. Each row: the slowest rank's median time, how many times the checkpoint left the storage, and the time that
torch_safetensors/distributed/_cost.py expects.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from torch_safetensors.distributed._cost import PREFIX, Hardware, Strategy, Work, choose, seconds

from .case import CannotRunError
from .distributed.hosts import hosts
from .distributed.loads import FILE, LAYOUTS, PEERS, Shapes, sample, tensor_of
from .distributed.ranks import Ranks, ranks
from .machine import describe, one_line
from .remote import WorkerError
from .report import table
from .settings import ROOT, Settings
from .slow_fs import Counts, mounted

HEADINGS = ["layout", "ranks", "way", "time", "least to most", "from storage", "expected"]


@dataclasses.dataclass
class Result:
    layout: str
    ranks: int
    peer: str
    #: Of rounds: seconds of the slowest rank, and bytes from the storage.
    times: list[float] = dataclasses.field(default_factory=list)
    nbytes: list[int] = dataclasses.field(default_factory=list)
    failure: str = ""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed_load", description=__doc__)
    add = parser.add_argument
    add("--ranks", nargs="+", type=int, default=[2, 4])
    add("--layout", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    add("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    add("--rounds", type=int, default=3)
    add("--megabytes", type=float, default=64, help="of the checkpoint (64)")
    add("--storage", type=float, default=100, help="MB/s that the storage gives to all ranks together (100)")
    add("--latency", type=float, default=1, help="ms until the storage answers (1)")
    add("--network", type=float, help="MB/s that each rank sends at most, from a host of its own (loopback)")
    add("--seed", type=int, default=0, help="of the order in which the ways take turns")
    add("--json", type=Path, metavar="FILE", help="write all samples and the machine")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--dir", type=Path, default=ROOT / "build", metavar="FOLDER", help="on the disk to use (build)")
    add("--peers-folder", type=Path, default=ROOT / "build/peers", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def shapes_of(megabytes: float) -> Shapes:
    """As of a transformer: square matrices with a bias each, two of the matrices four times as large."""
    width = max(4, round(math.sqrt(megabytes * 1e6 / 4 / 12 / 4) / 4) * 4)
    sizes = {
        "attention": (width, width),
        "output": (width, width),
        "up": (4 * width, width),
        "down": (width, 4 * width),
    }
    layers = max(1, round(megabytes * 1e6 / 4 / (10 * width * width)))
    shapes: Shapes = {}
    for layer in range(layers):
        for name, shape in sizes.items():
            shapes[f"{layer}.{name}.weight"] = shape
            shapes[f"{layer}.{name}.bias"] = shape[:1]
    return shapes


def work_of(shapes: Shapes, layout: str, count: int) -> Work:
    """Rows of matrices are so short that who needs a part of each reads all of them."""
    unique = sum(4 * math.prod(shape) for shape in shapes.values())
    own, shared = (unique, {}) if layout == "rows" else (unique * count, {count: unique})
    return Work(count, own, unique, shared, requests=len(shapes), header=100 * len(shapes), tensors=len(shapes))


def hardware_of(options: argparse.Namespace) -> Hardware:
    given = {"storage_latency": options.latency / 1e3}
    given["storage_bandwidth"] = given["client_bandwidth"] = options.storage * 1e6
    if options.network is not None:
        given["network_bandwidth"] = options.network * 1e6
    return Hardware(**given)


def measure(options: argparse.Namespace, say: Any) -> tuple[list[Result], dict[str, Any]]:
    """Raises CannotRunError where the system cannot be made slow."""
    told = {PREFIX + name.upper(): str(value) for name, value in vars(hardware_of(options)).items()}
    shapes = shapes_of(options.megabytes)
    options.dir.mkdir(parents=True, exist_ok=True)
    results = []
    with (
        mock.patch.dict(os.environ, told),  # which the ranks inherit
        tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.dir) as name,
    ):
        settings = Settings(Path(name), Path(name), peers=options.peers_folder)
        folder, mount = settings.disk / "behind", settings.disk / "mount"
        write(folder, shapes, max(options.ranks))
        with mounted(settings, folder, mount, options.storage * 1e6, options.latency / 1e3) as counts:
            for count in options.ranks:
                with group(options, count) as processes:
                    results += run(options, processes, counts, mount, shapes)
                say(f"{count} ranks done")
        return results, describe(settings) | {
            "command": " ".join(["python -m benchmarks.distributed_load", *sys.argv[1:]])
        }


def write(folder: Path, shapes: Shapes, count: int) -> None:
    from torch_safetensors import save_file

    for rank in range(count):
        (folder / f"rank{rank}").mkdir(parents=True)
    first = folder / "rank0" / FILE
    save_file({name: tensor_of(shapes, name) for name in shapes}, first)
    for rank in range(1, count):
        (folder / f"rank{rank}" / FILE).hardlink_to(first)


@contextlib.contextmanager
def group(options: argparse.Namespace, count: int) -> Iterator[Ranks]:
    with contextlib.ExitStack() as stack:
        made = None
        if options.network is not None:
            made = stack.enter_context(hosts(count, options.network * 1e6))
        yield stack.enter_context(ranks(count, made))


def run(options: argparse.Namespace, group: Ranks, counts: Counts, mount: Path, shapes: Shapes) -> list[Result]:
    """The first round, in which modules are imported and connections made, does not count."""
    results = [Result(layout, len(group), peer) for layout in options.layout for peer in options.peer]
    order = random.Random(options.seed)
    for number in range(options.rounds + 1):
        for result in order.sample(results, len(results)):
            if result.failure:
                continue
            _, before = counts.get()
            try:
                times = group.call(sample, result.peer, result.layout, mount, shapes)
            except WorkerError as error:
                if error.lost:
                    raise
                result.failure = str(error).strip().splitlines()[-1]
                continue
            if number > 0:
                result.times.append(max(times))
                result.nbytes.append(counts.get()[1] - before)
    return results


def rows(options: argparse.Namespace, results: Sequence[Result]) -> list[list[str]]:
    shapes, hardware = shapes_of(options.megabytes), hardware_of(options)
    found = []
    for result in results:
        work = work_of(shapes, result.layout, result.ranks)
        strategy = strategy_of(result.peer, work, hardware)
        expected = "" if strategy is None else f"{seconds(strategy, work, hardware):.2f} s"
        place = [result.layout, str(result.ranks), result.peer]
        if not result.times:
            found.append([*place, "failed", result.failure, "", expected])
            continue
        times = f"{min(result.times):.2f} to {max(result.times):.2f}"
        from_storage = f"{statistics.median(result.nbytes) / work.unique:.2f}x"
        found.append([*place, f"{statistics.median(result.times):.2f} s", times, from_storage, expected])
    return found


def strategy_of(peer: str, work: Work, hardware: Hardware) -> Strategy | None:
    if peer == "auto":
        return choose(work, hardware).strategy
    if peer.startswith("everything"):
        return "everything"
    return peer if peer in ("independent", "broadcast") else None  # type: ignore[return-value]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        results, facts = measure(options, lambda text: print(text, file=sys.stderr, flush=True))
    except CannotRunError as error:
        sys.exit(str(error))
    if options.json:
        content = {"machine": facts, "results": [dataclasses.asdict(result) for result in results]}
        options.json.write_text(json.dumps(content, indent=1))
    print(table(HEADINGS, rows(options, results), markdown=options.markdown))
    print(f"\n{one_line(facts)}")


if __name__ == "__main__":
    logging.basicConfig()
    main()
