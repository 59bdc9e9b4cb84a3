"""Load tensors from file objects and URLs: whatever is no path, and no memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, TypeGuard

import torch

from ._arguments import DeviceLike
from ._file_objects import is_file_object, open_file_object
from ._iterate import Conversion, check_dtype
from ._progress import Progress, Total, bar_or_callable
from ._remote_file import RemoteFile
from ._remote_index import RemoteCheckpoint, RemoteIndex
from ._selection import DeviceMap, Names, Rename, select
from ._urls import is_index, is_url, open_url

__all__ = ["RemoteCheckpoint", "is_remote", "load_remote", "open_remote"]


def is_remote(source: object) -> TypeGuard[str | BinaryIO]:
    """True for what this module loads from: a file object, or a str with a protocol that fsspec knows."""
    return is_url(source) if isinstance(source, str) else is_file_object(source)


@contextlib.contextmanager
def open_remote(
    source: str | BinaryIO, storage_options: Mapping[str, Any] | None = None
) -> Iterator[RemoteCheckpoint | RemoteIndex | str]:
    """Opens a URL or a file object for the time of the context; gives a path for the URL of a local file.

    Raises:
        OSError, ImportError: what cannot be read; see :func:`open_url` and :func:`open_file_object`.
        SafetensorError: malformed.
    """
    opened = open_url(source, storage_options) if isinstance(source, str) else open_file_object(source)
    if isinstance(source, str) and is_index(source):
        # An index among the copies of a cache has none of its files beside it.
        if isinstance(opened, str) and "::" not in source:
            yield opened
            return
        if not isinstance(opened, str):
            opened.close()
        yield RemoteIndex(source, storage_options)
    elif isinstance(opened, str):
        yield opened
    else:
        with contextlib.closing(opened):
            file = RemoteFile(opened, opened.close)
            yield RemoteCheckpoint(opened.source, [file], file.names)


def load_remote(
    checkpoint: RemoteCheckpoint | RemoteIndex,
    device: DeviceLike | DeviceMap = "cpu",
    *,
    threads: int | None = None,
    verify: bool = False,
    names: Names | None = None,
    dtype: torch.dtype | None = None,
    rename: Rename | None = None,
    progress: Progress = None,
    strict_index: bool = True,
) -> dict[str, torch.Tensor]:
    """Loads the tensors of what is open, by default all; arguments, result and errors as for :func:`load_file`.

    The bytes of others are not read, but for gaps that are cheaper to read than to leave out.
    """
    check_dtype(dtype)
    if names is not None and not isinstance(names, str):
        names = list(names)  # which is gone over more than once
    load = functools.partial(
        _load, device=device, threads=threads, verify=verify, names=names, dtype=dtype, rename=rename, progress=progress
    )
    if isinstance(checkpoint, RemoteIndex):
        return checkpoint.of_one_save(names, strict_index, load)
    return load(checkpoint)


def _load(
    checkpoint: RemoteCheckpoint,
    *,
    device: DeviceLike | DeviceMap,
    threads: int | None,
    verify: bool,
    names: Names | None,
    dtype: torch.dtype | None,
    rename: Rename | None,
    progress: Progress,
) -> dict[str, torch.Tensor]:
    selection = select(checkpoint.source, checkpoint.names, device, names, rename)
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
                with file.awake():
                    tensors = file.load(here, devices, threads=threads, verify=verify, total=total)
                for name in here:  # one by one: never are all there in both dtypes
                    loaded[name] = conversion.convert(name, tensors.pop(name))
        if total is not None:
            total.finish()
    conversion.warn()
    return {new: loaded[name] for name, new in zip(selection.names, selection.new_names, strict=True)}
