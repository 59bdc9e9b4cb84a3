"""What each rank runs: the ways to load its part of a checkpoint. Torch is imported in the ranks alone."""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: How tensors are spread; scales and biases, which have one dimension, are replicated with "columns".
LAYOUTS = {
    "replicated": "every rank needs every byte",
    "rows": "Shard(0), as fully_shard: each rank needs its own",
    "columns": "Shard(1) of matrices, as half of tensor parallelism",
}
FILE = "model.safetensors"


Shapes = dict[str, tuple[int, ...]]


def tensor_of(shapes: Shapes, name: str) -> Any:
    """What the checkpoint holds under a name."""
    import torch

    shape = shapes[name]
    return torch.arange(math.prod(shape), dtype=torch.float32).view(shape) + list(shapes).index(name)


def placement(layout: str, shape: tuple[int, ...]) -> Any:
    from torch.distributed.tensor import Replicate, Shard

    if layout == "replicated" or (layout == "columns" and len(shape) < 2):
        return Replicate()
    return Shard(0 if layout == "rows" else 1)


def sample(peer: str, layout: str, folder: Path, shapes: Shapes, rank: int) -> float:
    """Seconds until this rank had its parts, which are right, or else it raises."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    path = folder / f"rank{rank}" / FILE
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    placements = {name: placement(layout, shape) for name, shape in shapes.items()}
    dist.barrier()
    begin = time.monotonic()
    loaded = PEERS[peer](path, mesh, placements, shapes)
    taken = time.monotonic() - begin
    check(loaded, mesh, placements, shapes)
    dist.barrier()
    return taken


def check(loaded: dict[str, Any], mesh: Any, placements: dict[str, Any], shapes: Shapes) -> None:
    import torch

    if loaded.keys() != shapes.keys():
        raise ValueError(f"{len(loaded)} tensors, not {len(shapes)}")
    for name, tensor in loaded.items():
        if tensor.placements != (placements[name],):
            raise ValueError(f"{name} is placed {tensor.placements}")
        if not torch.equal(tensor.to_local(), _part(tensor_of(shapes, name), placements[name], mesh)):
            raise ValueError(f"{name} is wrong")


def _part(tensor: Any, place: Any, mesh: Any) -> Any:
    import torch

    return tensor if place.is_replicate() else torch.chunk(tensor, mesh.size(), place.dim)[mesh.get_local_rank()]


_Load = Callable[[Path, Any, dict[str, Any], Shapes], dict[str, Any]]


def _ours(strategy: str) -> _Load:
    def load(path: Path, mesh: Any, placements: dict[str, Any], _shapes: Shapes) -> dict[str, Any]:
        from torch_safetensors.distributed import load_file

        return dict(load_file(path, mesh, placements, strategy=strategy))  # type: ignore[arg-type]

    return load


def _everything(package: str) -> _Load:
    """Each rank loads the checkpoint and keeps its part."""

    def load(path: Path, mesh: Any, placements: dict[str, Any], _shapes: Shapes) -> dict[str, Any]:
        from torch.distributed.tensor import DTensor

        parts = {}
        for name, tensor in importlib.import_module(package).load_file(path).items():
            part = _part(tensor, placements[name], mesh).clone()
            parts[name] = DTensor.from_local(part, mesh, [placements[name]], run_check=False)
        return parts

    return load


def _checkpointing(module: str, reader: str) -> _Load:
    def load_in_place(path: Path, mesh: Any, placements: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict_loader import load
        from torch.distributed.tensor import empty

        state: dict[str, Any] = {
            name: empty(shape, device_mesh=mesh, placements=[placements[name]]) for name, shape in shapes.items()
        }
        make_reader = getattr(importlib.import_module(module), reader)
        load(state, storage_reader=make_reader(str(path.parent)))
        return state

    return load_in_place


PEERS: dict[str, _Load] = {
    "independent": _ours("independent"),
    "broadcast": _ours("broadcast"),
    "auto": _ours("auto"),
    "SafetensorsReader": _checkpointing("torch_safetensors.distributed", "SafetensorsReader"),
    "HuggingFaceStorageReader": _checkpointing("torch.distributed.checkpoint", "HuggingFaceStorageReader"),
    "everything": _everything("torch_safetensors"),
    "everything, reference": _everything("safetensors.torch"),
}
