"""With ``fsync=True`` nothing that a call made, renamed or removed is undone by a power failure.

Each such change of a folder is followed by a flush of that folder before the call returns, and what makes a new
checkpoint count is on the disk before anything of the old one is removed.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from conftest import Worker
from faults import faults, trace
from helpers import listing

import torch_safetensors as ts
from torch_safetensors.distributed import SafetensorsWriter
from torch_safetensors.distributed import save_file as save_together

INDEX = "model.safetensors.index.json"
CHANGES = ("rename", "link", "unlink", "mkdir")


def tensors_of(value: float) -> dict[str, torch.Tensor]:
    """100 bytes each."""
    return {f"layer.{i}": torch.full((25,), float(value + i)) for i in range(5)}


def traced(work: Callable[[], Any], **errors: int) -> list[list[str]]:
    with faults(**errors), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work()
        return [line.split(" ", 1) for line in trace()]


def assert_flushed(lines: list[list[str]], least: int = 1) -> None:
    """Each change is followed by a flush of its folder."""
    changes = 0
    for number, (call, path) in enumerate(lines):
        if call in CHANGES:
            changes += 1
            folder = os.path.realpath(Path(path).parent)
            assert ["fsync", folder] in lines[number:], (call, path, lines)
    assert changes >= least, lines


def assert_index_comes_first(lines: list[list[str]], folder: Path, old: set[str]) -> None:
    """Before any of the old names is removed, the index is under its name, and that is on the disk."""
    removed = [number for number, line in enumerate(lines) if line[0] == "unlink" and Path(line[1]).name in old]
    index = lines.index(["rename", str(folder / INDEX)])
    flushed = lines.index(["fsync", str(folder)], index)
    assert removed
    assert flushed < min(removed), lines


# --- one file ------------------------------------------------------------------------------------------------------


def save_one(path: Path, old: bool, **errors: int) -> list[list[str]]:
    if old:
        ts.save_file(tensors_of(0), path)
    return traced(lambda: ts.save_file(tensors_of(1), path, fsync=True), **errors)


@pytest.mark.parametrize("rename", [0, errno.ENOSYS], ids=["renamed", "in place"])
@pytest.mark.parametrize("old", [False, True], ids=["new", "existing"])
def test_a_file(tmp_path: Path, worker: Worker, old: bool, rename: int) -> None:
    assert_flushed(worker(lambda_with_errors, save_one, tmp_path / "x", old, {"rename": rename} if rename else {}))


def lambda_with_errors(work: Callable[..., Any], path: Path, old: bool, errors: dict[str, int]) -> Any:
    return work(path, old, **errors)


def write_one(path: Path) -> list[list[str]]:
    def work() -> None:
        with ts.Writer(path, tensors_of(0), fsync=True) as writer:
            for name, tensor in tensors_of(0).items():
                writer.write(name, tensor)

    return traced(work)


def test_a_writer(tmp_path: Path, worker: Worker) -> None:
    assert_flushed(worker(write_one, tmp_path / "x"))


def replace_one(path: Path) -> list[list[str]]:
    ts.save_file(tensors_of(0), path)
    return traced(lambda: ts.replace_tensor(path, "layer.0", torch.zeros(25)))


def test_replace_tensor(tmp_path: Path, worker: Worker) -> None:
    assert_flushed(worker(replace_one, tmp_path / "x"), 2)  # its undo file comes and goes


# --- several files -------------------------------------------------------------------------------------------------


def save_several(folder: Path, before: int | None, after: int, fsync: bool) -> tuple[set[str], list[list[str]]]:
    if before is not None:
        ts.save_sharded(tensors_of(0), folder, max_shard_size=before)
    old = set(listing(folder)) if folder.exists() else set()
    return old, traced(lambda: ts.save_sharded(tensors_of(10), folder, max_shard_size=after, fsync=fsync))


@pytest.mark.parametrize("before", [None, 100, 200, 1000])
@pytest.mark.parametrize("after", [100, 200, 1000])
def test_a_directory(tmp_path: Path, worker: Worker, before: int | None, after: int) -> None:
    folder = tmp_path / "a" / "b" / "c"
    old, lines = worker(save_several, folder, before, after, True)
    assert_flushed(lines, 1 if after == 1000 else 4)
    if before is None:
        assert [line for line in lines if line[0] == "mkdir"]
    elif after != 1000:
        assert_index_comes_first(lines, folder, old - {INDEX})


def test_links_are_on_the_disk_before_the_index_names_them(tmp_path: Path, worker: Worker) -> None:
    _, lines = worker(save_several, tmp_path, 200, 200, True)
    links = [number for number, line in enumerate(lines) if line[0] == "link"]
    last_index = max(number for number, line in enumerate(lines) if line == ["rename", str(tmp_path / INDEX)])
    assert len(links) == 3
    assert ["fsync", str(tmp_path)] in lines[max(links) : last_index]


def test_nothing_is_flushed_unless_it_is_asked_for(tmp_path: Path, worker: Worker) -> None:
    for before in (None, 200, 1000):
        _, lines = worker(save_several, tmp_path / f"{before}" / "new", before, 200, False)
        assert not [line for line in lines if line[0] == "fsync"]


def abort_several(folder: Path) -> list[list[str]]:
    def work() -> None:
        def stop(done: int, _total: int) -> None:
            if done > 250:
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            ts.save_sharded(tensors_of(0), folder, max_shard_size=100, fsync=True, progress=stop)

    return traced(work)


def test_a_save_that_fails(tmp_path: Path, worker: Worker) -> None:
    assert_flushed(worker(abort_several, tmp_path), 4)


# --- several processes ---------------------------------------------------------------------------------------------


def alone(work: Callable[[], None]) -> Callable[[], None]:
    """In a process group of one."""

    def run() -> None:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            work()
        finally:
            dist.destroy_process_group()

    return run


def save_with_ranks(folder: Path, before: int | None, size: int | None) -> tuple[set[str], list[list[str]]]:
    path = folder if size is not None else folder / "x"
    if before is not None:
        ts.save_sharded(tensors_of(0), folder, max_shard_size=before)
    old = set(listing(folder)) if folder.exists() else set()
    return old, traced(alone(lambda: save_together(tensors_of(1), path, max_shard_size=size, fsync=True)))


@pytest.mark.parametrize("before", [None, 200, 1000])
def test_a_distributed_save(tmp_path: Path, worker: Worker, before: int | None) -> None:
    folder = tmp_path / "a" / "b"
    old, lines = worker(save_with_ranks, folder, before, 200)
    assert_flushed(lines, 4)
    if before is not None:
        assert_index_comes_first(lines, folder, old - {INDEX})


def test_a_distributed_save_to_one_file(tmp_path: Path, worker: Worker) -> None:
    assert_flushed(worker(save_with_ranks, tmp_path, None, None)[1])


def save_with_dcp(folder: Path, before: dict[str, Any], after: dict[str, Any]) -> list[list[str]]:
    def save(value: float, form: dict[str, Any], fsync: bool) -> Callable[[], None]:
        return alone(lambda: dcp.save(tensors_of(value), storage_writer=SafetensorsWriter(folder, fsync=fsync, **form)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(0, before, False)()
    return traced(save(1, after, True))


FORMS: dict[str, dict[str, Any]] = {
    "single": {},
    "whole": {"max_shard_size": 200},
    "ranks": {"save_distributed": True},
    "more": {"save_distributed": True, "fqn_to_index_mapping": {f"layer.{i}": 1 + i % 2 for i in range(5)}},
}


@pytest.mark.parametrize("before", FORMS)
@pytest.mark.parametrize("after", FORMS)
def test_a_distributed_checkpoint(tmp_path: Path, worker: Worker, before: str, after: str) -> None:
    lines = worker(save_with_dcp, tmp_path, FORMS[before], FORMS[after])
    assert_flushed(lines)
    if before != after:
        assert [line for line in lines if line[0] == "unlink" and ".st-" not in line[1]]
