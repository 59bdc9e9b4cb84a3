"""The files of a checkpoint in a directory: which they are, and how new ones take their place."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch

from ._arguments import operator_filename
from ._buffers import as_tensor
from ._errors import translate

__all__ = ["Index", "locked", "replace_by_shards", "replace_by_single"]

_ops = torch.ops.safetensors

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
#: Shards of any save: those of this one get a number where the plain names are taken by the checkpoint before.
_SHARD = re.compile(r"model(?:\.\d+)?-\d{5}-of-\d{5}\.safetensors")

Shards = list[list[str]]
Save = Callable[[Path, list[str]], None]


class Index:
    """Writes the index of a checkpoint."""

    def __init__(self, texts: Mapping[str, str], total_size: int, fsync: bool) -> None:
        self._metadata = {**texts, "total_size": total_size}
        self._fsync = fsync

    def write(self, folder: Path, shards: Shards, files: list[str]) -> None:
        weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": self._metadata, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        path = folder / _INDEX
        with as_tensor(text.encode(), writable=False) as data:
            try:
                warning = _ops._write_file(operator_filename(path), data, self._fsync)
            except RuntimeError as error:
                raise translate(error, path) from None
        if warning:
            warnings.warn(warning, stacklevel=2)


def replace_by_single(folder: Path, save: Callable[[Path], None]) -> None:
    """Writes a checkpoint of one file in place of what is there."""
    before = _files_of_checkpoint(folder)
    save(folder / _SINGLE)
    # Who looks for a checkpoint takes this file, whether there is an index or not: it may go first.
    _remove(folder, [_INDEX, *(before - {_SINGLE, _INDEX})])
    _remove_dead(folder)


def replace_by_shards(folder: Path, shards: Shards, save: Save, index: Index) -> None:
    """Writes a checkpoint of several files in place of what is there.

    No name is used that the checkpoint before may need. The index makes the new one valid; or, where one file was the
    checkpoint, the end of that file.
    """
    before = _files_of_checkpoint(folder)
    plain = _shard_names("model", len(shards))
    files = plain
    for number in itertools.count(1):
        if before.isdisjoint(files):
            break
        files = _shard_names(f"model.{number}", len(shards))
    written: list[str] = []
    try:
        for file, shard in zip(files, shards, strict=True):
            written.append(file)
            save(folder / file, shard)
        index.write(folder, shards, files)
    except BaseException:
        _remove(folder, written)
        raise
    _remove(folder, [_SINGLE, *(before - {_SINGLE, _INDEX})])
    _remove_dead(folder)
    if files != plain:
        _rename(folder, shards, files, plain, index)


def _rename(folder: Path, shards: Shards, files: list[str], plain: list[str], index: Index) -> None:
    """Gives shards the names that everybody expects, which are free now; each has both until the index changes."""
    try:
        for file, name in zip(files, plain, strict=True):
            os.link(folder / file, folder / name)
    except OSError:  # a file system without hard links: the names they have are as good
        _remove(folder, plain)
        return
    index.write(folder, shards, plain)
    _remove(folder, files)


def _shard_names(stem: str, count: int) -> list[str]:
    return [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _files_of_checkpoint(folder: Path) -> set[str]:
    names = set(map(os.fspath, os.listdir(folder)))  # noqa: PTH208 (names, not paths)
    return {name for name in names if name in (_SINGLE, _INDEX) or _SHARD.fullmatch(name)}


def _remove(folder: Path, files: Iterable[str]) -> None:
    for file in files:
        (folder / file).unlink(missing_ok=True)


def _remove_dead(folder: Path) -> None:
    """Temporary files of saves that were killed: the next one to the same name would, but that may not come."""
    _ops._remove_dead_files(operator_filename(folder))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes' saves to a directory out, where its file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
