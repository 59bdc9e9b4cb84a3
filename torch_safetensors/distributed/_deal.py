"""Which rank writes which part of a tensor, where several hold the same."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

import torch

from ._boxes import LocalBox

__all__ = ["Work", "deal", "holders_of", "is_tiled"]

#: What several ranks hold is cut into pieces of about so many bytes, to be dealt out evenly.
_PIECE = 16 << 20

#: What one rank writes: for each part the number of its tensor, and where it lies there.
Work: TypeAlias = "list[tuple[int, LocalBox]]"


def is_tiled(shape: Sequence[int], boxes: set[LocalBox]) -> bool:
    """True if the boxes, none of them empty, make up a tensor of that shape, without gaps and overlaps.

    Only those do that a grid makes, which shards of a mesh always are.
    """
    if 0 in shape:
        return not boxes
    count = 1
    for dim, size in enumerate(shape):
        stretches = sorted({(box.offsets[dim], box.shape[dim]) for box in boxes})
        end = 0
        for offset, length in stretches:
            if offset != end:
                return False
            end += length
        if end != size:
            return False
        count *= len(stretches)
    return len(boxes) == count


def deal(types: Sequence[torch.Tensor], holders: Sequence[dict[LocalBox, list[int]]], world_size: int) -> list[Work]:
    """What each rank writes, so that every box is written once, and all ranks write about as many bytes.

    The same on every rank, as what goes in is.

    Args:
        types: of the tensors, on any device; only their dtypes count.
        holders: for each tensor its boxes, with the ranks that hold them.
        world_size: number of ranks.
    """
    work: list[Work] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    shared: list[tuple[int, int, LocalBox, list[int]]] = []
    for number, (tensor, boxes) in enumerate(zip(types, holders, strict=True)):
        for box, ranks in boxes.items():
            for piece in [box] if len(ranks) == 1 else _cut(box, tensor.element_size()):
                nbytes = math.prod(piece.shape) * tensor.element_size()
                if len(ranks) > 1:
                    shared.append((-nbytes, number, piece, ranks))
                else:
                    work[ranks[0]].append((number, piece))
                    loads[ranks[0]] += nbytes
    for negative, number, piece, ranks in sorted(shared):
        rank = min(ranks, key=lambda rank: (loads[rank], rank))
        work[rank].append((number, piece))
        loads[rank] -= negative
    return [sorted(part) for part in work]


def _cut(box: LocalBox, item_size: int) -> list[LocalBox]:
    """Pieces of a box along its outermost dimension, each one range of it."""
    nbytes = math.prod(box.shape) * item_size
    dim = next((dim for dim, size in enumerate(box.shape) if size > 1), None)
    if nbytes <= _PIECE or dim is None:
        return [box]
    step = max(1, _PIECE * box.shape[dim] // nbytes)
    pieces = []
    for begin in range(0, box.shape[dim], step):
        length = min(step, box.shape[dim] - begin)
        offsets = (*box.offsets[:dim], box.offsets[dim] + begin, *box.offsets[dim + 1 :])
        pieces.append(LocalBox(offsets, (*box.shape[:dim], length, *box.shape[dim + 1 :])))
    return pieces


def holders_of(boxes_by_rank: Sequence[Sequence[LocalBox | None]]) -> list[dict[LocalBox, list[int]]]:
    """For each tensor its boxes that are not empty, with the ranks that hold them."""
    holders: list[dict[LocalBox, list[int]]] = []
    for boxes in zip(*boxes_by_rank, strict=True):
        ranks: defaultdict[LocalBox, list[int]] = defaultdict(list)
        for rank, box in enumerate(boxes):
            if box is not None and math.prod(box.shape):
                ranks[box].append(rank)
        holders.append(dict(ranks))
    return holders
