"""What a rank holds of the tensors that are saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from ._deal import Box

__all__ = ["Part", "part_of", "same_tensor", "type_of"]


@dataclass(frozen=True)
class Part:
    """A rank's own memory of a tensor, and which part of the tensor that is; nothing where it has none."""

    tensor: torch.Tensor
    box: Box | None
    #: How the ranks hold it, for comparison between them.
    layout: str

    def cut(self, box: Box) -> torch.Tensor:
        """The memory of a box that lies in its own."""
        assert self.box is not None
        begins = [begin - own for begin, own in zip(box.offsets, self.box.offsets, strict=True)]
        return self.tensor[tuple(slice(begin, begin + size) for begin, size in zip(begins, box.shape, strict=True))]


def type_of(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on ``meta`` of the dtype and shape of the whole."""
    return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device="meta")


def part_of(name: str, tensor: torch.Tensor) -> Part:
    """The part of a tensor that this rank holds: of a plain one all of it, as every other rank.

    Raises:
        ValueError: a sum that is not complete, or a local tensor of another shape than its placements say.
    """
    if not isinstance(tensor, DTensor):
        return Part(tensor.detach(), Box((0,) * tensor.ndim, tuple(tensor.shape)), "")
    placements = tensor.placements
    if any(placement.is_partial() for placement in placements):
        raise ValueError(
            f"tensor {name!r}: its ranks hold terms of a sum, {_text(tensor)}; call "
            ".redistribute(placements=[Replicate(), ...]) first, which adds them up"
        )
    with torch.no_grad():
        local = tensor.to_local()
    if isinstance(local, AsyncCollectiveTensor):
        local = local.wait()
    box = None
    if tensor.device_mesh.get_coordinate() is not None:
        shape, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, placements)
        box = Box(tuple(offsets), tuple(shape))
        if math.prod(shape) and tuple(local.shape) != box.shape:
            raise ValueError(
                f"tensor {name!r}: this rank holds shape {list(local.shape)}, but {_text(tensor)} of shape "
                f"{list(tensor.shape)} means {list(box.shape)}"
            )
    return Part(local, box, _text(tensor))


def _text(tensor: DTensor) -> str:
    """The same on ranks that hold the same over different parts of a mesh."""
    return f"{list(tensor.placements)} on a mesh of {list(tensor.device_mesh.shape)}"


def same_tensor(
    ties: Mapping[str, str], types: Mapping[str, torch.Tensor], parts: Mapping[str, Part]
) -> dict[str, str]:
    """The ties between names of one tensor: memory of different tensors may be shared, too."""
    return {
        name: kept
        for name, kept in ties.items()
        if not (parts[name].layout or parts[kept].layout)
        or (parts[name].layout == parts[kept].layout and types[name].shape == types[kept].shape)
    }
