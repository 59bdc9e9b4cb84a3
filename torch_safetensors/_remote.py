"""Load tensors from file objects and URLs: whatever is no path, and no memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple, TypeGuard

import torch

from ._arguments import DeviceLike
from ._buffers import as_tensor
from ._errors import SafetensorError, printable, translate
from ._file_objects import Reader, ended, is_file_object, open_file_object
from ._iterate import Conversion, check_dtype
from ._progress import Progress, Total, bar_or_callable
from ._remote_file import RemoteFile
from ._selection import DeviceMap, Names, Rename, select
from ._urls import is_index, is_url, open_url, printable_url, sibling

__all__ = ["RemoteCheckpoint", "is_remote", "load_remote", "open_remote"]

_ops = torch.ops.safetensors

#: Headers are read side by side: each takes a few round trips, and hardly any bytes.
_OPENERS = 8


class RemoteCheckpoint(NamedTuple):
    """What is loaded from: a file, or all files that an index lists."""

    #: How it is called in messages.
    source: str
    files: list[RemoteFile]


def is_remote(source: object) -> TypeGuard[str | BinaryIO]:
    """True for what this module loads from: a file object, or a str with a protocol that fsspec knows."""
    return is_url(source) if isinstance(source, str) else is_file_object(source)


@contextlib.contextmanager
def open_remote(
    source: str | BinaryIO, storage_options: Mapping[str, Any] | None = None
) -> Iterator[RemoteCheckpoint | str]:
    """Opens a URL or a file object for the time of the context; gives a path for the URL of a local file.

    Raises:
        OSError, ImportError: what cannot be read; see :func:`open_url` and :func:`open_file_object`.
        SafetensorError: malformed, also an index that does not say what its files do.
    """
    with contextlib.ExitStack() as stack:
        opened = open_url(source, storage_options) if isinstance(source, str) else open_file_object(source)
        if isinstance(opened, str):
            # An index among the copies of a cache has none of its files beside it.
            if not (isinstance(source, str) and is_index(source) and "::" in source):
                yield opened
                return
            opened = _open_copy(opened, source, stack)
        stack.callback(opened.close)
        if isinstance(source, str) and is_index(source):
            yield RemoteCheckpoint(opened.source, _open_files(source, opened, storage_options, stack))
        else:
            yield RemoteCheckpoint(opened.source, [RemoteFile(opened)])


def load_remote(
    checkpoint: RemoteCheckpoint,
    device: DeviceLike | DeviceMap = "cpu",
    *,
    threads: int | None = None,
    verify: bool = False,
    names: Names | None = None,
    dtype: torch.dtype | None = None,
    rename: Rename | None = None,
    progress: Progress = None,
) -> dict[str, torch.Tensor]:
    """Loads the tensors of what is open, by default all; arguments, result and errors as for :func:`load_file`.

    The bytes of others are not read, but for gaps that are cheaper to read than to leave out.
    """
    check_dtype(dtype)
    stored = [name for file in checkpoint.files for name in file.names]
    selection = select(checkpoint.source, stored, device, names, rename)
    device_of = dict(zip(selection.names, selection.devices, strict=True))
    conversion = Conversion(checkpoint.source, dtype)
    loaded: dict[str, torch.Tensor] = {}
    with bar_or_callable(progress, checkpoint.source) as report:
        nbytes = sum(file.nbytes(device_of) for file in checkpoint.files)
        total = None if report is None else Total(report, nbytes).start()
        for file in checkpoint.files:
            here = [name for name in file.names if name in device_of]
            if here or len(checkpoint.files) == 1:  # a stream is read, and held to its size, whatever is wanted of it
                devices = [device_of[name] for name in here]
                tensors = file.load(here, devices, threads=threads, verify=verify, total=total)
                for name in here:  # one by one: never are all there in both dtypes
                    loaded[name] = conversion.convert(name, tensors.pop(name))
        if total is not None:
            total.finish()
    conversion.warn()
    return {new: loaded[name] for name, new in zip(selection.names, selection.new_names, strict=True)}


def _open_copy(path: str, url: str, stack: contextlib.ExitStack) -> Reader:
    """The local copy of a URL."""
    return open_file_object(stack.enter_context(io.FileIO(path)), printable_url(url))


def _open_files(
    url: str, index: Reader, storage_options: Mapping[str, Any] | None, stack: contextlib.ExitStack
) -> list[RemoteFile]:
    """The files of an index, each held to what it says."""
    listed: dict[str, list[str]] = {}
    for name, file in zip(*_read_index(index), strict=True):
        listed.setdefault(file, []).append(name)

    def open_file(name: str) -> RemoteFile:
        shard = sibling(url, name)
        opened = open_url(shard, storage_options)
        if isinstance(opened, str):
            opened = _open_copy(opened, shard, stack)
        stack.callback(opened.close)
        return RemoteFile(opened)

    with ThreadPoolExecutor(_OPENERS, thread_name_prefix="torch_safetensors") as pool:
        files = list(pool.map(open_file, listed))
    _check_index(index.source, files, list(listed.values()))
    return files


def _read_index(reader: Reader) -> tuple[list[str], list[str]]:
    """The names of tensors, and the file of each."""
    if reader.size is None:
        raise OSError(f"{reader.source}: does not say how long it is, which an index must")
    json = bytearray(reader.size)
    count = reader.read_into(0, memoryview(json))
    if count < len(json):
        raise ended(reader, 0, count, len(json))
    try:
        with as_tensor(json, writable=False) as tensor:
            names, files = _ops._parse_index(printable(reader.source), tensor)
    except RuntimeError as error:
        raise translate(error, reader.source) from None
    return names, files


def _check_index(source: str, files: list[RemoteFile], listed: list[list[str]]) -> None:
    """Files and index say the same, or one of them is of another checkpoint (csrc/tensors/checkpoint.cpp)."""
    first: dict[str, RemoteFile] = {}
    for file in files:
        for name in file.names:
            if name in first:
                both = f"{first[name].reader.source} and {file.reader.source}"
                raise SafetensorError(f"{source}: tensor {name!r}: is in two files, {both}")
            first[name] = file
    for file, names in zip(files, listed, strict=True):
        for name in names:
            if first.get(name) is not file:
                raise SafetensorError(
                    f"{source}: tensor {name!r}: the index says that it is in {file.reader.source}, which does not "
                    "have it"
                )
        for name in set(file.names) - set(names):
            raise SafetensorError(f"{source}: tensor {name!r}: is in {file.reader.source} but not in the index")
