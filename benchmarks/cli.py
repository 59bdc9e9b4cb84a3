"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import accelerator, plot, report, scaling
from .cases import CASES, SPECIAL, make_case
from .machine import describe, lack_of_room, needs, one_line
from .peers import PEERS
from .results import CaseResult
from .runner import Runner
from .settings import ROOT, Settings


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    parser.description = "Measures the package next to the reference, other loaders and the machine's limits."
    add("--case", nargs="+", metavar="NAME", help="only these cases")
    add("--peer", nargs="+", metavar="NAME", choices=PEERS, help="only these peers (and ours)")
    add("--rounds", type=int, help="samples of each peer in each case (7; with --scaling and --device 5)")
    add("--small", action="store_true", help="a hundredth of the data, to try the code")
    add("--no-memory", action="store_true", help="do not measure peak memory")
    add("--seed", type=int, default=0, help="of the order in which peers take turns")
    add("--scaling", action="store_true", help="how time and memory grow instead")
    add("--device", help="load to this device instead, e.g. cuda:0")
    add("--gigabytes", nargs="+", type=float, default=[1, 4], help="sizes of the files for --device (1 4)")
    add("--json", type=Path, metavar="FILE", help="write all samples, versions and the machine")
    add("--plot", type=Path, metavar="FILE.png", help="draw a chart")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--list", action="store_true", help="list cases and peers")
    add("--dir", type=Path, default=ROOT / "build", metavar="FOLDER", help="on the disk to use (build)")
    add("--tmpfs", type=Path, default=Path("/dev/shm"), metavar="FOLDER", help="a folder in memory (/dev/shm)")
    add("--peers-folder", type=Path, default=ROOT / "build/peers", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = [name for name in options.case or [] if name.split(":")[0] not in {**CASES, **SPECIAL}]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    return options


@contextlib.contextmanager
def settings_for(options: argparse.Namespace) -> Iterator[Settings]:
    """With folders that are there as long as the context is."""
    options.dir.mkdir(parents=True, exist_ok=True)
    tmpfs = options.tmpfs if options.tmpfs.is_dir() else options.dir
    special = options.scaling or options.device
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.dir) as disk,
        tempfile.TemporaryDirectory(prefix="benchmarks-", dir=tmpfs) as memory,
    ):
        yield Settings(
            disk=Path(disk),
            tmpfs=Path(memory),
            peers=options.peers_folder,
            small=options.small,
            rounds=options.rounds or (5 if special else 7),
            seed=options.seed,
            timeout=60.0 if options.scaling else 120.0,
            memory=not options.no_memory,
            device="cuda:0" if options.device == "cuda" else options.device or "cpu",
        )


def chosen(options: argparse.Namespace, settings: Settings) -> tuple[list[str], list[str]]:
    """The names of cases and of peers."""
    if options.case:
        cases = options.case
    elif options.device:
        cases = accelerator.case_names(options.gigabytes)
    elif options.scaling:
        cases = scaling.case_names(settings)
    else:
        cases = list(CASES)
    default = scaling.PEERS if options.scaling else tuple(PEERS)
    wanted = {"ours", *options.peer} if options.peer else default
    return cases, [name for name in PEERS if name in wanted]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.list:
        print_list()
        return
    start = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that temporary folders are deleted
    with settings_for(options) as settings:
        names, peers = chosen(options, settings)
        disk, memory = needs([make_case(name, settings) for name in names], peers)
        print(f"needs up to {disk / 1e9:.1f} GB in {options.dir} and {memory / 1e9:.1f} GB of memory", file=sys.stderr)
        lack = lack_of_room(settings, disk, memory)
        if lack:
            sys.exit(lack)
        facts = describe(settings)
        runner = Runner(settings, peers, lambda text: print(text, file=sys.stderr, flush=True))
        results: list[CaseResult] = []
        with contextlib.closing(runner):
            try:
                for result in runner.run(names):
                    results.append(result)
            except KeyboardInterrupt:
                print("ended early", file=sys.stderr)
        facts |= {"versions": runner.versions, "missing": runner.missing, "seconds": time.monotonic() - start}
        show(options, settings, facts, results)


def show(options: argparse.Namespace, settings: Settings, facts: dict[str, Any], results: Sequence[CaseResult]) -> None:
    if options.json:
        content = {"machine": facts, "settings": dataclasses.asdict(settings), "cases": results}
        options.json.write_text(json.dumps(content, indent=1, default=_plain))
    if options.scaling:
        print(scaling.report(results, markdown=options.markdown))
    elif options.device:
        print(accelerator.report(results, markdown=options.markdown))
    else:
        print(report.table(report.HEADINGS, [report.row(result) for result in results], markdown=options.markdown))
    print("", *report.lines(results, facts["missing"]), sep="\n")
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    print(f"\n{one_line(facts)}\n{versions}\n{facts['seconds']:.0f} s")
    if options.plot:
        try:
            draw(options, settings, results)
        except ImportError as error:
            print(f"no chart: {error}")


def draw(options: argparse.Namespace, settings: Settings, results: Sequence[CaseResult]) -> None:
    if options.scaling:
        plot.draw_curves(scaling.curves(results), options.plot, settings)
    else:
        plot.draw_ratios(results, options.plot, settings)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def print_list() -> None:
    print("cases:")
    for name, make in CASES.items():
        print(f"  {name:16} {make.what}")
    print("peers:", ", ".join(PEERS))
