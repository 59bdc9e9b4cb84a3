"""Saves by several ranks: the bytes that one process would write, by nobody who ever held more than its own."""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers import DTYPES, listing, random_tensor
from ranks import outcomes_of_ranks, run_ranks
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils._python_dispatch import TorchDispatchMode

import torch_safetensors as ts
from torch_safetensors.distributed import _save, save_file, save_model

MODEL = Path(__file__).resolve().parents[2] / "build/model"
METADATA = {"step": "7"}


class Block(nn.Module):
    """Sizes that neither 2 nor 4 ranks divide."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(30)
        self.up = nn.Linear(30, 90)
        self.down = nn.Linear(90, 30, dtype=torch.bfloat16)
        self.gate = nn.Parameter(torch.tensor([3.5]))  # most ranks have nothing of it


class Transformer(nn.Module):
    """A language model in small, of about 150 KiB: a tie, several dtypes, buffers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(1001, 30)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.last = nn.BatchNorm1d(30)
        self.head = nn.Linear(30, 1001, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor([2.5]))
        self.again = self.scale  # a tie that most ranks do not see
        self.register_buffer("positions", torch.arange(12))
        self.register_buffer("nothing", torch.empty(0, 3))


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    for block in model.blocks:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


class Watch(TorchDispatchMode):
    """Adds up what travels between ranks, and finds the largest tensor that is made here. In bytes."""

    travelled = 0
    largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        if func.namespace in ("c10d", "_c10d_functional"):
            self.travelled += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
        for made in torch.utils._pytree.tree_leaves(result):
            if isinstance(made, torch.Tensor) and not isinstance(made, DTensor) and made.device.type != "meta":
                self.largest = max(self.largest, made.nbytes)
        return result


def save_in_every_way(model: nn.Module, folder: str) -> None:
    held = max(
        (tensor.to_local() if isinstance(tensor, DTensor) else tensor).nbytes for tensor in model.state_dict().values()
    )
    with Watch() as watch:
        save_model(model, Path(folder) / "plain.safetensors")
    assert watch.travelled < 64 << 10
    assert watch.largest <= max(held, 16 << 10)  # the other is what ranks tell each other
    save_model(model, Path(folder) / "texts.safetensors", METADATA, fsync=True)
    save_model(model, Path(folder) / "shards", METADATA, max_shard_size="15KB")
    save_model(model, Path(folder) / "one", max_shard_size="1GB")


def save_fsdp(folder: str) -> None:
    model = Transformer()
    shard(model, init_device_mesh("cpu", (dist.get_world_size(),)))
    save_in_every_way(model, folder)


