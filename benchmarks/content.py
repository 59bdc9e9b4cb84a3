"""Files of known content, made without any of the packages that are measured.

The data of every file is one pattern of random bytes, repeated: a byte is known by its place alone, so files of any
size are written and checked without keeping a second copy. The length of the pattern is a prime, so neighbours that
were exchanged do not look right by accident.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes a second to import, and the process that commands the others does without
    from torch import Tensor

PERIOD = 1_048_573
BLOCK = 1 << 22

#: The format's name, torch's name and the size of each dtype used here, in the order in which files have them.
DTYPES = {"I64": ("int64", 8), "F32": ("float32", 4), "BF16": ("bfloat16", 2), "U8": ("uint8", 1)}
_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}


class WrongError(Exception):
    """What a peer loaded or saved is not what it should be."""


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype][1]


@functools.cache
def _pattern() -> bytes:
    once = random.Random(0).randbytes(PERIOD)
    return once * (BLOCK // PERIOD + 2)


def known_bytes(begin: int, size: int) -> memoryview:
    """At most BLOCK bytes of a file's data."""
    start = begin % PERIOD
    return memoryview(_pattern())[start : start + size]


def blocks(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for start in range(begin, end, BLOCK):
        yield start, min(start + BLOCK, end)


class Content:
    """The names, dtypes, shapes and bytes of one file, laid out as the reference lays them out."""

    def __init__(self, name: str, entries: Iterable[Entry], metadata: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.entries = sorted(entries, key=lambda entry: (_RANK[entry.dtype], entry.name))
        self.metadata = dict(sorted(metadata.items())) if metadata else None
        self.nbytes = sum(entry.nbytes for entry in self.entries)

    @functools.cached_property
    def header(self) -> bytes:
        """With the eight bytes before it."""
        fields: dict[str, object] = {} if self.metadata is None else {"__metadata__": self.metadata}
        for entry, begin in self.places():
            offsets = [begin, begin + entry.nbytes]
            fields[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
        text = json.dumps(fields, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def places(self) -> Iterator[tuple[Entry, int]]:
        """Each entry and where its bytes begin in the data."""
        begin = 0
        for entry in self.entries:
            yield entry, begin
            begin += entry.nbytes

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(self.header)
            for begin, end in blocks(0, self.nbytes):
                file.write(known_bytes(begin, end - begin))

    def tensors(self) -> dict[str, Tensor]:
        """In memory of their own."""
        return dict(self._filled_tensors())

    def _filled_tensors(self) -> Iterator[tuple[str, Tensor]]:
        import torch

        for entry, begin in self.places():
            tensor = torch.empty(entry.shape, dtype=getattr(torch, DTYPES[entry.dtype][0]))
            raw = tensor.view(-1).view(torch.uint8).numpy().data
            for first, last in blocks(0, entry.nbytes):
                raw[first:last] = known_bytes(begin + first, last - first)
            yield entry.name, tensor

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises WrongError unless these are the tensors of the file."""
        import torch

        if len(tensors) != len(self.entries):
            raise WrongError(f"{len(tensors)} tensors instead of {len(self.entries)}")
        waiting: list[Tensor] = []
        size = start = 0
        for entry, begin in self.places():
            tensor = tensors.get(entry.name)
            if tensor is None:
                raise WrongError(f"tensor {entry.name!r} is missing")
            wanted = getattr(torch, DTYPES[entry.dtype][0]), entry.shape
            if (tensor.dtype, tuple(tensor.shape)) != wanted:
                raise WrongError(f"tensor {entry.name!r} is {tensor.dtype} {tuple(tensor.shape)}, not {wanted}")
            # Small neighbours are compared together.
            if not waiting:
                start, size = begin, 0
            waiting.append(tensor.detach().cpu().reshape(-1).view(torch.uint8))
            size += entry.nbytes
            if size >= BLOCK or entry is self.entries[-1]:
                check_data(torch.cat(waiting) if len(waiting) > 1 else waiting[0], start, f"up to {entry.name!r}")
                waiting = []


def check_data(raw: Tensor, begin: int, what: str) -> None:
    """Raises WrongError unless these bytes are those that follow ``begin`` in the data."""
    seen = raw.numpy().data
    for first, last in blocks(0, len(seen)):
        if seen[first:last] != known_bytes(begin + first, last - first):
            raise WrongError(f"the bytes {what} are wrong")


def check_same_file(written: Path | bytes, expected: Content) -> None:
    """Raises WrongError unless the file is byte for byte what the reference writes.

    The reference writes metadata in random order, so their order is free.
    """
    data = memoryview(written) if isinstance(written, bytes) else memoryview(written.read_bytes())
    size = len(expected.header)
    if len(data) != size + expected.nbytes:
        raise WrongError(f"{len(data)} bytes instead of {size + expected.nbytes}")
    if data[:size] != expected.header and _sorted_metadata(bytes(data[:size])) != expected.header:
        raise WrongError("the header is not the reference's")
    for begin, end in blocks(0, expected.nbytes):
        if data[size + begin : size + end] != known_bytes(begin, end - begin):
            raise WrongError(f"data between {begin} and {end} is wrong")


def _sorted_metadata(header: bytes) -> bytes:
    fields = json.loads(header[8:])
    if "__metadata__" in fields:
        fields["__metadata__"] = dict(sorted(fields["__metadata__"].items()))
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
