"""Readers and writers for torch.distributed.checkpoint, against torch's own for the same files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from helpers import DTYPES, listing, random_tensor
from ranks import outcomes_of_ranks, run_ranks
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import torch_safetensors as ts
from torch_safetensors.distributed import SafetensorsReader, SafetensorsWriter, _checkpoint_reader
from torch_safetensors.distributed._boxes import local_part
from torch_safetensors.distributed._new_files import NewFiles

MODEL = Path(__file__).resolve().parents[2] / "build/model"
INDEX = "model.safetensors.index.json"
LAYOUTS = ["fsdp", "tp", "2d", "plain"]


class Net(nn.Module):
    """Sizes that neither 2 nor 4 ranks divide, and one that leaves ranks without anything."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(10, 22)
        self.down = nn.Linear(22, 10)
        self.gate = nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(inputs)) + self.gate


def whole_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.rand(tensor.shape, generator=generator) for name, tensor in Net().state_dict().items()}
    return {**state, "steps": torch.tensor(seed + 7)}


def net(layout: str) -> Net:
    """Spread over all ranks, with values that no file has."""
    model = Net()
    size = dist.get_world_size()
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    if layout == "fsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    elif layout == "tp":
        parallelize_module(model, init_device_mesh("cpu", (size,)), plan)
    elif layout == "2d":
        mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("dp", "tp"))
        parallelize_module(model, mesh["tp"], plan)
        fully_shard(model, mesh=mesh["dp"])
    return model


def state_of(layout: str, seed: int) -> dict[str, Any]:
    """The same tensors in any layout."""
    state = net(layout).state_dict()
    for name, tensor in whole_state(seed).items():
        box, own = local_part(name, state[name])
        own.copy_(tensor[tuple(slice(at, at + size) for at, size in zip(*box, strict=True))])
    return state


def assert_loads(reader: Any, layout: str, seed: int = 0) -> None:
    state = net(layout).state_dict()
    dcp.load(state, storage_reader=reader)
    for name, expected in whole_state(seed).items():
        tensor = state[name].full_tensor() if isinstance(state[name], DTensor) else state[name]
        assert torch.equal(tensor, expected), (layout, name)


def consolidate(source: str, target: str, indices: dict[str, int] | None = None) -> None:
    from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files

    Path(target).mkdir(exist_ok=True)
    consolidate_safetensors_files(source, target, indices or dict.fromkeys(whole_state(), 1))


def error_of(action: Callable[[], object]) -> str:
    """The message, which has to be within an exception on every rank."""
    with pytest.raises((CheckpointException, ValueError, RuntimeError)) as caught:
        action()
    return str(caught.value)


def save_in_all_forms(folder: str) -> None:
    for seed, layout in enumerate(LAYOUTS):
        state = state_of(layout, seed)
        dcp.save(state, storage_writer=SafetensorsWriter(f"{folder}/whole-{layout}"))
        dcp.save(state, storage_writer=SafetensorsWriter(f"{folder}/sharded-{layout}", save_distributed=True))
        dcp.save(state, storage_writer=SafetensorsWriter(f"{folder}/split-{layout}", max_shard_size=1000))
        theirs = HuggingFaceStorageWriter(f"{folder}/theirs-{layout}", save_distributed=True)
        dcp.save(state, storage_writer=theirs)


def load_all_forms(folder: str) -> None:
    for seed, saved in enumerate(LAYOUTS):
        for layout in LAYOUTS:
            for form in ("whole", "sharded", "split", "theirs"):
                for strategy in ("independent", "broadcast"):
                    assert_loads(SafetensorsReader(f"{folder}/{form}-{saved}", strategy=strategy), layout, seed)
        for form in ("whole", "sharded", "split"):
            assert_loads(HuggingFaceStorageReader(f"{folder}/{form}-{saved}"), "fsdp", seed)


