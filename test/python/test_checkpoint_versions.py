"""A checkpoint that another process replaces again and again is loaded as one save, in every way to load."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from conftest import TORTURE
from ranks import run_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

import torch_safetensors as ts
from torch_safetensors import distributed

NAMES = ["a", "b", "c", "d", "e", "f"]
SIZE = 500
#: For each way.
SECONDS = 4.0 if TORTURE else 0.5
ops = torch.ops.safetensors


def version(number: int) -> dict[str, Tensor]:
    """Tensors that tell which save they are of."""
    return {name: torch.full((SIZE,), float(number)) for name in NAMES}


def save_for_ever(folder: Path) -> None:
    torch.set_num_threads(1)
    for number in itertools.count(1):
        # One file, several, several others under other names, and so on.
        size = ("1GB", 2 * SIZE * 4, SIZE * 4, SIZE * 4)[number % 4]
        ts.save_sharded(version(number), folder, max_shard_size=size)


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[Path]:
    """The folder, while another process saves to it back to back."""
    ts.save_sharded(version(0), folder, max_shard_size=SIZE * 4)
    saver = multiprocessing.get_context("spawn").Process(target=save_for_ever, args=(folder,), daemon=True)
    saver.start()
    try:
        number = 0.0
        while number < 4:  # it runs
            number = number_of(ts.load_file(folder))
        yield folder
        assert saver.is_alive()
    finally:
        saver.kill()
        saver.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with saving(tmp_path_factory.mktemp("checkpoint")) as folder:
        yield folder


def number_of(tensors: dict[str, Tensor]) -> float:
    assert sorted(tensors) == NAMES
    values = torch.cat([tensors[name].flatten() for name in NAMES])
    low, high = values.aminmax()
    assert low == high, "two versions are mixed"
    return float(low)


class Model(torch.nn.Module):
    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        for name in NAMES:
            self.register_buffer(name, torch.empty(SIZE, device=device))


class WithHook(Model):
    """Loaded through its own ``load_state_dict``."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_post_hook(lambda *_: None)


def through_model(path: str, model: torch.nn.Module, **options: Any) -> dict[str, Tensor]:
    ts.load_model(model, path, **options)
    return model.state_dict()


def one_by_one(path: str) -> dict[str, Tensor]:
    with ts.safe_open(path) as file:
        return {name: file.get_tensor(name) for name in file}


def slices(path: str) -> dict[str, Tensor]:
    with ts.safe_open(path, backend="pread") as file:
        return {name: file.get_slice(name)[:] for name in file}


def prefetched(path: str) -> dict[str, Tensor]:
    with ts.safe_open(path) as file, file.prefetch() as loader:
        return dict(loader)


def loaded_into(path: str) -> dict[str, Tensor]:
    outs = [torch.empty(SIZE) for _ in NAMES]
    torch.classes.safetensors.SafeOpen(path).load_into(NAMES, outs)
    return dict(zip(NAMES, outs, strict=True))


@torch.jit.script
def scripted(path: str) -> dict[str, Tensor]:
    return torch.ops.safetensors.load_file(path)


@torch.jit.script
def scripted_handle(path: str) -> dict[str, Tensor]:
    file = torch.classes.safetensors.SafeOpen(path)
    names = file.keys()
    tensors = file.get_tensors(names)
    result = torch.jit.annotate(dict[str, Tensor], {})
    for i in range(len(names)):
        result[names[i]] = tensors[i]
    return result


def by_dcp(path: str) -> dict[str, Tensor]:
    state = {name: torch.empty(SIZE) for name in NAMES}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # which is meant
        dcp.load(state, storage_reader=distributed.SafetensorsReader(path), no_dist=True)
    return state


