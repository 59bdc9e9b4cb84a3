"""Checkpoints loaded into DTensors and parallelised models: each rank gets its part, and reads no more than that."""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from helpers import DTYPES, random_tensor
from ranks import outcomes_of_ranks, run_ranks
from shared_reads import choices, read_by, sizes_read, small_blocks
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import torch_safetensors as ts
from torch_safetensors import SafetensorError
from torch_safetensors.distributed import _load, _share, load_file, load_model
from torch_safetensors.distributed._boxes import LocalBox, whole_box
from torch_safetensors.distributed._cost import block_of
from torch_safetensors.distributed._share import Shared
from torch_safetensors.distributed._sharing import Sharing, cut_dims, whole_from

STRATEGIES = ["independent", "broadcast", "auto"]


def mesh_of(*shape: int) -> DeviceMesh:
    return init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp", "pp")[: len(shape)])


def ones(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(float(math.prod(shape))).reshape(shape)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Rows and columns that divide by the ranks, and some that do not; a scalar, and a tensor without elements."""
    tensors = {
        "even": ones((8, 12)),
        "uneven": ones((7, 5, 3)),
        "few": ones((2, 3)),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
    }
    name = tmp_path / "x.safetensors"
    ts.save_file(tensors, name)
    return name


# --- DTensors ------------------------------------------------------------------------------------


def loads_like_distribute_tensor(path: Path, shape: tuple[int, ...], placements: dict[str, Any]) -> None:
    mesh, whole = mesh_of(*shape), ts.load_file(path)
    for strategy in STRATEGIES:
        loaded = load_file(path, mesh, placements, strategy=strategy)
        assert list(loaded) == list(whole)
        for name, tensor in loaded.items():
            places = placements.get(name) or (Replicate(),) * len(shape)
            expected = distribute_tensor(whole[name], mesh, places if isinstance(places, tuple) else [places])
            assert tensor.placements == expected.placements
            assert tensor.shape == expected.shape
            assert tensor.stride() == expected.stride()
            assert torch.equal(tensor.to_local(), expected.to_local()), (name, strategy)


PLACEMENTS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((4,), {}),
    ((4,), {name: Shard(0) for name in ("even", "uneven", "few", "empty")}),
    ((4,), {"even": Shard(1), "uneven": Shard(2), "few": Shard(1), "empty": Shard(1)}),
    ((2, 2), {"even": (Shard(0), Shard(1)), "uneven": (Replicate(), Shard(1)), "few": (Shard(1), Replicate())}),
    ((2, 2), {"even": (Shard(0), Shard(0)), "uneven": (Shard(1), Shard(1)), "few": (Shard(0), Shard(0))}),
    ((2, 2), {name: (Replicate(), Shard(0)) for name in ("even", "uneven", "few", "empty")}),
    ((2, 2), {name: (Shard(0), Replicate()) for name in ("even", "uneven", "few", "empty")}),
]


@pytest.mark.parametrize(("shape", "placements"), PLACEMENTS)
def test_each_rank_gets_what_distribute_tensor_gives_it(path, shape, placements) -> None:
    run_ranks(4, loads_like_distribute_tensor, path, shape, placements)


def loads_with_rules(path: Path) -> None:
    mesh, whole = mesh_of(2), ts.load_file(path)
    by_rule = load_file(path, mesh, lambda name: Shard(-1) if name == "even" else None)
    assert by_rule["even"].placements == (Shard(1),)
    assert by_rule["uneven"].placements == (Replicate(),)
    assert torch.equal(by_rule["even"].full_tensor(), whole["even"])


def test_placements_by_a_function(path) -> None:
    run_ranks(2, loads_with_rules, path)


def loads_every_dtype(path: Path) -> None:
    mesh, whole = mesh_of(2), ts.load_file(path)
    for strategy in STRATEGIES:
        for placement in Shard(0), Replicate():
            loaded = load_file(path, mesh, lambda _, placement=placement: placement, strategy=strategy)
            for name, tensor in whole.items():
                mine = tensor if placement == Replicate() else tensor[dist.get_rank() * 2 :][:2]
                local = loaded[name].to_local()
                assert local.dtype == tensor.dtype
                assert local.view(torch.uint8).tolist() == mine.view(torch.uint8).tolist(), (name, strategy)


def test_every_dtype(tmp_path) -> None:
    rng = random.Random(0)
    ts.save_file({name: random_tensor(rng, dtype, (4, 6)) for name, dtype in DTYPES.items()}, tmp_path / "x")
    run_ranks(2, loads_every_dtype, tmp_path / "x")


def broadcasts_in_many_rounds(path: Path) -> None:
    with small_blocks():
        loads_like_distribute_tensor(path, (3,), {"wide": Shard(0), "tall": Shard(1)})


def test_many_rounds(tmp_path) -> None:
    tensors = {"wide": ones((2, 3000)), "deep": ones((2, 3, 2, 700)), "tall": ones((3000, 2)), "long": ones((5001,))}
    ts.save_file(tensors, tmp_path / "x")
    run_ranks(3, broadcasts_in_many_rounds, tmp_path / "x")


def test_pieces_make_up_the_tensors_and_each_is_one_range_within_its_block() -> None:
    shapes = [(), (5,), (3, 4), (2, 1, 7), (1, 1, 9), (2, 3, 4, 5), (0, 3), (400, 2)]
    tensors = [Shared(str(number), whole_box(shape), torch.int32, []) for number, shape in enumerate(shapes)]
    covered = [torch.zeros(shape, dtype=torch.int32) for shape in shapes]
    for limit in (320, 512, 9600):
        for block in _share._blocks(tensors, limit):
            end = 64
            for piece in block:
                assert piece.begin == end
                end += -(-math.prod(piece.box.shape) * 4 // 64) * 64
                shape = shapes[piece.tensor]
                part = tuple(slice(o, o + n) for o, n in zip(piece.box.offsets, piece.box.shape, strict=True))
                covered[piece.tensor][part] += 1
                flat = torch.arange(math.prod(shape)).reshape(shape)[part].flatten()
                assert torch.equal(flat, torch.arange(int(flat[0]), int(flat[0]) + flat.numel()))
            assert end <= limit
    assert all(bool((of_tensor == 3).all()) for of_tensor in covered)


def test_rounds_are_filled_evenly() -> None:
    """What takes one block and a bit more of each rank goes in two halves."""
    size = 4 * block_of(4) * 5 // 4
    one = Shared("a", LocalBox((0, 0), (size // 1024, 1024)), torch.uint8, [])
    blocks = list(_share._blocks([one], _share._block_size([one], 4)))
    sizes = [sum(math.prod(piece.box.shape) for piece in block) for block in blocks]
    assert len(sizes) == 8
    assert max(sizes) < block_of(4) * 0.7


# --- bytes ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def bytes_read() -> Iterator[list[int]]:
    """What this process reads by system calls."""

    def count() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before, result = count(), [0]
    yield result
    result[0] = count() - before


def reads_its_own_bytes(path: Path) -> tuple[int, int]:
    mesh = mesh_of(4)
    load_file(path, mesh)  # whatever is read once in a process
    with bytes_read() as rows:
        load_file(path, mesh, {"wide": Shard(0), "narrow": Shard(0)}, strategy="independent")
    with bytes_read() as columns:
        load_file(path, mesh, {"wide": Shard(1), "narrow": Shard(0)}, strategy="independent")
    return rows[0], columns[0]


def test_each_rank_reads_the_bytes_of_its_own_shards_alone(tmp_path) -> None:
    tensors = {"wide": torch.rand(64, 16384), "narrow": torch.rand(4096, 64)}
    ts.save_file(tensors, tmp_path / "x")
    own = sum(tensor.nbytes for tensor in tensors.values()) // 4
    for rows, columns in run_ranks(4, reads_its_own_bytes, tmp_path / "x"):
        assert own <= rows < 1.1 * own
        assert own <= columns < 1.1 * own


def counts_shared_bytes(path: Path) -> int:
    with small_blocks(), sizes_read() as sizes:
        load_file(path, mesh_of(4), {"own": Shard(0), "columns": Shard(1)}, strategy="broadcast")
    return sum(sizes)


def test_with_broadcast_the_group_reads_every_byte_once(tmp_path) -> None:
    tensors = {"own": torch.rand(64, 100), "shared": torch.rand(1000, 30), "columns": torch.rand(200, 60)}
    ts.save_file(tensors, tmp_path / "x")
    totals = run_ranks(4, counts_shared_bytes, tmp_path / "x")
    assert sum(totals) == sum(tensor.nbytes for tensor in tensors.values())
    assert max(totals) - min(totals) <= 4096


def counts_passed_on_bytes(path: Path, shape: tuple[int, ...], placements: dict[str, Any]) -> tuple[int, int]:
    received = 0
    all_gather = _share.all_gather

    def counted_gather(output: torch.Tensor, own: torch.Tensor, group: Any) -> None:
        nonlocal received
        received += output.nbytes
        all_gather(output, own, group=group)

    with small_blocks(), sizes_read() as sizes, mock.patch.object(_share, "all_gather", counted_gather):
        load_file(path, mesh_of(*shape), placements, strategy="broadcast")
    return sum(sizes), received


@pytest.mark.parametrize(
    ("shape", "placements", "received"),
    [
        ((2, 2), {"w": (Replicate(), Shard(0))}, 0.5),
        ((2, 2), {"w": (Shard(0), Replicate())}, 0.5),
        ((2, 2), {"w": (Replicate(), Replicate())}, 1),
        ((2, 2), {"w": (Shard(0), Shard(0))}, 0),
        ((4, 1), {"w": (Shard(0), Replicate())}, 0),
        ((1, 4), {"w": (Shard(0), Replicate())}, 1),
        ((2, 2), {"w": (Replicate(), Shard(1))}, 1),  # of columns rows are read whole
    ],
)
def test_what_is_read_together_goes_to_those_who_hold_it(tmp_path, shape, placements, received) -> None:
    tensor = torch.rand(1000, 64)
    ts.save_file({"w": tensor}, tmp_path / "x")
    counts = run_ranks(4, counts_passed_on_bytes, tmp_path / "x", shape, placements)
    assert sum(read for read, _ in counts) == tensor.nbytes
    for _, nbytes in counts:  # more by what tells of errors, and rounds that are not full
        assert received * tensor.nbytes <= nbytes <= 1.1 * received * tensor.nbytes


# --- models --------------------------------------------------------------------------------------


class Model(nn.Module):
    """Ties, buffers, and sizes that do not divide by the ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 16)
        self.up = nn.Linear(16, 36)
        self.down = nn.Linear(36, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 13, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("steps", torch.arange(3.0))


def fsdp(model: nn.Module) -> None:
    mesh = mesh_of(4)
    fully_shard(model.up, mesh=mesh)
    fully_shard(model, mesh=mesh)


def hsdp(model: nn.Module) -> None:
    fully_shard(model, mesh=mesh_of(2, 2))


PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def tensor_parallel(model: nn.Module) -> None:
    parallelize_module(model, mesh_of(2, 2)["tp"], PLAN)


def two_dimensional(model: nn.Module) -> None:
    mesh = mesh_of(2, 2)
    parallelize_module(model, mesh["tp"], PLAN)
    fully_shard(model.up, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def make(parallelise: Callable[[nn.Module], None], dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(int(os.environ.get("RANK", 0)) + 1)
    model = Model().to(dtype)
    parallelise(model)
    return model


def loads_models(path: Path, parallelise: Callable[[nn.Module], None]) -> None:
    expected = ts.load_file(path)
    expected["head.weight"] = expected.setdefault("embedding.weight", expected.get("head.weight"))
    for strategy in STRATEGIES:
        model = make(parallelise)
        versions = {name: tensor._version for name, tensor in model.named_parameters()}
        assert load_model(model, path, strategy=strategy) == ([], [])
        for name, tensor in model.state_dict().items():
            assert torch.equal(whole(tensor), expected[name]), (name, strategy)
        for name, tensor in model.named_parameters():
            if not isinstance(tensor, DTensor):
                assert tensor._version > versions[name]
    half = make(parallelise, torch.bfloat16)
    load_model(half, path)
    for name, tensor in half.state_dict().items():
        assert torch.equal(whole(tensor), expected[name].bfloat16()), name


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    ts.save_model(Model(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("parallelise", [fsdp, hsdp, tensor_parallel, two_dimensional])
def test_models(model_path, parallelise) -> None:
    run_ranks(4, loads_models, model_path, parallelise)


def refuses_models(path: Path, other: Path) -> None:
    model = make(fsdp)
    before = {name: whole(tensor).clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(SafetensorError, match=r"size mismatch for up\.weight") as refused:
        load_model(model, other)
    assert str(other) in str(refused.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(whole(tensor), before[name])
    missing, unexpected = load_model(make(fsdp), path.with_name("part.safetensors"), strict=False)
    assert missing == ["down.bias"]
    assert unexpected == ["new"]
    with pytest.raises(SafetensorError, match=r'Missing key.*"down\.bias"'):
        load_model(make(fsdp), path.with_name("part.safetensors"))
    with torch.device("meta"):
        on_meta = Model()
    fsdp(on_meta)
    with pytest.raises(ValueError, match=r"tensor '.*': is on the meta device .*to_empty"):
        load_model(on_meta, path)
    on_meta.to_empty(device="cpu")
    assert load_model(on_meta, path) == ([], [])
    assert torch.equal(whole(on_meta.up.weight), ts.load_tensor(path, "up.weight"))


def test_models_that_do_not_fit_are_unchanged(model_path, tmp_path) -> None:
    tensors = ts.load_file(model_path)
    part = {name: tensor for name, tensor in tensors.items() if name != "down.bias"} | {"new": torch.ones(1)}
    ts.save_file(part, tmp_path / "part.safetensors")
    ts.save_file(tensors | {"up.weight": torch.rand(37, 16)}, tmp_path / "other.safetensors")
    run_ranks(4, refuses_models, model_path, tmp_path / "other.safetensors")


class Hooked(nn.Linear):
    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)


def refuses_hooks(path: Path) -> None:
    model = Hooked(4, 4)
    fully_shard(model, mesh=mesh_of(2))
    with pytest.raises(ValueError, match="Hooked has a say in loading"):
        load_model(model, path)
    placements = {name: tensor.placements for name, tensor in model.state_dict().items()}
    model.load_state_dict(load_file(path, mesh_of(2), placements))
    assert torch.equal(whole(model.weight), ts.load_tensor(path, "weight"))


def test_modules_that_load_themselves_take_dtensors(tmp_path) -> None:
    ts.save_file({"weight": torch.rand(4, 4), "bias": torch.rand(4)}, tmp_path / "x")
    run_ranks(2, refuses_hooks, tmp_path / "x")


MODEL = Path(__file__).resolve().parents[2] / "build/model"
#: BERT's, by the ends of its modules' names.
TENSOR_PARALLEL = {
    "attention.self.query": ColwiseParallel(),
    "attention.self.key": ColwiseParallel(),
    "attention.self.value": ColwiseParallel(),
    "attention.output.dense": RowwiseParallel(),
    "intermediate.dense": ColwiseParallel(),
    "output.dense": RowwiseParallel(),
}


def loads_real(shape: tuple[int, ...]) -> list[float]:
    """A transformers model, under FSDP2 or, on a mesh of two dimensions, with tensor parallelism, too."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(MODEL)
    mesh, names = mesh_of(*shape), ts.load_file(MODEL)
    sums = []
    for strategy in STRATEGIES:
        torch.manual_seed(dist.get_rank())
        model = transformers.AutoModel.from_config(config).eval()
        if len(shape) > 1:
            for layer in model.encoder.layer:
                parallelize_module(layer, mesh["tp"], TENSOR_PARALLEL)
                attention = layer.attention.self
                attention.num_attention_heads //= shape[1]
                attention.all_head_size //= shape[1]
        fully_shard(model, mesh=mesh["dp"] if len(shape) > 1 else mesh)
        missing, unexpected = load_model(model, MODEL, strict=False, strategy=strategy)
        assert (missing, set(unexpected) <= {"embeddings.position_ids"}) == ([], True)
        for name, tensor in model.state_dict().items():
            assert torch.equal(whole(tensor), names[name]), (name, strategy)
        with torch.no_grad():
            sums.append(float(model(torch.arange(1000, 1016).view(1, -1)).last_hidden_state.double().sum()))
    return sums


@pytest.mark.model
@pytest.mark.skipif(not MODEL.is_dir(), reason="no real model: scripts/fetch_model.py")
@pytest.mark.parametrize("shape", [(2,), (4,), (2, 2)])
def test_a_real_model(shape) -> None:
    transformers = pytest.importorskip("transformers")
    by_rank = run_ranks(math.prod(shape), loads_real, shape, timeout=180)
    model = transformers.AutoModel.from_pretrained(MODEL).eval()
    with torch.no_grad():
        expected = float(model(torch.arange(1000, 1016).view(1, -1)).last_hidden_state.double().sum())
    for sums in by_rank:
        assert sums == pytest.approx([expected] * len(STRATEGIES), rel=1e-3)


# --- what goes wrong -----------------------------------------------------------------------------


def message_of(function: Callable[[], Any]) -> tuple[type[BaseException], str]:
    with pytest.raises((OSError, RuntimeError, ValueError)) as caught:
        function()
    return type(caught.value), str(caught.value)


def meets_errors(path: Path) -> list[tuple[type[BaseException], str]]:
    rank, mesh = dist.get_rank(), mesh_of(2)
    only_here = path if rank == 0 else path.with_name("none")
    model = path.with_name("model")
    return [
        message_of(lambda: load_file(only_here, mesh)),
        message_of(lambda: load_file(path.with_name("bad"), mesh)),
        message_of(lambda: load_file(path, mesh, {"even": Shard(rank)})),
        message_of(lambda: load_file(path, mesh, {"even": Partial()})),
        message_of(lambda: load_file(path, mesh, {"even": Shard(2)})),
        message_of(lambda: load_file(path, mesh, {"odd": Shard(0)})),
        message_of(lambda: load_file(path, mesh, strategy="best")),
        message_of(lambda: load_file(path, mesh, {"even": (Shard(0), Shard(1))})),
        message_of(lambda: load_file(path, mesh, strategy="auto" if rank == 0 else "broadcast")),
        message_of(lambda: load_model(nn.Linear(2, 2), model, strategy="best" if rank == 0 else "auto")),
    ]


def test_errors_are_the_same_on_all_ranks(path) -> None:
    path.with_name("bad").write_bytes(b"junk")
    ts.save_model(nn.Linear(2, 2), path.with_name("model"))
    first, second = run_ranks(2, meets_errors, path)
    assert first == second
    kinds = [kind for kind, _ in first]
    assert kinds == [FileNotFoundError, SafetensorError, *[ValueError] * 8]
    texts = [text for _, text in first]
    assert str(path.with_name("none")) in texts[0]
    assert "header too small: 4 bytes" in texts[1]
    assert "ranks disagree about what to load: rank 0 has 'even' as float32[8, 12]" in texts[2]
    assert "(S(1))" in texts[2]
    assert "tensor 'even': is P" in texts[3]
    assert "tensor 'even': S(2) of a tensor of shape [8, 12]" in texts[4]
    assert "placements of tensors that it does not hold: 'odd'" in texts[5]
    assert "strategy 'best' is not one of 'auto', 'independent', 'broadcast'" in texts[6]
    assert "tensor 'even': 2 placements for a mesh of 1 dimensions" in texts[7]
    assert "rank 0 has strategy 'auto', rank 1 has strategy 'broadcast'" in texts[8]
    assert "rank 0 has strategy 'best', rank 1 has strategy 'auto'" in texts[9]


def fails_to_read_on_one_rank(path: Path, strategy: str, die: bool) -> None:
    def read_boxes(*_: Any) -> None:
        if die:
            os._exit(3)
        raise OSError(5, "Input/output error", str(path))

    with small_blocks(256), read_by(read_boxes) if dist.get_rank() == 1 else contextlib.nullcontext():
        load_file(path, mesh_of(3), strategy=strategy)


@pytest.mark.parametrize("strategy", ["independent", "broadcast"])
def test_what_one_rank_cannot_read_fails_all(path, strategy) -> None:
    outcomes = outcomes_of_ranks(3, fails_to_read_on_one_rank, path, strategy, False)
    assert [str(outcome.error) for outcome in outcomes] == [f"[Errno 5] Input/output error: '{path}'"] * 3


@pytest.mark.parametrize("strategy", ["independent", "broadcast"])
def test_a_rank_that_dies_ends_the_others_wait(path, strategy) -> None:
    outcomes = outcomes_of_ranks(3, fails_to_read_on_one_rank, path, strategy, True, group_timeout=10)
    assert outcomes[1].exit_status == 3
    for outcome in outcomes[0], outcomes[2]:
        assert isinstance(outcome.error, RuntimeError)
        assert f"{path}: another rank was lost while" in str(outcome.error)


def logs_its_choice(path: Path) -> list[str]:
    records = choices()
    if dist.get_rank() == 0:  # what it is told counts
        os.environ["TORCH_SAFETENSORS_STORAGE_BANDWIDTH"] = "1e6"
    load_file(path, mesh_of(2))
    with mock.patch("socket.gethostname", return_value=f"host{dist.get_rank()}"):
        load_file(path, mesh_of(2))
        os.environ["TORCH_SAFETENSORS_NETWORK_BANDWIDTH"] = "1e3"
        load_file(path, mesh_of(2))
    return records


def test_auto_says_what_it_chose_and_why(tmp_path) -> None:
    ts.save_file({"w": torch.rand(1000, 1000)}, tmp_path / "x")
    first, second = run_ranks(2, logs_its_choice, tmp_path / "x")
    assert second == []
    assert len(first) == 3
    assert first[0].startswith(f"{tmp_path / 'x'}: independent: ")  # on one host
    assert first[1].startswith(f"{tmp_path / 'x'}: broadcast: ")
    assert first[2].startswith(f"{tmp_path / 'x'}: independent: ")
    assert "1 MB/s of storage" in first[1]


@pytest.mark.parametrize(
    ("shape", "placements", "expected"),
    [
        ((8, 1024), [Shard(0)], 2),
        ((8, 1024), [Shard(1)], 1),
        ((8, 1024), [Shard(-1)], 1),
        ((8, 1024), [Replicate()], 2),
        ((8, 1024), [Replicate(), Shard(1)], 1),
        ((1, 1024), [Shard(1)], 2),  # one row has one part
        ((8, 16384), [Shard(1)], 1),
        ((8, 16385), [Shard(1)], 2),  # far apart
        ((2, 4, 8), [Shard(1)], 1),
        ((), [Replicate()], 0),
    ],
)
def test_parts_of_short_rows_cost_whole_rows(shape, placements, expected) -> None:
    assert whole_from(shape, 4, cut_dims(len(shape), placements)) == expected


def test_what_short_rows_cost_is_counted() -> None:
    out = torch.empty(8, 256)
    sharing = Sharing(copies=1, whole_from=1, among=mock.sentinel.group)
    part = _load.Part("a", (8, 1024), out.dtype, LocalBox((0, 256), (8, 256)), out, sharing)
    assert (part.is_shared, part.nbytes, part.nbytes_read) == (True, 32768, 32768)
    assert part._replace(dtype=torch.half).nbytes_read == 16384  # of the file, whatever it is loaded as
    assert part._replace(box=LocalBox((0, 1024), (8, 0))).nbytes_read == 0
    part = part._replace(sharing=sharing._replace(whole_from=2))
    assert (part.is_shared, part.nbytes, part.nbytes_read) == (False, 32768, 8192)