@pytest.mark.parametrize(("savers", "loaders"), [(4, 2), (2, 4)])
def test_every_layout_becomes_every_other(tmp_path, savers: int, loaders: int) -> None:
    run_ranks(savers, save_in_all_forms, str(tmp_path))
    for seed, layout in enumerate(LAYOUTS):
        expected = whole_state(seed)
        whole = tmp_path / f"whole-{layout}"
        assert listing(whole) == ["model.safetensors"]
        assert (whole / "model.safetensors").read_bytes() == ts.save(dict(sorted(expected.items())), {"format": "pt"})
        split = ts.load_file(tmp_path / f"split-{layout}")
        assert all(torch.equal(split[name], tensor) for name, tensor in expected.items())
        index = json.loads((tmp_path / f"split-{layout}" / INDEX).read_text())
        assert index["metadata"] == {"format": "pt", "total_size": sum(t.nbytes for t in expected.values())}
        ours, theirs = tmp_path / f"sharded-{layout}", tmp_path / f"theirs-{layout}"
        assert listing(ours) == [f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors" for rank in range(savers)]
        assert listing(ours) == listing(theirs)
        for shard in listing(ours):
            one, other = ts.safe_open(ours / shard), ts.safe_open(theirs / shard)
            assert one.keys() == other.keys()
            ours_only = {"torch_safetensors.save_id": one.metadata()["torch_safetensors.save_id"]}
            theirs_and_more = {**other.metadata(), **ours_only, "DCP_SHARDING_INFO": ""}
            assert {**one.metadata(), "DCP_SHARDING_INFO": ""} == theirs_and_more
            texts = [file.metadata()["DCP_SHARDING_INFO"] for file in (one, other)]
            assert json.loads(texts[0]) == json.loads(texts[1])
            assert all(torch.equal(one.get_tensor(name), other.get_tensor(name)) for name in one)
    run_ranks(loaders, load_all_forms, str(tmp_path))


def save_floats(folder: str) -> None:
    state = state_of("fsdp", 0)
    floats = {name: tensor for name, tensor in state.items() if name != "steps"}
    dcp.save(floats, storage_writer=SafetensorsWriter(f"{folder}/shards", save_distributed=True))
    indices = {name: 1 + (name > "gate") for name in state}
    dcp.save(state, storage_writer=SafetensorsWriter(f"{folder}/by index", fqn_to_index_mapping=indices))
    numbered = SafetensorsWriter(f"{folder}/numbered", fqn_to_index_mapping=indices, save_distributed=True)
    dcp.save(floats, storage_writer=numbered)
    assert_loads(SafetensorsReader(f"{folder}/by index"), "tp")


def test_consolidated_and_numbered(tmp_path) -> None:
    run_ranks(2, save_floats, str(tmp_path))
    indices = {name: 1 + (name > "gate") for name in whole_state() if name != "steps"}
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert listing(tmp_path / "by index") == [*shards, INDEX]
    index = json.loads((tmp_path / "by index" / INDEX).read_text())
    assert {name: index["weight_map"][name] for name in indices} == {n: shards[i - 1] for n, i in indices.items()}
    for source in ("shards", "numbered"):
        consolidate(str(tmp_path / source), str(tmp_path / f"whole {source}"), indices)
        loaded = ts.load_file(tmp_path / f"whole {source}")
        assert loaded.keys() == indices.keys()
        assert all(torch.equal(loaded[name], whole_state()[name]) for name in indices)
        read = {name: torch.zeros_like(whole_state()[name]) for name in indices}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.load(read, storage_reader=SafetensorsReader(tmp_path / f"whole {source}"), no_dist=True)
        assert all(torch.equal(read[name], whole_state()[name]) for name in indices)


def save_async(folder: str) -> None:
    state = state_of("fsdp", 1)
    writers = [SafetensorsWriter(f"{folder}/whole"), SafetensorsWriter(f"{folder}/shards", save_distributed=True)]
    for writer in writers:
        saved = dcp.async_save(state, storage_writer=writer)
        with torch.no_grad():
            for tensor in state.values():
                tensor.zero_()  # what was there at the call is saved
        saved.result(60)
        state = state_of("fsdp", 1)
        assert_loads(SafetensorsReader(writer.path), "tp", 1)


def test_async_save_by_a_thread(tmp_path) -> None:
    run_ranks(2, save_async, str(tmp_path))


def save_by_a_process(folder: str) -> None:
    os.environ["MASTER_ADDR"] = "127.0.0.1"  # torch makes a group of the processes at this address
    for form in ({}, {"save_distributed": True}):
        writer = SafetensorsWriter(f"{folder}/new", **form)
        dcp.async_save(
            state_of("fsdp", 1), storage_writer=writer, async_checkpointer_type=AsyncCheckpointerType.PROCESS
        ).result(100)
        assert_loads(SafetensorsReader(writer.path), "tp", 1)


def test_async_save_by_a_process(tmp_path) -> None:
    run_ranks(2, save_by_a_process, str(tmp_path), timeout=150)
    assert listing(tmp_path / "new") == [shard(1), shard(2)]


def save_and_train(folder: str) -> None:
    """An optimizer's tensors; its Python values are refused, whole."""
    model = net("fsdp")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(3, 10)).sum().backward()
    optimizer.step()
    state = get_optimizer_state_dict(model, optimizer)
    folder = f"{folder}/optimizer"
    message = error_of(lambda: dcp.save({"optim": state}, storage_writer=SafetensorsWriter(folder)))
    assert re.search(r"'optim\.param_groups.* and 7 more: not tensors, and a safetensors file holds", message)
    assert "FileSystemWriter" in message
    assert not Path(folder).exists()
    dcp.save({"optim": state["state"]}, storage_writer=SafetensorsWriter(folder))
    zeros = {"optim": {name: {k: torch.zeros_like(v) for k, v in of.items()} for name, of in state["state"].items()}}
    dcp.load(zeros, storage_reader=SafetensorsReader(folder))
    for name, of in state["state"].items():
        for key, tensor in of.items():
            assert torch.equal(_local(zeros["optim"][name][key]), _local(tensor))


