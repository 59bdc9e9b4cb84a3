"""A checkpoint as boxes in boxes, of which there are never more than can be drawn and told apart."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from .._listing import Tensor
from .._text import natural_order, printable_name

__all__ = ["Box", "boxes"]

#: More siblings than this are gathered in ranges first.
_MAX_CHILDREN = 64


@dataclass
class Box:
    """A module, a tensor, or a range of siblings."""

    label: str
    tensors: list[Tensor]
    #: How many parts of its tensors' names are known by it and the boxes around it.
    depth: int
    nbytes: int = 0
    children: list[Box] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors)

    @property
    def dtype(self) -> str:
        """The one that most of its bytes have; empty where there are no tensors."""
        sizes = {"": 0} if not self.tensors else {}
        for tensor in self.tensors:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
        return max(sizes, key=lambda dtype: sizes[dtype])


def boxes(tensors: Sequence[Tensor], label: str, most: int, smallest: float) -> Box:
    """The box of all tensors, with boxes in it that are opened in their turn, the largest first.

    Until there are about ``most``; and none whose share of all bytes is less than ``smallest``, in which nothing could
    be seen.
    """
    root = Box(label, list(tensors), 0)
    # The number breaks ties: boxes have no order.
    closed = [(-root.nbytes, 0, root)]
    made = 1
    while closed and made < most:
        _, _, box = heapq.heappop(closed)
        if box.nbytes < smallest * root.nbytes:
            break
        box.children = _parts(box)
        for child in box.children:
            made += 1
            heapq.heappush(closed, (-child.nbytes, made, child))
    return root


def _parts(box: Box) -> list[Box]:
    """What is directly in a box; nothing for a single tensor's own."""
    if len(box.tensors) == 1 and len(box.tensors[0].parts) <= box.depth:
        return []
    named: dict[str, list[Tensor]] = {}
    for tensor in box.tensors:
        # A tensor may be named as the module it stands beside.
        label = tensor.parts[box.depth : box.depth + 1] or [""]
        named.setdefault(label[0], []).append(tensor)
    children = [_part(label, named[label], box.depth + 1) for label in sorted(named, key=natural_order)]
    return children if len(children) <= _MAX_CHILDREN else _ranges(children, box.depth)


def _part(label: str, tensors: list[Tensor], depth: int) -> Box:
    """A box with several things in it, or one tensor: `model.layers` where there is nothing else in `model`."""
    while True:
        following = {tuple(tensor.parts[depth : depth + 1]) for tensor in tensors}
        if len(following) != 1 or following == {()}:
            return Box(printable_name(label), tensors, depth)
        label = f"{label}.{next(iter(following))[0]}"
        depth += 1


def _ranges(children: list[Box], depth: int) -> list[Box]:
    """Neighbours together, in as many ranges as there may be children."""
    count = -(-len(children) // _MAX_CHILDREN)
    ranges = []
    for begin in range(0, len(children), count):
        group = children[begin : begin + count]
        if len(group) == 1:
            ranges += group
            continue
        tensors = [tensor for child in group for tensor in child.tensors]
        ranges.append(Box(f"{group[0].label} … {group[-1].label}", tensors, depth))
    return ranges
