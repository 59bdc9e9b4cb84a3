"""Which part of a tensor a rank holds, and parts read from a checkpoint into local tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import _StridedShard

from .._arguments import PathLike, operator_filename
from .._errors import translated
from .._warnings import warn

__all__ = [
    "LocalBox",
    "Read",
    "as_dtensor",
    "local_box",
    "local_part",
    "open_checkpoint",
    "read_boxes",
    "whole_box",
]


class LocalBox(NamedTuple):
    """A part of a tensor: where it begins, and how far it goes, in each dimension."""

    offsets: tuple[int, ...]
    shape: tuple[int, ...]


def whole_box(shape: Sequence[int]) -> LocalBox:
    """All of a tensor."""
    return LocalBox((0,) * len(shape), tuple(shape))


class Read(NamedTuple):
    """A part of a stored tensor, as large as ``out``, to be read into it."""

    name: str
    offsets: tuple[int, ...]
    out: torch.Tensor


def local_box(name: str, shape: Sequence[int], mesh: DeviceMesh, placements: Sequence[Placement]) -> LocalBox:
    """What this rank holds of a tensor. An empty shard has a size of 0.

    Raises:
        ValueError: placements that no file can fill: partial sums, a dimension that the tensor does not have, or rows
            that are not one range (a strided shard whose stride no other shard undoes).
    """
    if len(placements) != mesh.ndim:
        raise ValueError(f"tensor {name!r}: {len(placements)} placements for a mesh of {mesh.ndim} dimensions")
    for mesh_dim, placement in enumerate(placements):
        if isinstance(placement, Partial):
            raise ValueError(f"tensor {name!r}: is {placement}: a file holds the sums; redistribute it first")
        if isinstance(placement, (Shard, _StridedShard)):
            if not -len(shape) <= placement.dim < len(shape):
                raise ValueError(f"tensor {name!r}: {placement} of a tensor of shape {list(shape)}")
            if isinstance(placement, _StridedShard) and not _is_undone(placement, mesh_dim, mesh, placements):
                raise ValueError(
                    f"tensor {name!r}: {list(placements)} gives a rank rows that are not one range; redistribute it "
                    "first"
                )
    normal = [_with_positive_dim(placement, len(shape)) for placement in placements]
    local_shape, offsets = compute_local_shape_and_global_offset(tuple(shape), mesh, normal)
    empty = 0 in local_shape
    return LocalBox((0,) * len(shape) if empty else tuple(offsets), tuple(local_shape))


def _with_positive_dim(placement: Placement, ndim: int) -> Placement:
    if type(placement) is Shard and placement.dim < 0:
        return Shard(placement.dim + ndim)
    return placement


def _is_undone(shard: _StridedShard, mesh_dim: int, mesh: DeviceMesh, placements: Sequence[Placement]) -> bool:
    """Whether the shards that come after, as FSDP2 leaves those of tensor parallelism, make its rows one range."""
    later = zip(mesh.shape[mesh_dim + 1 :], placements[mesh_dim + 1 :], strict=True)
    sizes = [size for size, other in later if isinstance(other, (Shard, _StridedShard)) and other.dim == shard.dim]
    return math.prod(sizes) == shard.split_factor


def as_dtensor(tensor: torch.Tensor) -> Any | None:
    """The same tensor if it is a DTensor, whose methods type checkers do not know."""
    return tensor if isinstance(tensor, DTensor) else None


def local_part(name: str, tensor: torch.Tensor) -> tuple[LocalBox, torch.Tensor]:
    """What this rank holds of a tensor, and where; of a plain one all. Shares memory and version with it."""
    spread = as_dtensor(tensor)
    if spread is None:
        return whole_box(tensor.shape), tensor.detach()
    box = local_box(name, tensor.shape, spread.device_mesh, spread.placements)
    return box, spread.to_local().detach().view(box.shape)


def open_checkpoint(path: PathLike, backend: str = "auto") -> Any:
    """A ``torch.classes.safetensors.SafeOpen`` of a checkpoint. Raises what :func:`safe_open` raises."""
    with translated(path):
        return torch.classes.safetensors.SafeOpen(operator_filename(path), torch.device("cpu"), backend)


def read_boxes(handle: Any, reads: Iterable[Read]) -> None:
    """Reads parts from an open checkpoint, together; straight into what has the file's dtype, or as ``copy_`` would.

    Warns of finite values that a conversion makes infinite.

    Args:
        handle: a ``torch.classes.safetensors.SafeOpen``.
        reads: which, and where to.
    """
    names: list[str] = []
    offsets: list[list[int]] = []
    outs: list[torch.Tensor] = []
    converted: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    for name, begin, out in reads:
        dtype = handle._get_meta(name).dtype
        into = out if out.dtype == dtype else torch.empty(out.shape, dtype=dtype, device="cpu")
        if into is not out:
            converted.append((name, out, into))
        names.append(name)
        offsets.append(list(begin))
        outs.append(into)
    overflows = torch.classes.safetensors._Overflows()
    with torch.no_grad():
        handle.load_into(names, outs, offsets)
        for name, out, into in converted:
            overflows.add(name, into, out.dtype)
            out.copy_(into)
    if converted:
        warn(overflows.warning(handle._filename(converted[0][0])))