def _local(tensor: Any) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def replace_and_fail(folder: str) -> None:
    """Saves over each other in all forms; and one that fails on a single rank, which changes nothing."""
    forms: list[dict[str, Any]] = [
        {},
        {"save_distributed": True},
        {"max_shard_size": 1000},
        {},
        {"max_shard_size": 500},
    ]
    forms += [{"save_distributed": True}, {"max_shard_size": 500}, {"save_distributed": True, "fsync": True}]
    for seed, form in enumerate(forms):
        before = sorted((path.name, path.read_bytes()) for path in Path(folder).glob("*"))
        dist.barrier()
        for kept in forms[:3]:
            writer = SafetensorsWriter(folder, **kept)
            planner = _Failing()
            message = error_of(lambda w=writer, p=planner: dcp.save(state_of("tp", 99), storage_writer=w, planner=p))
            assert "no more of this" in message
        dist.barrier()
        del writer
        if dist.get_rank() == 0:
            after = {path.name: path.read_bytes() for path in Path(folder).glob("*") if path.name[0] != "."}
            assert after == dict(before)
        dist.barrier()
        dcp.save(state_of("fsdp", seed), storage_writer=SafetensorsWriter(folder, **form))
        assert not list(Path(folder).glob(".*"))
        assert_loads(SafetensorsReader(folder), "tp", seed)
        assert_loads(HuggingFaceStorageReader(folder), "fsdp", seed)


class _Failing(DefaultSavePlanner):
    def resolve_data(self, write_item: Any) -> Any:
        if dist.get_rank() == 1 and write_item.index.fqn.startswith("up"):
            raise ValueError("no more of this")
        return super().resolve_data(write_item)


def refuse(folder: str) -> None:
    state = state_of("fsdp", 0)
    options: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"use_collectives": False}, {}, "use_collectives=False: ranks have to agree"),
        (
            {},
            {"fqn_to_index_mapping": {"gate": 1}},
            "tensor 'down.bias': not in fqn_to_index_mapping, which has 1 names",
        ),
    ]
    for of_save, of_writer, expected in options:
        writer = SafetensorsWriter(f"{folder}/new", **of_writer)
        assert expected in error_of(lambda o=of_save, w=writer: dcp.save(state, storage_writer=w, **o))
    complex_state = {"c": torch.zeros(2, dtype=torch.complex128)}
    for distributed in (False, True):
        writer = SafetensorsWriter(f"{folder}/new", save_distributed=distributed)
        assert "'c'" in error_of(lambda w=writer: dcp.save(complex_state, storage_writer=w))
    assert listing(Path(folder) / "new") == []
    with mock.patch.object(_checkpoint_reader.log, "warning") as warning:
        missing = error_of(lambda: dcp.load({"x": torch.zeros(1)}, storage_reader=SafetensorsReader(f"{folder}/none")))
    assert "No such file or directory" in str(warning.call_args.args[1])
    assert ("metadata is None" if torch.__version__ < "2.13" else "No such file or directory") in missing


