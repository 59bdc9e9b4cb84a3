"""What the headers of a checkpoint say of its tensors, read in one call."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ._arguments import split_names
from ._gc import gc_paused

if TYPE_CHECKING:
    from ._safe_open import safe_open

__all__ = ["File", "Listing", "Tensor", "list_tensors"]


#: Deeper names are no modules, and one may consist of a million dots.
_MAX_PARTS = 32


class Tensor(NamedTuple):
    """One tensor."""

    name: str
    #: The format's name, e.g. ``"F32"``.
    dtype: str
    #: For F4 the last dimension counts elements, twice torch's.
    shape: tuple[int, ...]
    #: Size in bytes.
    nbytes: int
    #: Where its bytes begin in its file.
    begin: int
    #: Index into :attr:`Listing.files`.
    file: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def parts(self) -> list[str]:
        """The name between its dots; the last of very many parts has the others in it."""
        return self.name.split(".", _MAX_PARTS)

    @property
    def module(self) -> str:
        """The name up to the last dot; empty where there is none."""
        return self.name.rpartition(".")[0]


class File(NamedTuple):
    """One file."""

    #: As it stands in messages: what is not printable, escaped.
    path: str
    #: Length of the header with the eight bytes in front of it: where the data begins.
    header_bytes: int
    #: Length of the whole file.
    nbytes: int


class Listing(NamedTuple):
    """All tensors, file by file in the order of their data."""

    tensors: list[Tensor]
    files: list[File]
    metadata: dict[str, str] | None

    @property
    def nbytes(self) -> int:
        """The size of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def list_tensors(handle: safe_open) -> Listing:
    """Everything but the data.

    Raises:
        OSError, SafetensorError: a file is missing or malformed, or the index and the files differ; the handle is
            closed.
    """
    handle._require_whole()
    with gc_paused():
        joined, dtypes, dims, flat, sizes, positions, files, paths, data_begins = handle._call("_listing")
        names = split_names(*joined) if sizes else []
        columns = names, dtypes, _shapes(dims, flat), sizes, positions, files
        tensors = list(itertools.starmap(Tensor, zip(*columns, strict=True)))
    ends = list(data_begins)
    for tensor in tensors:
        ends[tensor.file] += tensor.nbytes
    # Tensors cover the data exactly: a file ends where the last of them does.
    return Listing(tensors, list(map(File, paths, data_begins, ends)), handle.metadata())


def _shapes(dims: Iterable[int], flat: list[int]) -> Iterable[tuple[int, ...]]:
    begin = 0
    for count in dims:
        yield tuple(flat[begin : begin + count])
        begin += count