def save_hybrid(folder: str) -> None:
    model = Transformer()
    shard(model, init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    save_in_every_way(model, folder)


def save_tensor_parallel(folder: str) -> None:
    model = Transformer()
    tensor_parallel(model, init_device_mesh("cpu", (dist.get_world_size(),)))
    save_in_every_way(model, folder)


def save_both(folder: str) -> None:
    model = Transformer()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    tensor_parallel(model, mesh["tensor"])
    shard(model, mesh["data"])
    save_in_every_way(model, folder)


def save_plain(folder: str) -> None:
    save_in_every_way(Transformer(), folder)


@pytest.mark.parametrize(
    ("world_size", "function"),
    [(2, save_fsdp), (4, save_fsdp), (4, save_hybrid), (2, save_tensor_parallel), (4, save_both), (2, save_plain)],
)
def test_models(tmp_path: Path, world_size: int, function: Callable[[str], None]) -> None:
    model = Transformer()
    (tmp_path / "theirs").mkdir()
    ts.save_model(model, tmp_path / "theirs/plain.safetensors")
    ts.save_model(model, tmp_path / "theirs/texts.safetensors", METADATA)
    ts.save_sharded(model, tmp_path / "theirs/shards", METADATA, "15KB")
    ts.save_sharded(model, tmp_path / "theirs/one", max_shard_size="1GB")
    (tmp_path / "ours").mkdir()
    run_ranks(world_size, function, str(tmp_path / "ours"))
    assert_same_files(tmp_path / "ours", tmp_path / "theirs")
    assert len(listing(tmp_path / "ours/shards")) > 3


def assert_same_files(ours: Path, theirs: Path) -> None:
    files = {path.relative_to(theirs): path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    assert {path.relative_to(ours) for path in ours.rglob("*") if path.is_file()} == set(files)
    for path, content in files.items():
        assert (ours / path).read_bytes() == content, path


def placed_tensors() -> dict[str, tuple[torch.Tensor, list[Placement]]]:
    """Whole tensors of every dtype and several shapes, and how they are spread over a mesh of two dimensions."""
    rng = random.Random(0)
    choices: list[Placement] = [Replicate(), Shard(0), Shard(1), Shard(2)]
    tensors = {}
    for (kind, dtype), shape in itertools.product(DTYPES.items(), [(5, 3, 6), (1, 4, 2), (8, 8, 1), (0, 3, 2)]):
        placements = [rng.choice(choices) for _ in range(2)]
        tensors[f"{kind} {shape}"] = random_tensor(rng, dtype, shape), placements
    tensors["scalar"] = torch.tensor(3.5), [Replicate(), Replicate()]
    tensors["large"] = torch.randn(5000, 1111, generator=torch.Generator().manual_seed(1)), [Replicate(), Replicate()]
    return tensors


def save_placed(path: str) -> None:
    mesh = init_device_mesh("cpu", (2, 2))
    tensors = {
        name: distribute_tensor(tensor, mesh, placements, src_data_rank=None)
        for name, (tensor, placements) in placed_tensors().items()
    }
    tensors["strided"] = DTensor.from_local(torch.arange(6.0).view(2, 3).t(), mesh, [Replicate(), Replicate()])
    tensors["conjugate"] = DTensor.from_local(torch.full((2,), 1 + 2j).conj(), mesh, [Shard(0), Replicate()])
    save_file(tensors, path, {})


def test_placements_dtypes_and_shapes(tmp_path: Path) -> None:
    run_ranks(4, save_placed, str(tmp_path / "ours"))
    tensors = {name: tensor for name, (tensor, _) in placed_tensors().items()}
    tensors["strided"] = torch.arange(6.0).view(2, 3).t().contiguous()
    tensors["conjugate"] = torch.full((4,), 1 - 2j)
    ts.save_file(tensors, tmp_path / "theirs", {})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def error_of(function: Callable[[], object]) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def disagree(folder: str) -> list[str]:
    rank = dist.get_rank()
    mesh = init_device_mesh("cpu", (2,))
    path = f"{folder}/x"
    one = {"w": torch.ones(2, 3)}
    spread = {"w": distribute_tensor(torch.ones(4, 4), mesh, [Shard(rank)])}
    shared = torch.ones(4)
    partial = DTensor.from_local(torch.ones(2), mesh, [Partial()])
    calls: list[Callable[[], object]] = [
        lambda: save_file(one if rank else {**one, "b": torch.ones(1)}, path),
        lambda: save_file({"w": torch.ones(2, 3 + rank)}, path),
        lambda: save_file({"w": torch.ones(2, dtype=[torch.int8, torch.uint8][rank])}, path),
        lambda: save_file(spread, path),
        lambda: save_file(one, f"{path}{rank}"),
        lambda: save_file(one, path, {"step": str(rank)}),
        lambda: save_file(one, path, fsync=bool(rank)),
        lambda: save_file(one, path, max_shard_size=rank + 1),
        lambda: save_file(one, path, max_shard_size="much"),
        lambda: save_file({"w": partial}, path),
        lambda: save_file({"a": shared, "b": shared} if rank else {"a": shared, "b": shared + 1}, path),
        lambda: save_file({"w": torch.ones(2, device="meta" if rank else "cpu")}, path),
        lambda: save_file(one, 7),  # type: ignore[arg-type]
        lambda: save_file({"w": 7} if rank else one, path),  # type: ignore[dict-item]
        lambda: save_file(one, f"{folder}/missing/x"),
    ]
    return [error_of(call) for call in calls]


def test_ranks_that_disagree_or_fail(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    first, second = run_ranks(2, disagree, str(tmp_path))
    assert first == second
    path = f"{tmp_path}/x"
    begin = f"ValueError: {path}: ranks disagree about what to save: rank 0 has"
    expected = [
        f"{begin} tensor 'b' torch.float32 [1], rank 1 has nothing else",
        f"{begin} tensor 'w' torch.float32 [2, 3], rank 1 has tensor 'w' torch.float32 [2, 4]",
        f"{begin} tensor 'w' torch.int8 [2], rank 1 has tensor 'w' torch.uint8 [2]",
        f"{begin} tensor 'w' torch.float32 [4, 4] [Shard(dim=0)] on a mesh of [2], "
        "rank 1 has tensor 'w' torch.float32 [4, 4] [Shard(dim=1)] on a mesh of [2]",
        f"{begin.replace(path, path + '0')} path '{path}0', rank 1 has path '{path}1'",
        f"{begin} metadata 'step': '0', rank 1 has metadata 'step': '1'",
        f"{begin} fsync False, rank 1 has fsync True",
        f"{begin} max_shard_size 1, rank 1 has max_shard_size 2",
        "ValueError: max_shard_size: 'much' is not a size like '5GB', '500MB' or '2GiB'",
        "ValueError: tensor 'w': is P(sum): a file holds the sums; redistribute it first",
        "RuntimeError: tensor 'b': Some tensors share memory: it overlaps tensor 'a'; use save_model, which resolves "
        "shared storage, or save a .clone() of one",
        "NotImplementedError: tensor 'w': is on the meta device and has no data; load or initialise it first",
        "TypeError: filename: expected str or os.PathLike, not int",
        "ValueError: Key 'w' is invalid, expected torch.Tensor but received <class 'int'>",
        f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}/missing/x'",
    ]
    assert first == expected
    assert listing(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def takes_dtensors_elsewhere(folder: str) -> list[str]:
    """Functions of one process are given what is spread over several."""
    mesh = init_device_mesh("cpu", (1,))
    spread = distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])
    model = nn.Linear(3, 4)
    ts.save_model(model, f"{folder}/x")
    fully_shard(model, mesh=mesh)

    def write() -> None:
        with ts.Writer(f"{folder}/z", {"weight": spread}) as writer:
            writer.write("weight", spread)

    saves: list[Callable[[], object]] = [
        lambda: ts.save({"weight": spread}),
        lambda: ts.save_file({"weight": spread}, f"{folder}/y"),
        lambda: ts.save_model(model, f"{folder}/y"),
        lambda: ts.save_sharded({"weight": spread}, f"{folder}/y"),
        lambda: ts.save_sharded(model, f"{folder}/y"),
        lambda: torch.ops.safetensors.save_file({"weight": spread}, f"{folder}/y"),
        lambda: ts.replace_tensor(f"{folder}/x", "weight", spread),
        write,
    ]
    loads: list[Callable[[], object]] = [
        lambda: ts.load_model(model, f"{folder}/x"),
        lambda: ts.load_model(model, f"{folder}/x", assign=True),
    ]
    return [error_of(call) for call in [*saves, *loads]]


def test_functions_of_one_process_name_those_for_dtensors(tmp_path: Path) -> None:
    (errors,) = run_ranks(1, takes_dtensors_elsewhere, str(tmp_path))
    saved = (
        "ValueError: tensor 'weight': has no memory of its own (a FakeTensor, a nested tensor, or a subclass that "
        "wraps others); convert it to plain tensors first, or save DTensors with "
        "torch_safetensors.distributed.save_file or save_model, which gather nothing"
    )
    loaded = (
        f"ValueError: {tmp_path}/x: tensor 'weight' of the model is a DTensor, of which this process holds a part; "
        "load it with torch_safetensors.distributed.load_model"
    )
    assert errors == [saved] * 8 + [loaded] * 2


def groups(folder: str) -> list[str]:
    """Half of the ranks save; and one half alone tries to save what all hold."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
    part = mesh["b"]
    tensor = distribute_tensor(torch.arange(12.0).view(4, 3), part, [Shard(0)], src_data_rank=None)
    half = part.get_group()
    save_file({"w": tensor}, f"{folder}/{dist.get_rank() // 2}", process_group=half)
    of_all = distribute_tensor(torch.ones(7, 3), mesh, [Shard(0), Shard(1)], src_data_rank=None)
    return [error_of(lambda: save_file({"w": of_all}, f"{folder}/all", process_group=half))]


def test_groups(tmp_path: Path) -> None:
    errors = run_ranks(4, groups, str(tmp_path))
    assert errors == 4 * [
        [
            f"ValueError: {tmp_path}/all: tensor 'w': what the 2 ranks hold does not make up its shape [7, 3]: "
            "[Shard(dim=0), Shard(dim=1)] on a mesh of [2, 2]; process_group must have all ranks of the mesh"
        ]
    ]
    ts.save_file({"w": torch.arange(12.0).view(4, 3)}, tmp_path / "whole")
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes() == (tmp_path / "whole").read_bytes()
    assert listing(tmp_path) == ["0", "1", "whole"]


def large(fill: float) -> dict[str, torch.Tensor]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    whole = {name: torch.full((64, 1000), fill) for name in ("a", "b", "c")}
    return {name: distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None) for name, tensor in whole.items()}


def save_with_limit(path: str, limited: int, max_shard_size: int | None) -> None:
    """The limited rank's files end before what it has to write."""
    tensors = large(2.0)
    if dist.get_rank() == limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    save_file(tensors, path, max_shard_size=max_shard_size)


def save_and_die(path: str, dying: int, max_shard_size: int | None) -> None:
    """The dying rank has written all, and not said so."""
    tensors = large(2.0)
    if dist.get_rank() == dying:
        write = _save._write

        def write_and_die(*arguments: Any) -> None:
            write(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        _save._write = write_and_die
    save_file(tensors, path, max_shard_size=max_shard_size)


def save_large(path: str, max_shard_size: int | None) -> None:
    save_file(large(3.0), path, max_shard_size=max_shard_size)


@pytest.fixture(params=[None, 260_000], ids=["file", "shards"])
def max_shard_size(request: pytest.FixtureRequest) -> int | None:
    return request.param


@pytest.fixture
def old(tmp_path: Path, max_shard_size: int | None) -> Path:
    """An older checkpoint under the name."""
    path = tmp_path / "old"
    old = {name: torch.full((64, 1000), 1.0) for name in ("a", "b", "c")}
    if max_shard_size is None:
        ts.save_file(old, path)
    else:
        ts.save_sharded(old, path, max_shard_size=max_shard_size)
    return path


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in ([path] if path.is_file() else path.iterdir())}


@pytest.mark.parametrize("limited", [0, 1])
def test_a_file_that_cannot_be_written(old: Path, max_shard_size: int | None, limited: int) -> None:
    before = content(old)
    outcomes = outcomes_of_ranks(2, save_with_limit, str(old), limited, max_shard_size)
    for outcome in outcomes:
        assert isinstance(outcome.error, OSError), outcome.traceback
        assert outcome.error.errno == errno.EFBIG
        assert outcome.error.filename.startswith(str(old))
    assert content(old) == before
    assert listing(old.parent) == ["old"]


@pytest.mark.parametrize("dying", [0, 1])
def test_a_rank_that_dies(old: Path, max_shard_size: int | None, dying: int) -> None:
    before = content(old)
    outcomes = outcomes_of_ranks(3, save_and_die, str(old), dying, max_shard_size, group_timeout=10)
    assert outcomes[dying].exit_status == -signal.SIGKILL
    for rank in {0, 1, 2} - {dying}:
        assert isinstance(outcomes[rank].error, RuntimeError), outcomes[rank]
        assert str(outcomes[rank].error).startswith(f"{old}: another rank was lost while writing: ")
    folder = old if old.is_dir() else old.parent
    left = {name for name in listing(folder) if name.startswith(".st-")}
    assert bool(left) == (dying == 0)
    assert {name: data for name, data in content(old).items() if name not in left} == before

    run_ranks(3, save_large, str(old), max_shard_size)
    assert not any(name.startswith(".st-") for name in listing(folder))
    loaded = ts.load_file(old)
    assert all(torch.equal(tensor, torch.full((64, 1000), 3.0)) for tensor in loaded.values())
    assert len(loaded) == 3


class Named(nn.Module):
    """Has parameters of these names, dots in them and all."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            *path, last = name.split(".")
            owner: nn.Module = self
            for part in path:
                if part not in dict(owner.named_children()):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_parameter(last, nn.Parameter(tensor, requires_grad=False))


def save_bert(folder: str) -> None:
    model = Named(ts.load_file(MODEL / "model.safetensors"))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    for layer in model.get_submodule("encoder.layer").children():
        for name, dim in ("intermediate.dense", 0), ("output.dense", 1):
            dense = layer.get_submodule(name)
            spread = distribute_tensor(dense.weight, mesh["tensor"], [Shard(dim)], src_data_rank=None)
            dense.register_parameter("weight", nn.Parameter(spread, requires_grad=False))
        fully_shard(layer, mesh=mesh["data"])
    fully_shard(model, mesh=mesh["data"])
    save_model(model, f"{folder}/ours", {"format": "pt"})
    save_model(model, f"{folder}/shards", max_shard_size="20MB")


@pytest.mark.model
@pytest.mark.skipif(not MODEL.is_dir(), reason="no real model: scripts/fetch_model.py")
def test_a_real_model(tmp_path: Path) -> None:
    run_ranks(4, save_bert, str(tmp_path))
    original = ts.load_file(MODEL / "model.safetensors")
    ts.save_file(original, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    loaded = ts.load_file(tmp_path / "shards")
    assert sorted(loaded) == sorted(original)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in original.items())
    assert len(listing(tmp_path / "shards")) > 4
