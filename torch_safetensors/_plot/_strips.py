"""Files as strips: headers and tensors where they lie, neighbours together where they are too small to be seen."""

from __future__ import annotations

from dataclasses import dataclass

from .._listing import Listing, Tensor
from .._text import count_of, printable_name

__all__ = ["HEADER", "Segment", "strips"]

#: In place of a dtype.
HEADER = "header"


@dataclass
class Segment:
    """A part of a file."""

    #: The dtype, or :data:`HEADER`.
    kind: str
    label: str
    #: Where it begins in the file, and its length, in bytes.
    begin: int
    nbytes: int
    #: How many tensors; of none for a header.
    tensors: int = 0


def strips(listing: Listing, most: int) -> list[list[Segment]]:
    """The segments of each file, in order; about ``most`` for the largest file, besides changes of the dtype."""
    smallest = max((file.nbytes for file in listing.files), default=0) // most
    result = [[Segment(HEADER, "header", 0, file.header_bytes)] for file in listing.files]
    for tensor in listing.tensors:
        _add(result[tensor.file], tensor, smallest)
    return result


def _add(segments: list[Segment], tensor: Tensor, smallest: int) -> None:
    last = segments[-1]
    small = tensor.nbytes < smallest and last.nbytes < smallest
    if last.kind == tensor.dtype and small:
        last.nbytes += tensor.nbytes
        last.tensors += 1
        # What the first is named was put there before there was a second.
        first = last.label.partition(" … ")[0]
        last.label = f"{first} … {printable_name(tensor.name)} ({count_of(last.tensors, 'tensor')})"
    else:
        segments.append(Segment(tensor.dtype, printable_name(tensor.name), tensor.begin, tensor.nbytes, 1))