def many(folder: str) -> None:
    """What shares a spawn."""
    save_and_train(folder)
    replace_and_fail(f"{folder}/replaced")
    refuse(folder)


def test_failures_leave_the_old_checkpoint(tmp_path) -> None:
    (tmp_path / "replaced").mkdir()
    run_ranks(2, many, str(tmp_path), timeout=120)


def save_and_die_in_between(folder: str, other: bool) -> None:
    """The coordinator has put the first shard in place of the old one."""
    commit = NewFiles.commit

    def commit_and_die(files: NewFiles) -> Any:
        commit(files)
        os.kill(os.getpid(), signal.SIGKILL)

    writer = (SafetensorsWriter if other else HuggingFaceStorageWriter)(folder, save_distributed=True)
    with (
        contextlib.suppress(RuntimeError, CheckpointException),
        mock.patch.object(NewFiles, "commit", commit_and_die),
    ):
        dcp.save(state_of("fsdp", 1), storage_writer=writer)
        dcp.save(state_of("fsdp", 2), storage_writer=SafetensorsWriter(folder, save_distributed=True))


@pytest.mark.parametrize("other", [True, False], ids=["ours", "theirs"])
def test_shards_of_two_saves_are_refused(tmp_path, other: bool) -> None:
    if other:
        run_ranks(2, save_and_load, str(tmp_path), {"save_distributed": True})
    outcomes = outcomes_of_ranks(2, save_and_die_in_between, str(tmp_path), other, group_timeout=10)
    assert outcomes[0].exit_status == -signal.SIGKILL
    with pytest.raises(ts.SafetensorError, match=r"shard-00002-.*: not of the same save as .*shard-00001-"):
        SafetensorsReader(tmp_path).read_metadata()
    run_ranks(2, save_and_load, str(tmp_path), {"save_distributed": True})


