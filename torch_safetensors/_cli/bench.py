"""``torch-safetensors bench``: how long loading a checkpoint takes here, each way."""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import TypeAlias

import torch

from .._files import load_file
from .._listing import list_tensors
from .._safe_open import safe_open
from .._text import count_of, format_bytes
from ._errors import CommandError
from ._grid import Cell, Column, line, print_grid

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "measure how fast a checkpoint loads"
EPILOG = """\
The ways take turns, and each is run once before it counts: what is measured is loading from the page cache,
not from the disk. "mmap" returns before anything is read; "touched" reads a byte of every page, as the first
use of the tensors would.

examples:
  torch-safetensors bench model.safetensors --runs 9
"""

_Tensors: TypeAlias = "dict[str, torch.Tensor]"
_PAGE = 4096
_COLUMNS = (
    Column("way"),
    Column("median ms", "magenta", right=True),
    Column("fastest ms", right=True),
    Column("slowest ms", right=True),
    Column("MB/s", "green", right=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="a file, an index, or a directory")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="so many of each (5)")
    parser.add_argument("--device", default="cpu", help="where the tensors shall be (cpu)")


def run(options: argparse.Namespace) -> int:
    """Measures, and prints a table."""
    if options.runs < 1:
        raise CommandError(f"--runs: {options.runs} is not positive")
    with safe_open(options.path) as handle:
        listing = list_tensors(handle)
    ways = _ways(options.path, options.device, len(listing.files) == 1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.runs + 1):
        for name, load in ways.items():
            begin = time.perf_counter()
            load()
            if turn > 0:
                times[name].append(time.perf_counter() - begin)
    tensors = count_of(len(listing.tensors), "tensor")
    line(f"{tensors}, {format_bytes(listing.nbytes)}, {count_of(options.runs, 'run')} of each, from the page cache")
    print_grid(_COLUMNS, [_row(name, seconds, listing.nbytes) for name, seconds in times.items()])
    return 0


def _ways(path: str, device: str, is_one_file: bool) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[], object]] = {
        "mmap": lambda: load_file(path, device, backend="mmap"),
        "mmap, touched": lambda: _touch(load_file(path, device, backend="mmap")),
        "pread": lambda: load_file(path, device, backend="pread"),
    }
    try:
        reference = importlib.import_module("safetensors.torch")
    except ImportError:
        return ways
    if is_one_file:
        ways["reference, touched"] = lambda: _touch(reference.load_file(path, device))
    return ways


def _touch(tensors: _Tensors) -> None:
    for tensor in tensors.values():
        if tensor.numel() > 0 and tensor.is_cpu:
            tensor.reshape(-1).view(torch.uint8)[::_PAGE].sum()


def _row(name: str, seconds: list[float], nbytes: int) -> list[Cell]:
    median = statistics.median(seconds)
    numbers = [f"{value * 1000:.2f}" for value in (median, min(seconds), max(seconds))]
    # Of what has read nothing yet, a rate would mean nothing.
    return [name, *numbers, "" if name == "mmap" else f"{nbytes / median / 1e6:,.0f}"]
