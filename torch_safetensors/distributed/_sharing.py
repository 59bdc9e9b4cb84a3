"""Which ranks need the same bytes of a file, and pass them on among each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, Shard
from torch.distributed.tensor.placement_types import _StridedShard

__all__ = ["Sharing", "cut_dims", "sharing_of", "whole_from"]

#: Bytes that file systems of networks read at least, and ahead, about.
_AT_A_TIME = 64 << 10


class Sharing(NamedTuple):
    """The ranks of a group that need the same bytes of a tensor."""

    #: How many hold the same part.
    copies: int
    #: See :func:`whole_from`.
    whole_from: int
    #: Those that read together what they need of it: the same part, or the whole group, parts of the whole tensor.
    among: dist.ProcessGroup


def sharing_of(
    group: dist.ProcessGroup, shape: Sequence[int], itemsize: int, mesh: DeviceMesh, placements: Sequence[Placement]
) -> Sharing:
    """For a DTensor on ranks of a group, with the shape and the size of elements that are stored."""
    shards = [isinstance(placement, (Shard, _StridedShard)) for placement in placements]
    copies = group.size() // math.prod(size for size, is_shard in zip(mesh.shape, shards, strict=True) if is_shard)
    rows = whole_from(shape, itemsize, cut_dims(len(shape), placements))
    among = group
    if 1 < copies < group.size() and rows == len(shape):
        # Where all that hold the same part are one dimension of the mesh, torch has a group of them.
        same = [dim for dim, is_shard in enumerate(shards) if not is_shard and mesh.size(dim) == copies]
        among = mesh.get_group(same[0]) if same else group
    return Sharing(copies, rows, among)


def cut_dims(ndim: int, placements: Sequence[Placement]) -> set[int]:
    """The dimensions of a tensor of which ranks hold parts."""
    return {placement.dim % max(ndim, 1) for placement in placements if isinstance(placement, (Shard, _StridedShard))}


def whole_from(shape: Sequence[int], itemsize: int, cut: Iterable[int]) -> int:
    """The dimension from which on a rank reads rows whole, also what other ranks hold of them.

    Where the parts of a row are closer to each other than what storages read at a time, reading one brings the others.
    ``len(shape)`` where that is not so.

    Args:
        shape: of the stored tensor.
        itemsize: bytes of an element.
        cut: the dimensions of which the rank holds a part.
    """
    for dim in sorted(cut):
        if math.prod(shape[:dim]) > 1 and itemsize * math.prod(shape[dim:]) <= _AT_A_TIME:
            return dim
    return len(shape)
