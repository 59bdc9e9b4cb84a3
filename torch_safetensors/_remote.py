"""Load tensors from file objects and URLs: whatever is no path, and no memory.

What to read comes from the library, which parses the header and plans the pieces; the bytes come from a
:class:`Reader`, by several threads where it can.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, BinaryIO, TypeAlias, TypeGuard

import torch

from ._arguments import DeviceLike, operator_device, split_names
from ._buffers import as_tensor, memory_of
from ._errors import printable, translate
from ._file_objects import Reader, is_file_object, open_file_object
from ._gc import gc_paused
from ._urls import is_url, open_url

__all__ = ["Names", "is_remote", "load_remote", "open_remote", "remote_names"]

_ops = torch.ops.safetensors
_classes = torch.classes.safetensors

#: So many bytes are read at a time, by each thread: what a request costs beside them is little, and what has to be
#: done over after an error, too.
_PIECE = 8 << 20

#: Which tensors to load: their names, or what chooses them from all names.
Names: TypeAlias = "Sequence[str] | Callable[[list[str]], Sequence[str]]"


def is_remote(source: object) -> TypeGuard[str | BinaryIO]:
    """True for what this module loads from: a file object, or a str with a protocol that fsspec knows."""
    return is_url(source) if isinstance(source, str) else is_file_object(source)


@contextlib.contextmanager
def open_remote(source: str | BinaryIO, storage_options: Mapping[str, Any] | None = None) -> Iterator[Reader | str]:
    """A reader of a URL or a file object; or a path, for the URL of a local file."""
    reader = open_url(source, storage_options) if isinstance(source, str) else open_file_object(source)
    if isinstance(reader, str):
        yield reader
        return
    try:
        yield reader
    finally:
        reader.close()


def remote_names(reader: Reader) -> list[str]:
    """The names of the tensors, in the order of their data. What reads a stream leaves nothing to load."""
    with _errors_of(reader):
        return split_names(*_read_header(reader).keys())


def load_remote(
    reader: Reader,
    device: DeviceLike = "cpu",
    *,
    threads: int | None = None,
    verify: bool = False,
    names: Names | None = None,
) -> dict[str, torch.Tensor]:
    """Loads tensors, in pieces of 8 MiB. A stream is read to its end.

    Args:
        reader: from :func:`open_remote`.
        device: see :func:`load_file`.
        threads: so many read at a time; by default ``$TORCH_SAFETENSORS_THREADS``, or what suits the reader. Ignored
            for streams.
        verify: compare the tensors with their checksums.
        names: which tensors; by default all. The bytes of others are not read, but for gaps that are cheaper to read.

    Returns:
        The tensors by name, in the order of their data.

    Raises:
        OSError: what cannot be read, or is not as long as it said.
        SafetensorError: malformed; a name it does not hold; with ``verify`` damaged.
    """
    with _errors_of(reader):
        header = _read_header(reader)
        if callable(names):
            names = names(split_names(*header.keys()))
        chosen = None if names is None else list(names)
        load = _classes._PiecewiseLoad(header, chosen, operator_device(device), verify, _PIECE, reader.max_gap)
        _Filling(reader, header, load).run(load.threads(threads, reader.threads) if reader.threads > 1 else 1)
        _check_size(reader, header)
        with gc_paused():
            joined, separator, tensors = load.take()
            return dict(zip(split_names(joined, separator), tensors, strict=True))


@contextlib.contextmanager
def _errors_of(reader: Reader) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise translate(error, reader.source) from None


def _read_header(reader: Reader) -> Any:
    """The validated header, of the library's class ``_SourceHeader``."""
    source = printable(reader.source)
    prefix = bytearray(8)
    count = reader.read_into(0, memoryview(prefix))
    size = count if reader.size is None and count < len(prefix) else reader.size
    with as_tensor(prefix[:count], writable=False) as tensor:
        json = bytearray(_ops._header_size(source, tensor, size))
        count += reader.read_into(count, memoryview(json))
        if count < len(prefix) + len(json):
            if reader.size is None:
                _ops._header_size(source, tensor, count)  # raises, with the numbers
            raise _ended(reader, count)
    data_size = None if size is None else size - count
    with as_tensor(json, writable=False) as tensor:
        return _classes._SourceHeader(source, tensor, data_size)


def _check_size(reader: Reader, header: Any) -> None:
    """Holds what did not know its size to the rule that tensors cover the file exactly."""
    size = reader.measure(header.end())
    if reader.size is None:
        header.check_data_size(size - header.data_begin())


def _ended(reader: Reader, size: int) -> OSError:
    return OSError(f"{reader.source}: ended at byte {size}, though it had {reader.size} bytes when it was opened")


class _Filling:
    """Fills all pieces of a load."""

    def __init__(self, reader: Reader, header: Any, load: Any) -> None:
        self._reader = reader
        self._header = header
        self._load = load
        self._stopped = threading.Event()

    def run(self, threads: int) -> None:
        """Returns when all are filled; raises the first error of any thread, after which no piece is begun."""
        if threads <= 1:
            self._work()
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="torch_safetensors") as pool:
            try:
                work = [pool.submit(self._work) for _ in range(threads)]
                wait(work, return_when=FIRST_EXCEPTION)
            finally:
                self._stopped.set()  # also when Ctrl-C ends the waiting
        for done in work:
            done.result()

    def _work(self) -> None:
        while not self._stopped.is_set():
            piece = self._load.next()
            if piece is None:
                return
            begin, tensor = piece
            count = self._reader.read_into(begin, memory_of(tensor))
            if count < tensor.numel():
                self._fail(begin + count)
            self._load.finish(begin)

    def _fail(self, size: int) -> None:
        if self._reader.size is None:
            _check_size(self._reader, self._header)
        raise _ended(self._reader, size)
