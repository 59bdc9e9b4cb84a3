"""What ranks that load by torch.distributed.checkpoint read together."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import outcomes_of_ranks, run_ranks
from shared_reads import choices, read_by, sizes_read, small_blocks
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

import torch_safetensors as ts
from torch_safetensors.distributed import SafetensorsReader, SafetensorsWriter, _checkpoint_reader

TENSORS = {"rows": (64, 100), "columns": (200, 60), "everywhere": (1000, 30), "one": ()}
PLACEMENTS: dict[str, Placement] = {"rows": Shard(0), "columns": Shard(1)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ts.save_file({name: torch.rand(shape) for name, shape in TENSORS.items()}, tmp_path / "x")
    return tmp_path / "x"


def state_of_zeros() -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {
        name: distribute_tensor(torch.zeros(shape), mesh, [PLACEMENTS.get(name, Replicate())])
        for name, shape in TENSORS.items()
    }


def assert_equal(state: dict[str, Any], path: Path) -> None:
    for name, tensor in ts.load_file(path).items():
        assert torch.equal(state[name].full_tensor(), tensor), name


def counts_bytes(path: Path, strategy: Any, batch: int) -> int:
    state = state_of_zeros()
    with small_blocks(), sizes_read() as sizes, mock.patch.object(_checkpoint_reader, "_BATCH", batch):
        dcp.load(state, storage_reader=SafetensorsReader(path, strategy=strategy))
    assert_equal(state, path)
    return sum(sizes)


@pytest.mark.parametrize("batch", [1 << 30, 1])
def test_with_broadcast_the_group_reads_every_byte_once(path, batch: int) -> None:
    whole = sum(tensor.nbytes for tensor in ts.load_file(path).values())
    replicated = 4 * (1000 * 30 + 1)
    assert sum(run_ranks(4, counts_bytes, path, "broadcast", batch)) == whole
    assert sum(run_ranks(4, counts_bytes, path, "independent", batch)) == whole + 3 * replicated


def loads_parts_of_ranks(folder: str) -> None:
    dcp.save(state_of_zeros(), storage_writer=SafetensorsWriter(folder, save_distributed=True))
    mesh = init_device_mesh("cpu", (2,))
    state = {name: distribute_tensor(torch.ones(shape), mesh, [Replicate()]) for name, shape in TENSORS.items()}
    dcp.load(state, storage_reader=SafetensorsReader(folder, strategy="broadcast"))
    assert all(not tensor.to_local().any() for tensor in state.values())


def test_parts_of_several_files_are_passed_on(tmp_path) -> None:
    run_ranks(2, loads_parts_of_ranks, str(tmp_path))


class _Failing(DefaultLoadPlanner):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def resolve_tensor(self, read_item: Any) -> torch.Tensor:
        if dist.get_rank() == 1 and read_item.dest_index.fqn == self._name:
            raise ValueError("no memory for this")
        return super().resolve_tensor(read_item)


class _Unfit(DefaultLoadPlanner):
    """What is read together does not convert to what it wants on one rank."""

    def resolve_tensor(self, read_item: Any) -> torch.Tensor:
        if dist.get_rank() == 1 and read_item.dest_index.fqn == "everywhere":
            return torch.empty(read_item.lengths, dtype=torch.float4_e2m1fn_x2)
        return super().resolve_tensor(read_item)


def message_of(path: Path, planner: Any = None, **options: Any) -> str:
    with pytest.raises(CheckpointException) as caught:
        dcp.load(state_of_zeros(), storage_reader=SafetensorsReader(path, **options), planner=planner)
    return str(caught.value)


def fails_on_one_rank(path: Path) -> None:
    def read_boxes(*_: Any) -> None:
        raise OSError(5, "Input/output error", str(path))

    with small_blocks():
        for name in TENSORS:  # alone, and together
            assert "no memory for this" in message_of(path, _Failing(name), strategy="broadcast")
        assert "Float4_e2m1fn_x2" in message_of(path, _Unfit(), strategy="broadcast")
        with read_by(read_boxes) if dist.get_rank() == 1 else contextlib.nullcontext():
            assert "Input/output error" in message_of(path, strategy="broadcast")
        alone = dist.new_group([0])
        two = dist.new_group([0, 1])
        assert "3 ranks load it, and 2 are in the reader's process_group" in message_of(
            path, strategy="broadcast", process_group=two if dist.get_rank() < 2 else alone
        )
        state = state_of_zeros()
        dcp.load(state, storage_reader=SafetensorsReader(path, strategy="broadcast"))
        assert_equal(state, path)


def test_what_one_rank_cannot_do_fails_all(path) -> None:
    run_ranks(3, fails_on_one_rank, path)


def dies(path: Path) -> None:
    def read_boxes(*_: Any) -> None:
        os._exit(3)

    with small_blocks(), read_by(read_boxes) if dist.get_rank() == 1 else contextlib.nullcontext():
        dcp.load(state_of_zeros(), storage_reader=SafetensorsReader(path, strategy="broadcast"))


def test_a_rank_that_dies_ends_the_others_wait(path) -> None:
    outcomes = outcomes_of_ranks(3, dies, path, group_timeout=10)
    assert outcomes[1].exit_status == 3
    for outcome in outcomes[0], outcomes[2]:
        assert isinstance(outcome.error, RuntimeError | CheckpointException), outcome


def logs_its_choice(path: Path) -> list[str]:
    records = choices()
    os.environ["TORCH_SAFETENSORS_STORAGE_BANDWIDTH"] = "1e3"
    for host in "the same", str(dist.get_rank()):
        with mock.patch("socket.gethostname", return_value=host):
            state = state_of_zeros()
            dcp.load(state, storage_reader=SafetensorsReader(path))
            assert_equal(state, path)
    return records


def test_auto_says_what_it_chose_and_why(path) -> None:
    first, second = run_ranks(2, logs_its_choice, path)
    assert second == []
    same, different = first
    # Two ranks of one machine read everything once; of two, what is on both of them twice.
    whole = sum(tensor.nbytes for tensor in ts.load_file(path).values())
    assert same.startswith(f"{path}: independent: independent reads {whole / 1e3:.3g} kB ")
    assert different.startswith(f"{path}: broadcast: broadcast {whole / 1e3:.3g} kB ")
    assert f"independent reads {(whole + 4 * 30001 + 4 * 12000) / 1e3:.3g} kB" in different


def test_a_strategy_that_is_none(path) -> None:
    strategy: Any = "best"
    with pytest.raises(ValueError, match="strategy 'best' is not one of"):
        SafetensorsReader(path, strategy=strategy)
