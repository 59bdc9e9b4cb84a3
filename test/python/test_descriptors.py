"""Checkpoints in more files than a process may have open."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch
import torch.distributed.checkpoint as dcp
from helpers import descriptors, run_in_process
from torch import Tensor

import torch_safetensors as ts

SHARDS = 1100
LIMIT = 128
#: What is open between calls: the index, and a quarter of the limit.
MOST = LIMIT // 4 + 1
NAMES = [f"t{number:04}" for number in range(SHARDS)]


def tensors() -> dict[str, Tensor]:
    return {name: torch.tensor([float(number)]) for number, name in enumerate(NAMES)}


def check(loaded: dict[str, Tensor]) -> None:
    assert sorted(loaded) == NAMES
    assert torch.cat([loaded[name].flatten() for name in NAMES]).tolist() == list(range(SHARDS))


class Model(torch.nn.Module):
    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        for name in NAMES:
            self.register_buffer(name, torch.empty(1, device=device))


def through_model(folder: str, **options: bool) -> dict[str, Tensor]:
    model = Model("meta" if options.get("assign") else "cpu")
    ts.load_model(model, folder, **options)
    return model.state_dict()


def through_dcp(folder: str) -> dict[str, Tensor]:
    from torch_safetensors.distributed import SafetensorsReader

    state = {name: torch.empty(1) for name in NAMES}
    dcp.load(state, storage_reader=SafetensorsReader(folder), no_dist=True)
    return state


def from_url(folder: str, prefix: str = "memory:/") -> dict[str, Tensor]:
    file_system = fsspec.filesystem("memory")
    file_system.put(folder, "/checkpoint", recursive=True)
    return ts.load_file(f"{prefix}/checkpoint/model.safetensors.index.json")


WAYS: dict[str, Callable[[str], dict[str, Tensor]]] = {
    "mmap": lambda folder: ts.load_file(folder, backend="mmap"),
    "pread": lambda folder: ts.load_file(folder, backend="pread"),
    "verify": lambda folder: ts.load_file(folder, verify=True),
    "names": lambda folder: ts.load_file(folder, names="*"),
    "dtype": lambda folder: ts.load_file(folder, dtype=torch.float64, backend="pread"),
    "operator": torch.ops.safetensors.load_file,
    "load_tensors": lambda folder: dict(zip(NAMES, torch.ops.safetensors.load_tensors(folder, NAMES), strict=True)),
    "load_model": through_model,
    "load_model, verified": lambda folder: through_model(folder, verify=True),
    "load_model, assign": lambda folder: through_model(folder, assign=True),
    "iter_tensors": lambda folder: dict(ts.iter_tensors(folder)),
    "prefetch": lambda folder: dict(ts.safe_open(folder).prefetch()),
    "torch.distributed.checkpoint": through_dcp,
    "memory": from_url,
    "cached": lambda folder: from_url(folder, "simplecache::memory:/"),
}


def load_with_few_descriptors(folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    for way, load in WAYS.items():
        before = descriptors()
        loaded = load(folder)
        check(loaded)
        assert len(descriptors()) <= len(before) + 1, way  # fsspec's loop may be new
    meta = ts.load_file(folder, "meta")
    assert len(meta) == SHARDS


def open_with_few_descriptors(folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    before = len(descriptors())
    for backend in "mmap", "pread":
        with ts.safe_open(folder, backend=backend) as file:
            assert len(descriptors()) <= before + MOST
            for _ in range(2):
                check(file.get_tensors())
                check({name: file.get_tensor(name) for name in NAMES})
                check({name: file.get_slice(name)[:] for name in NAMES})
            assert len(descriptors()) <= before + MOST
    assert len(descriptors()) == before


def save_with_few_descriptors(folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    for number in 1, 2:
        ts.save_sharded({name: tensor * number for name, tensor in tensors().items()}, folder, max_shard_size=4)
    assert ts.load_tensor(folder, NAMES[3]).item() == 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    ts.save_sharded(tensors(), folder, max_shard_size=4, checksum=True)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == SHARDS
    return folder


def test_loads(folder: Path) -> None:
    run_in_process(load_with_few_descriptors, str(folder))


def test_handles(folder: Path) -> None:
    run_in_process(open_with_few_descriptors, str(folder))


def test_saves(tmp_path: Path) -> None:
    run_in_process(save_with_few_descriptors, str(tmp_path))
