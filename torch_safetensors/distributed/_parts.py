"""What a rank holds of the tensors that are saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.distributed._functional_collectives import AsyncCollectiveTensor

from ._boxes import LocalBox, as_dtensor, local_box, whole_box

__all__ = ["Part", "part_of", "same_tensor", "type_of"]


@dataclass(frozen=True)
class Part:
    """A rank's own memory of a tensor, and which part of the tensor that is; nothing where it has none."""

    tensor: torch.Tensor
    box: LocalBox | None
    #: How the ranks hold it, for comparison between them.
    layout: str

    def cut(self, box: LocalBox) -> torch.Tensor:
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
        ValueError: placements that give no part to each rank, or a local tensor of another shape than they say.
    """
    spread = as_dtensor(tensor)
    if spread is None:
        return Part(tensor.detach(), whole_box(tensor.shape), "")
    mesh, placements = spread.device_mesh, spread.placements
    # The same on ranks that hold the same over different parts of a mesh.
    layout = f"{list(placements)} on a mesh of {list(mesh.shape)}"
    with torch.no_grad():
        local = spread.to_local()
    if isinstance(local, AsyncCollectiveTensor):
        local = local.wait()
    if mesh.get_coordinate() is None:
        return Part(local, None, layout)
    box = local_box(name, tensor.shape, mesh, placements)
    if 0 not in box.shape and tuple(local.shape) != box.shape:
        raise ValueError(
            f"tensor {name!r}: this rank holds shape {list(local.shape)}, but {layout} of shape "
            f"{list(tensor.shape)} means {list(box.shape)}"
        )
    return Part(local, box, layout)


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
