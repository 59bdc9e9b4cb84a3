"""Headers that are made to be expensive: read or refused in linear time, with memory bounded by their size."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import pytest
from helpers import run_in_process

from benchmarks.hostile import HEADERS, cost_of_opening, write

SIZE = 20_000_000
#: The text itself, four times as much to parse it, and what it holds: ten million dimensions are 80 MB.
LARGEST_PEAK = 6.5


def open_all(path: Path) -> None:
    write(path, b"{}")
    cost_of_opening("torch_safetensors", path)
    for name, make in HEADERS.items():
        write(path, make(SIZE))
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        cost = cost_of_opening("torch_safetensors", path)
        assert SIZE / 2 < cost.peak < LARGEST_PEAK * SIZE, f"{name}: {cost}"


def test_memory_is_bounded_and_time_is_linear(tmp_path: Path) -> None:
    """All of them take ten seconds; of quadratic work not even one would end before the process is ended."""
    run_in_process(open_all, tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", HEADERS)
def test_the_reference_judges_them_alike(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.safetensors"
    write(path, HEADERS[name](300_000))
    ours, theirs = (cost_of_opening(package, path).count for package in ("torch_safetensors", "safetensors"))
    if name == "tensors of one name":
        assert (ours, theirs) == (None, 1)  # a name that stands twice is an error here
    else:
        assert ours == theirs
