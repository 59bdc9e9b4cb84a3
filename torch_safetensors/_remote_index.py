"""A checkpoint in several files behind URLs: an index, and the files that it lists."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch

from ._buffers import as_tensor
from ._checkpoint_files import MAX_INDEX_SIZE
from ._errors import SafetensorError, printable, translate
from ._file_objects import Reader, ended, open_file_object
from ._remote_file import RemoteFile
from ._selection import Names, matching
from ._urls import open_url, printable_url, sibling, version_of

__all__ = ["RemoteCheckpoint", "RemoteIndex"]

_ops = torch.ops.safetensors

T = TypeVar("T")

#: Headers are read side by side: each takes a few round trips, and hardly any bytes.
_OPENERS = 8
#: So many files stay open while others are read; more are closed once their headers are read, and opened again.
_KEPT = 16
#: So often a checkpoint is read that is replaced meanwhile.
_ATTEMPTS = 20
#: So many tensors that differ are named.
_NAMED = 5


class RemoteCheckpoint(NamedTuple):
    """What is loaded from: a file, or files that an index lists."""

    #: How it is called in messages.
    source: str
    files: list[RemoteFile]
    #: Of all tensors, also of those whose files are not opened.
    names: list[str]


class RemoteIndex:
    """The URL of an index.

    Args:
        url: of the index; the files that it lists are beside it.
        storage_options: see :func:`load_file`.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None) -> None:
        self.source = printable_url(url)
        self._url = url
        self._storage_options = storage_options

    def of_one_save(self, names: Names | None, strict_index: bool, use: Callable[[RemoteCheckpoint], T]) -> T:
        """Opens what holds the names and returns what ``use`` makes of it.

        The index is read again afterwards, and everything begins again if it is another one by then.

        Raises:
            OSError, ImportError: what cannot be read, or is replaced again and again.
            SafetensorError: malformed, also an index that does not say what its files do.
        """
        for _ in range(_ATTEMPTS):
            index = self._read()
            try:
                with self._opened(index[0], names, strict_index) as checkpoint:
                    result = use(checkpoint)
            except (OSError, SafetensorError):
                if self._is_still(index):
                    raise
            else:
                if self._is_still(index):
                    return result
        text = f"another save replaced the checkpoint each of the {_ATTEMPTS} times it was read"
        raise OSError(errno.ESTALE, f"{text}; load it while nobody saves to it", self.source)

    def _read(self) -> tuple[bytes, str]:
        """The index, and what else tells it from another one with the same content."""
        with contextlib.ExitStack() as stack:
            version = version_of(self._url, self._storage_options)
            reader = _open(self._url, self._storage_options, stack)
            if reader.size is None:
                raise OSError(f"{reader.source}: does not say how long it is, which an index must")
            if reader.size > MAX_INDEX_SIZE:
                raise SafetensorError(
                    f"{reader.source}: the index has {reader.size} bytes but at most {MAX_INDEX_SIZE} are read"
                )
            json = bytearray(reader.size)
            count = reader.read_into(0, memoryview(json))
            if count < len(json):
                raise ended(reader, 0, count, len(json))
            return bytes(json), version

    def _is_still(self, index: tuple[bytes, str]) -> bool:
        try:
            return self._read() == index
        except (OSError, SafetensorError):
            return False

    @contextlib.contextmanager
    def _opened(self, json: bytes, names: Names | None, strict_index: bool) -> Iterator[RemoteCheckpoint]:
        listed: dict[str, list[str]] = {}
        for name, file in zip(*self._parse(json), strict=True):
            listed.setdefault(file, []).append(name)
        if names is not None:
            wanted = set(matching(self.source, [name for of_file in listed.values() for name in of_file], names))
            wanted_files = [file for file, of_file in listed.items() if not wanted.isdisjoint(of_file)]
        else:
            wanted, wanted_files = None, list(listed)
        with contextlib.ExitStack() as stack:
            with ThreadPoolExecutor(_OPENERS, thread_name_prefix="torch_safetensors") as pool:
                files = list(pool.map(functools.partial(self._open_file, stack), wanted_files, itertools.count()))
            self._check(files, [listed[file] for file in wanted_files], wanted, strict_index)
            for opened, of_file in zip(files, wanted_files, strict=True):
                assigned = set(listed[of_file])
                opened.names = [name for name in opened.names if name in assigned]
            stored = [name for file in files for name in file.names]
            there = set(stored)
            stored += [name for names in listed.values() for name in names if name not in there]
            yield RemoteCheckpoint(self.source, files, stored)

    def _parse(self, json: bytes) -> tuple[list[str], list[str]]:
        """The names of tensors, and the file of each."""
        try:
            with as_tensor(json, writable=False) as tensor:
                names, files = _ops._parse_index(printable(self.source), tensor)
        except RuntimeError as error:
            raise translate(error, self.source) from None
        return names, files

    def _open_file(self, stack: contextlib.ExitStack, name: str, number: int) -> RemoteFile:
        url = sibling(self._url, name)

        def open_it() -> tuple[Reader, Callable[[], None]]:
            own = contextlib.ExitStack()
            with own:
                reader = _open(url, self._storage_options, own)
                return reader, own.pop_all().close

        with contextlib.ExitStack() as own:
            reader, close = open_it()
            own.callback(close)
            file = RemoteFile(reader, close, open_it)
            own.pop_all()
        stack.callback(file.close)
        if number >= _KEPT:
            file.close()
        return file

    def _check(
        self, files: list[RemoteFile], listed: list[list[str]], wanted: set[str] | None, strict_index: bool
    ) -> None:
        """Files and index say the same, or one of them is of another checkpoint (csrc/tensors/checkpoint.cpp)."""
        file_of = {name: file for file, names in zip(files, listed, strict=True) for name in names}
        held = {id(file): set(file.names) for file in files}
        lacking = []
        for name, file in file_of.items():
            if name in held[id(file)] or (wanted is not None and name not in wanted):
                continue
            where = f"the index says that it is in {file.reader.source}"
            if wanted is not None:
                raise SafetensorError(f"{self.source}: tensor {name!r}: {where}, which does not have it")
            lacking.append(f"{name!r} ({where})")
        unlisted: list[str] = []
        second: list[str] = []
        for file in files if wanted is None and strict_index else []:
            for name in file.names:
                other = file_of.get(name)
                if other is None:
                    unlisted.append(f"{name!r} (in {file.reader.source})")
                elif other is not file and name in held[id(other)]:
                    both = f"in {other.reader.source}, as the index says, and in {file.reader.source}"
                    second.append(f"{name!r} ({both})")
        differences = [
            *_listed(
                lacking,
                "tensor is not in the file that the index assigns it to",
                "tensors are not in the files that the index assigns them to",
            ),
            *_listed(unlisted, "tensor is not in the index", "tensors are not in the index"),
            *_listed(second, "tensor is in two files", "tensors are in two files"),
        ]
        if differences:
            if not lacking:
                differences.append("pass strict_index=False to load only what the index assigns")
            count = f"{len(files)} file" + ("s" if len(files) != 1 else "")
            raise SafetensorError(f"{self.source}: the index and its {count} differ; {'; '.join(differences)}")


def _open(url: str, storage_options: Mapping[str, Any] | None, stack: contextlib.ExitStack) -> Reader:
    """A reader that is closed with the stack."""
    opened = open_url(url, storage_options)
    if isinstance(opened, str):  # a local copy
        opened = open_file_object(stack.enter_context(io.FileIO(opened)), printable_url(url))
    stack.callback(opened.close)
    return opened


def _listed(items: list[str], one: str, several: str) -> Iterator[str]:
    if items:
        more = f", and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
        yield f"{len(items)} {one if len(items) == 1 else several}: {', '.join(items[:_NAMED])}{more}"