class _Dying(DefaultSavePlanner):
    """Its rank is gone when it has written the most of what it holds."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def resolve_data(self, write_item: Any) -> Any:
        if dist.get_rank() == self._rank and write_item.index.fqn.startswith("up.weight"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().resolve_data(write_item)


def save_and_die(folder: str, dying: int, form: dict[str, Any]) -> str:
    try:
        dcp.save(state_of("fsdp", 1), storage_writer=SafetensorsWriter(folder, **form), planner=_Dying(dying))
    except (RuntimeError, CheckpointException) as error:
        return str(error)
    raise AssertionError("the save went through")


def save_and_load(folder: str, form: dict[str, Any]) -> None:
    dcp.save(state_of("fsdp", 2), storage_writer=SafetensorsWriter(folder, **form))
    assert_loads(SafetensorsReader(folder), "tp", 2)


@pytest.mark.parametrize("dying", [0, 1])
@pytest.mark.parametrize("form", [{}, {"save_distributed": True}], ids=["whole", "shards"])
def test_a_rank_that_dies_leaves_the_old_checkpoint(tmp_path, dying: int, form: dict[str, Any]) -> None:
    ts.save_sharded(whole_state(), tmp_path, max_shard_size=500)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outcomes = outcomes_of_ranks(3, save_and_die, str(tmp_path), dying, form, group_timeout=10)
    assert outcomes[dying].exit_status == -signal.SIGKILL
    for rank in {0, 1, 2} - {dying}:
        assert re.search("connection|timed out", outcomes[rank].value or "", re.IGNORECASE), outcomes[rank]
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: data for name, data in after.items() if not name.startswith(".st-")} == before
    # Only the coordinator makes files, and cannot remove them where it is killed; the next save does.
    assert (after == before) == (dying == 1)

    run_ranks(3, save_and_load, str(tmp_path), form)
    assert not [name for name in listing(tmp_path) if name.startswith(".st-")]


@pytest.fixture
def alone() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is")
        yield


def write_shard(path: Path, tensors: dict[str, tuple[list[int], torch.Tensor]]) -> None:
    info = json.dumps({name: {"saved_offsets": offsets} for name, (offsets, _) in tensors.items()})
    ts.save_file(
        {name: tensor.contiguous() for name, (_, tensor) in tensors.items()}, path, {"DCP_SHARDING_INFO": info}
    )


def shard(rank: int) -> str:
    return f"shard-{rank:05d}-model-00001-of-00001.safetensors"


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (
            ([2], torch.ones(2)),
            r"shard-00002-.*: tensor 'w': its elements at \[2\] of shape \[2\] overlap the elements "
            r"at \[0\] of shape \[3\] in .*shard-00001-",
        ),
        (
            ([4], torch.ones(2)),
            r"shard-00001-.*: tensor 'w': this file and 1 more hold 5 of the 6 elements of its shape "
            r"\[6\]",
        ),
        (
            ([3], torch.ones(2).double()),
            r"shard-00002-.*: tensor 'w': torch.float64 of 1 dimensions, but torch.float32",
        ),
        (([3, 0], torch.ones(2)), r"shard-00002-.*: tensor 'w': .* not the 1 offsets of its part"),
        (([-3], torch.ones(2)), r"shard-00002-.*: tensor 'w': .* not the 1 offsets of its part"),
    ],
)
def test_parts_that_do_not_fit(tmp_path, second: Any, expected: str) -> None:
    write_shard(tmp_path / shard(1), {"w": ([0], torch.ones(3))})
    write_shard(tmp_path / shard(2), {"w": second})
    with pytest.raises(ts.SafetensorError, match=expected):
        SafetensorsReader(tmp_path).read_metadata()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_sharding_info_that_is_none(tmp_path, text: str) -> None:
    ts.save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors", {"DCP_SHARDING_INFO": text})
    with pytest.raises(ts.SafetensorError, match=r"a.safetensors: metadata 'DCP_SHARDING_INFO': not "):
        SafetensorsReader(tmp_path).read_metadata()


def test_parts_of_no_grid(tmp_path, alone) -> None:
    whole = torch.arange(12).view(3, 4)
    write_shard(tmp_path / shard(1), {"w": ([0, 0], whole[:1]), "none": ([0, 0], torch.empty(0, 2))})
    write_shard(tmp_path / shard(2), {"w": ([1, 0], whole[1:, :1]), "none": ([0, 0], torch.empty(0, 2))})
    write_shard(tmp_path / shard(3), {"w": ([1, 1], whole[1:, 1:])})
    state = {"w": torch.zeros_like(whole), "none": torch.empty(0, 2)}
    dcp.load(state, storage_reader=SafetensorsReader(tmp_path))
    assert torch.equal(state["w"], whole)


def test_which_files_of_a_directory(tmp_path, alone) -> None:
    def loaded() -> float:
        state = {"w": torch.zeros(2)}
        dcp.load(state, storage_reader=SafetensorsReader(tmp_path))
        return float(state["w"].sum())

    def add(name: str, value: float) -> None:
        ts.save_file({"w": torch.full((2,), value)}, tmp_path / name)

    add("other.safetensors", 1)
    assert loaded() == 2
    add(shard(1), 2)
    assert loaded() == 4
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": "other.safetensors"}}))
    assert loaded() == 2
    add("model.safetensors", 3)
    assert loaded() == 6


def test_a_file_or_an_index_alone(tmp_path, alone) -> None:
    tensors = {f"t{i}": torch.full((3,), float(i)) for i in range(4)}
    ts.save_sharded(tensors, tmp_path, max_shard_size=24)
    for path, names in [
        (tmp_path / "model-00001-of-00002.safetensors", ["t0", "t1"]),
        (tmp_path / INDEX, list(tensors)),
    ]:
        state = {name: torch.zeros(3) for name in names}
        dcp.load(state, checkpoint_id=path, storage_reader=SafetensorsReader("elsewhere"))
        assert all(torch.equal(state[name], tensors[name]) for name in names)


@pytest.mark.parametrize("distributed", [False, True])
def test_all_dtypes(tmp_path, alone, distributed: bool) -> None:
    rng = random.Random(0)
    tensors = {str(dtype): random_tensor(rng, dtype, (4, 6)) for dtype in DTYPES.values()}
    dcp.save(dict(tensors), storage_writer=SafetensorsWriter(tmp_path, save_distributed=distributed))
    state = {name: torch.zeros_like(tensor.view(torch.uint8)).view(tensor.dtype) for name, tensor in tensors.items()}
    dcp.load(state, storage_reader=SafetensorsReader(tmp_path))
    for name, tensor in tensors.items():
        assert torch.equal(state[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_planners_are_asked_and_told(tmp_path, alone) -> None:
    """Every tensor is what the planner gives, of any dtype, and comes back to it when it is read."""
    ts.save_file({"w": torch.arange(12.0).view(3, 4), "v": torch.ones(2)}, tmp_path / "model.safetensors")
    given: dict[str, torch.Tensor] = {}

    class Planner(DefaultLoadPlanner):
        def resolve_tensor(self, read_item: Any) -> torch.Tensor:
            given[read_item.dest_index.fqn] = torch.zeros(tuple(reversed(read_item.lengths)), dtype=torch.float64).t()
            return given[read_item.dest_index.fqn]

        def commit_tensor(self, read_item: Any, tensor: torch.Tensor) -> None:
            assert tensor.data_ptr() == given[read_item.dest_index.fqn].data_ptr()
            self.lookup_tensor(read_item.dest_index).copy_(tensor + 1)

    state = {"w": torch.zeros(3, 4), "v": torch.zeros(2)}
    dcp.load(state, storage_reader=SafetensorsReader(tmp_path), planner=Planner())
    assert torch.equal(state["w"], torch.arange(12.0).view(3, 4) + 1)
    assert torch.equal(state["v"], torch.ones(2) + 1)


def test_bytes_are_refused(tmp_path, alone) -> None:
    with pytest.raises(CheckpointException, match="'a', 'b': not tensors"):
        dcp.save({"w": torch.ones(1), "b": 1, "a": io.BytesIO()}, storage_writer=SafetensorsWriter(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    reader = SafetensorsReader(tmp_path)
    index = dcp.metadata.MetadataIndex("step")
    size = torch.Size([1])
    item = dcp.planner.ReadItem(dcp.planner.LoadItemType.BYTE_IO, index, size, index, size, size)
    with pytest.raises(ValueError, match="'step': wanted as bytes, but safetensors files hold tensors only"):
        reader.prepare_local_plan(dcp.planner.LoadPlan([item]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_shard_size": "1GB", "save_distributed": True}, "max_shard_size: not with"),
        ({"max_shard_size": "much"}, "max_shard_size: 'much' is not a size"),
        ({"fqn_to_index_mapping": {"w": 0}}, "fqn_to_index_mapping: 'w': 0 is not a number from 1"),
    ],
)
def test_arguments(tmp_path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        SafetensorsWriter(tmp_path, **options)


def test_plans_that_are_cached(tmp_path, alone) -> None:
    writer = SafetensorsWriter(tmp_path)
    with pytest.raises(ValueError, match="enable_plan_caching"):
        writer.prepare_global_plan([dcp.planner.SavePlan([], usable=False)])


def load_real(folder: str, strategy: Any) -> float:
    import transformers

    torch.manual_seed(dist.get_rank())
    model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder))
    whole = ts.load_file(f"{folder}/model.safetensors")
    fully_shard(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name in whole}
    dcp.load(state, storage_reader=SafetensorsReader(folder, strategy=strategy))
    for name, tensor in state.items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        assert torch.equal(full, whole[name]), name
    model.eval()
    with torch.no_grad():
        return float(model(torch.arange(1000, 1016).view(1, -1)).last_hidden_state.double().sum())


@pytest.mark.model
@pytest.mark.skipif(not MODEL.is_dir(), reason="no real model: scripts/fetch_model.py")
@pytest.mark.parametrize(("ranks", "strategy"), [(2, "auto"), (4, "broadcast")])
def test_real_model(ranks: int, strategy: str) -> None:
    transformers = pytest.importorskip("transformers")
    sums = run_ranks(ranks, load_real, str(MODEL), strategy, timeout=120)
    model = transformers.AutoModel.from_pretrained(MODEL).eval()
    with torch.no_grad():
        expected = float(model(torch.arange(1000, 1016).view(1, -1)).last_hidden_state.double().sum())
    assert sums == pytest.approx([expected] * ranks)
