"""Which rank writes which part of a tensor, where several hold the same."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import torch

from ._boxes import LocalBox

__all__ = ["Held", "Work", "deal", "held", "holders_of", "is_tiled"]

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


def deal(
    types: Sequence[torch.Tensor], holders: Sequence[dict[LocalBox, list[int]]], world_size: int, rank: int
) -> Work:
    """What this rank writes. Every box is written by one that holds it, and all ranks write about as many bytes.

    What each is dealt follows from what all of them pass, which is the same, but for ``rank``.

    Args:
        types: of the tensors, on any device; only their dtypes count.
        holders: for each tensor its boxes, with the ranks that hold them: see :func:`holders_of`.
        world_size: number of ranks.
        rank: this one's number.
    """
    # 1,000 ranks hold a million boxes of 1,000 tensors, but in few ways.
    alike: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (tensor, boxes) in enumerate(zip(types, holders, strict=True)):
        alike[id(boxes), tensor.element_size()].append(number)
    own: Work = []
    loads = [0] * world_size
    shared: list[tuple[int, int, LocalBox, list[int]]] = []
    for (_, item_size), numbers in alike.items():
        for box, ranks in holders[numbers[0]].items():
            if len(ranks) > 1:
                for piece in _cut(box, item_size):
                    nbytes = math.prod(piece.shape) * item_size
                    shared += [(-nbytes, number, piece, ranks) for number in numbers]
                continue
            loads[ranks[0]] += math.prod(box.shape) * item_size * len(numbers)
            if ranks[0] == rank:
                own += [(number, box) for number in numbers]
    for negative, number, piece, ranks in sorted(shared):
        least = min(ranks, key=lambda rank: (loads[rank], rank))
        loads[least] -= negative
        if least == rank:
            own.append((number, piece))
    return sorted(own)


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


class Held(NamedTuple):
    """What a rank holds, in few words: models have many tensors of few shapes."""

    #: Each once.
    boxes: list[LocalBox | None]
    #: For each tensor which of them.
    which: list[int]


def held(boxes: Iterable[LocalBox | None]) -> Held:
    """What a rank holds of each tensor."""
    numbers: dict[LocalBox | None, int] = {}
    which = [numbers.setdefault(box, len(numbers)) for box in boxes]
    return Held(list(numbers), which)


def holders_of(held_by_rank: Sequence[Held]) -> list[dict[LocalBox, list[int]]]:
    """For each tensor its boxes that are not empty, with the ranks that hold them. One dict for all that are alike."""
    found: dict[tuple[int, ...], dict[LocalBox, list[int]]] = {}
    holders: list[dict[LocalBox, list[int]]] = []
    for which in zip(*(held.which for held in held_by_rank), strict=True):
        if which not in found:
            ranks: defaultdict[LocalBox, list[int]] = defaultdict(list)
            for rank, (held, number) in enumerate(zip(held_by_rank, which, strict=True)):
                box = held.boxes[number]
                if box is not None and math.prod(box.shape):
                    ranks[box].append(rank)
            found[which] = dict(ranks)
        holders.append(found[which])
    return holders
