"""Names that save_model did not write, since they were tied to others, and what distributed loads make of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import run_ranks
from shared_reads import sizes_read
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import torch_safetensors as ts
from torch_safetensors.distributed import SafetensorsReader, load_file, load_model

STRATEGIES = ["independent", "broadcast"]


class Tied(nn.Module):
    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6)
        self.head.weight = self.embed.weight


class Untied(Tied):
    def __init__(self, seed: int = 2) -> None:
        super().__init__(seed)
        self.head.weight = nn.Parameter(torch.rand(6, 4))


class Viewed(nn.Module):
    """Names over all of a storage, over a part of it, and over all of it in another shape and as another dtype."""

    def __init__(self, fill: float = 1) -> None:
        super().__init__()
        self.register_buffer("all", torch.arange(8.0) * fill)
        self.register_buffer("part", self.all[:4])
        self.register_buffer("square", self.all.view(2, 4))
        self.register_buffer("whole", self.all.view(torch.int32))


def single(model: nn.Module, folder: Path) -> None:
    ts.save_model(model, folder / "model.safetensors", {"format": "pt"})


def several(model: nn.Module, folder: Path) -> None:
    ts.save_sharded(model, folder, max_shard_size=20)


@pytest.fixture(params=[single, several], ids=["one file", "several"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    request.param(Tied(), tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is")
        yield


def expected(folder: Path) -> dict[str, torch.Tensor]:
    """What load_model makes of it."""
    model = Tied(3)
    assert ts.load_model(model, folder) == ([], [])
    return model.state_dict()


def loaded(state: dict[str, Any], folder: Path, **options: Any) -> dict[str, Any]:
    dcp.load(state, storage_reader=SafetensorsReader(folder), **options)
    return state


def error_of(state: dict[str, Any], folder: Path, **options: Any) -> str:
    with pytest.raises(CheckpointException) as caught:
        loaded(state, folder, **options)
    return str(caught.value)


@pytest.mark.parametrize("make", [Tied, Untied])
def test_a_tie_is_read_where_load_model_would_fill_it(saved: Path, make: Callable[[], nn.Module]) -> None:
    state = loaded(make().state_dict(), saved)
    for name, tensor in expected(saved).items():
        assert torch.equal(state[name], tensor), name


def test_what_is_tied_there_is_read_once_and_converted(saved: Path) -> None:
    state = Tied().bfloat16().state_dict()
    with sizes_read() as sizes:
        loaded(state, saved)
    assert sorted(sizes) == [6 * 2, 6 * 4 * 2]
    for name, tensor in expected(saved).items():
        assert torch.equal(state[name], tensor.bfloat16()), name


def test_another_dtype_in_memory_of_its_own_is_refused(saved: Path) -> None:
    message = error_of(Untied().bfloat16().state_dict(), saved)
    assert (
        f"ValueError: {saved}: tensor 'head.weight' is not in the file, which records only that it shared memory with "
        "'embed.weight', of torch.float32: load it as torch.float32, not torch.bfloat16, or tie it to that tensor "
        "before you load"
    ) in message


def test_views_of_another_shape_or_dtype_are_never_guessed(tmp_path: Path) -> None:
    single(Viewed(), tmp_path)
    assert ts.safe_open(tmp_path / "model.safetensors").keys() == ["all"]
    ours = Viewed(5)
    assert ts.load_model(ours, tmp_path) == ([], [])
    for name in "part", "square":
        assert f"for {name}" in error_of({name: Viewed().state_dict()[name].clone()}, tmp_path)
    message = error_of({"whole": torch.zeros(8, dtype=torch.int32)}, tmp_path)
    assert "tensor 'whole' is not in the file, which records only that it shared memory with 'all'" in message
    # A tensor of the same dtype and shape is the same tensor.
    assert torch.equal(loaded({"all": torch.zeros(8)}, tmp_path)["all"], torch.arange(8.0))


def test_an_expanded_tensor_is_in_the_file(tmp_path: Path) -> None:
    """It has the shape of the tensor that its memory is part of, and other values."""
    model = nn.Module()
    model.register_buffer("b", torch.arange(4.0))
    model.register_buffer("a", model.b[:1].expand(4))
    model.register_buffer("c", model.b[1:2].expand(4))
    single(model, tmp_path)
    state = loaded({name: torch.full((4,), 9.0) for name in "abc"}, tmp_path)
    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        "a": [0, 0, 0, 0],
        "b": [0, 1, 2, 3],
        "c": [1, 1, 1, 1],
    }


def test_ties_are_found_but_not_listed(saved: Path) -> None:
    tensors = SafetensorsReader(saved).read_metadata().state_dict_metadata
    assert set(tensors) == set(dict(tensors)) == {"embed.weight", "head.bias"}
    for known in tensors, copy.deepcopy(tensors):
        assert "head.weight" in known
        assert known["head.weight"].size == known.get("head.weight").size == torch.Size([6, 4])
        assert "other" not in known
        assert known.get("other") is None
        with pytest.raises(KeyError, match="other"):
            known["other"]
    assert "Missing key" in error_of({"head.weight": torch.zeros(6, 4), "other": torch.zeros(1)}, saved)
    partial = loaded({"other": torch.zeros(1)}, saved, planner=DefaultLoadPlanner(allow_partial_load=True))
    assert partial["other"] == 0


def test_what_only_looks_like_a_tie(tmp_path: Path) -> None:
    ts.save_file({"pt": torch.ones(2), "w": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt", "w": "pt"})
    assert "Missing key in checkpoint state_dict: format" in error_of({"format": torch.zeros(2)}, tmp_path)
    assert loaded({"w": torch.zeros(2)}, tmp_path)["w"].tolist() == [1, 1]
    for number, kept in enumerate(["a", "b"]):  # files that contradict each other
        ts.save_file({kept: torch.full((2,), float(number))}, tmp_path / f"{number}.safetensors", {"tie": kept})
    (tmp_path / "model.safetensors").unlink()
    assert "Missing key in checkpoint state_dict: tie" in error_of({"tie": torch.zeros(2)}, tmp_path)


def loads_on_ranks(folder: Path) -> None:
    whole = expected(folder)
    mesh = init_device_mesh("cpu", (2,))
    for strategy in STRATEGIES:
        for make in Tied, Untied:
            model: Any = make()
            fully_shard(model, mesh=mesh)
            assert (model.head.weight is model.embed.weight) == (make is Tied)
            state = model.state_dict()
            dcp.load(state, storage_reader=SafetensorsReader(folder, strategy=strategy))
            for name, tensor in whole.items():
                assert torch.equal(state[name].full_tensor(), tensor), (strategy, make, name)
        columns = {"head.weight": distribute_tensor(torch.zeros(6, 4), mesh, [Shard(1)])}
        dcp.load(columns, storage_reader=SafetensorsReader(folder, strategy=strategy))
        assert torch.equal(columns["head.weight"].full_tensor(), whole["head.weight"])

        model = Tied(7)
        fully_shard(model, mesh=mesh)
        assert load_model(model, folder, strategy=strategy) == ([], [])
        assert torch.equal(model.head.weight.full_tensor(), whole["head.weight"])
        with pytest.raises(ts.SafetensorError, match=r'Missing key\(s\) in state_dict: "head.weight"'):
            load_model(Untied(), folder, strategy=strategy)  # as torch_safetensors.load_model
        assert load_model(Untied(), folder, False, strategy=strategy) == (["head.weight"], [])
    tensors = load_file(folder, mesh, lambda name: Shard(0))
    assert set(tensors) == {"embed.weight", "head.bias"}
    assert all(isinstance(tensor, DTensor) for tensor in tensors.values())
    dist.barrier()


@pytest.mark.parametrize("save", [single, several], ids=["one file", "several"])
def test_ranks_read_ties(tmp_path: Path, save: Callable[[nn.Module, Path], None]) -> None:
    save(Tied(), tmp_path)
    run_ranks(2, loads_on_ranks, tmp_path)


def loads_views(folder: Path) -> list[float]:
    model = Viewed(5)
    assert load_model(model, folder) == ([], [])
    return [float(tensor.sum()) for tensor in model.state_dict().values()]


def test_ranks_fill_views_as_one_process_does(tmp_path: Path) -> None:
    single(Viewed(), tmp_path)
    model = Viewed(5)
    assert ts.load_model(model, tmp_path) == ([], [])
    assert run_ranks(2, loads_views, tmp_path) == [[float(tensor.sum()) for tensor in model.state_dict().values()]] * 2
