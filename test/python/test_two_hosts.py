"""Two ranks on each of two hosts: network namespaces joined by a cable, which also is pulled."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from ranks import Outcome, outcomes_of_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

import torch_safetensors
from benchmarks.case import CannotRunError
from benchmarks.distributed.hosts import Host, hosts
from torch_safetensors import distributed
from torch_safetensors.distributed import _save, _share

PLACEMENTS: dict[str, Placement] = {"rows": Shard(0), "columns": Shard(1)}
#: Of the group, in seconds.
TIMEOUT = 5
#: Read in rounds by broadcast, several of them.
LARGE = 200 << 20


@pytest.fixture
def two_hosts() -> Iterator[Sequence[Host]]:
    try:
        with hosts(2) as made:
            yield made
    except CannotRunError as error:
        pytest.skip(str(error))


def enter(two: Sequence[Host], rank: int) -> None:
    two[rank // 2].enter()


def run(two: Sequence[Host], function: Any, *arguments: Any) -> list[Outcome]:
    before = functools.partial(enter, two)
    return outcomes_of_ranks(4, function, *arguments, timeout=60, group_timeout=TIMEOUT, before=before)


def some_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator)
        for name, shape in {"rows": (11, 5), "columns": (3, 10), "all": (1000, 7), "scalar": ()}.items()
    }


def load_both_ways_and_save(file: Path, copy: Path) -> None:
    mesh = init_device_mesh("cpu", (4,))
    tensors = some_tensors()
    loaded: dict[str, DTensor] = {}
    for strategy in ("independent", "broadcast"):
        loaded = distributed.load_file(file, mesh, PLACEMENTS, strategy=strategy)  # type: ignore[arg-type]
        assert loaded.keys() == tensors.keys()
        for name, tensor in loaded.items():
            assert tensor.placements == (PLACEMENTS.get(name, Replicate()),)
            assert torch.equal(tensor.full_tensor(), tensors[name])
    distributed.save_file(loaded, copy)


def test_loads_and_saves_between_hosts(two_hosts: Sequence[Host], tmp_path: Path) -> None:
    file, copy = tmp_path / "a.safetensors", tmp_path / "copy.safetensors"
    torch_safetensors.save_file(some_tensors(), file)
    for outcome in run(two_hosts, load_both_ways_and_save, file, copy):
        assert outcome.has_returned, outcome.traceback
    assert copy.read_bytes() == file.read_bytes()


def pull_cable_after(module: ModuleType, name: str, host: Host) -> None:
    """The first call of this function of a module is the last thing that happens with the cable in."""
    function = getattr(module, name)

    def and_pull_cable(*arguments: Any, **options: Any) -> Any:
        setattr(module, name, function)
        done = function(*arguments, **options)
        host.pull_cable()
        return done

    setattr(module, name, and_pull_cable)


def load_without_a_cable(file: Path, two: Sequence[Host]) -> None:
    mesh = init_device_mesh("cpu", (4,))
    if mesh.get_rank() == 0:
        pull_cable_after(_share, "all_gather", two[1])
    distributed.load_file(file, mesh, strategy="broadcast")


def save_without_a_cable(file: Path, two: Sequence[Host]) -> None:
    mesh = init_device_mesh("cpu", (4,))
    if mesh.get_rank() == 0:
        pull_cable_after(_save, "_write", two[1])
    distributed.save_file({"a": distribute_tensor(torch.ones(8), mesh, [Shard(0)])}, file)


@pytest.mark.parametrize(
    ("act", "size", "doing"),
    # A rank may be done with what is passed on, and then hears nothing of the others.
    [(load_without_a_cable, LARGE, "(reading|passing on what was read)"), (save_without_a_cable, 8, "writing")],
)
def test_a_pulled_cable_is_an_error_in_time(
    act: Any, size: int, doing: str, two_hosts: Sequence[Host], tmp_path: Path
) -> None:
    file = tmp_path / "a.safetensors"
    torch_safetensors.save_file({"a": torch.zeros(size, dtype=torch.uint8)}, file)
    before = file.read_bytes()
    for outcome in run(two_hosts, act, file, two_hosts):
        assert isinstance(outcome.error, RuntimeError), outcome.traceback
        assert not isinstance(outcome.error, torch_safetensors.SafetensorError)  # which is of a bad file
        lost = f"{re.escape(str(file))}: another rank was lost while {doing}: "
        assert re.match(lost, str(outcome.error)), outcome.traceback
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