WAYS: dict[str, Callable[[str], dict[str, Tensor]]] = {
    "load_file": ts.load_file,
    "load_file, mapped": lambda path: ts.load_file(path, backend="mmap"),
    "load_file, read": lambda path: ts.load_file(path, backend="pread"),
    "names": lambda path: ts.load_file(path, names=["[a-c]", "d", "[ef]"]),
    "rename": lambda path: {
        name.lower(): tensor for name, tensor in ts.load_file(path, rename=str.upper, dtype=torch.float64).items()
    },
    "operator": ops.load_file,
    "load_tensors": lambda path: dict(zip(NAMES, ops.load_tensors(path, NAMES), strict=True)),
    "safe_open": lambda path: ts.safe_open(path).get_tensors(),
    "get_tensor": one_by_one,
    "get_slice": slices,
    "prefetch": prefetched,
    "load_into": loaded_into,
    "iter_tensors": lambda path: dict(ts.iter_tensors(path)),
    "load_model": lambda path: through_model(path, Model()),
    "load_model, assign": lambda path: through_model(path, Model("meta"), assign=True),
    "load_model, through the module": lambda path: through_model(path, WithHook()),
    "script": scripted,
    "scripted handle": scripted_handle,
    "torch.distributed.checkpoint": by_dcp,
}


@pytest.mark.parametrize("way", WAYS)
def test_one_version_is_loaded(folder: Path, way: str) -> None:
    versions = set()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(versions) < 3:
        versions.add(number_of(WAYS[way](str(folder))))


def test_one_tensor_is_always_there(folder: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for name in NAMES:
            assert ts.load_tensor(folder, name).aminmax()[0] >= 0
            out = torch.empty(SIZE)
            ops.load_into(str(folder), name, out)
            assert out.aminmax()[0] == out.aminmax()[1]
        assert sorted(ops.keys(str(folder))) == NAMES
        assert ops.metadata(str(folder)) == {"format": "pt"}
        ops.prefetch(str(folder), NAMES)


def test_compiled_code_loads_one_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(folder)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def load(x: Tensor) -> list[Tensor]:
        # To two devices, one of which is none.
        tensors = ts.load_file(path, {"a": "cpu", "": "cpu:0"})
        return [tensors[name] + x for name in NAMES]

    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        number_of(dict(zip(NAMES, load(torch.zeros(())), strict=True)))


def load_on_rank(folder: Path, seconds: float) -> list[float]:
    """The versions that were loaded; every rank does the same number of loads."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    numbers = []
    begin = time.monotonic()
    while True:
        go_on = torch.tensor([time.monotonic() - begin < seconds])
        dist.broadcast(go_on, 0)
        if not go_on:
            return numbers
        for strategy in "independent", "broadcast":
            loaded = distributed.load_file(folder, mesh, strategy=strategy)
            numbers.append(number_of({name: tensor.to_local() for name, tensor in loaded.items()}))
            model = Model()
            distributed.load_model(model, folder, strategy=strategy)
            numbers.append(number_of(model.state_dict()))
            state = {name: torch.empty(SIZE) for name in NAMES}
            dcp.load(state, storage_reader=distributed.SafetensorsReader(folder, strategy=strategy))
            numbers.append(number_of(state))


def test_all_ranks_load_one_version(folder: Path) -> None:
    one, other = run_ranks(2, load_on_rank, folder, 4 * SECONDS, timeout=120)
    assert one == other
    assert len(set(one)) > 2


def test_a_handle_stays_with_the_version_that_it_opened(tmp_path: Path) -> None:
    ts.save_sharded(version(1), tmp_path, max_shard_size=SIZE * 4)
    handles = [ts.safe_open(tmp_path, backend=backend) for backend in ("mmap", "pread")]
    ts.save_sharded(version(2), tmp_path, max_shard_size=SIZE * 4)
    for file in handles:
        for tensors in file.get_tensors(), {name: file.get_tensor(name) for name in file}, dict(file.prefetch()):
            assert number_of(tensors) == 1
    assert number_of(ts.load_file(tmp_path)) == 2
