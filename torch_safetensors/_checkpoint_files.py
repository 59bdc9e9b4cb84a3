"""The files of a checkpoint in a directory: which they are, and how new ones take their place."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from ._arguments import CHECKSUMS, operator_filename
from ._buffers import as_tensor
from ._errors import translate

__all__ = ["RANK_SHARD", "Index", "Replacement", "locked", "remove_rank_shards", "remove_whole"]

_ops = torch.ops.safetensors

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
#: Shards of any save: those of this one get a number where the plain names are taken by the checkpoint before.
_SHARD = re.compile(r"model(?:\.\d+)?-\d{5}-of-\d{5}\.safetensors")
#: What each rank of torch.distributed.checkpoint writes of its own.
RANK_SHARD = re.compile(r"shard-\d{5,}-model-\d{5,}-of-\d{5,}\.safetensors")

Shards = list[list[str]]


class Index:
    """Writes the index of a checkpoint."""

    def __init__(self, texts: Mapping[str, str], total_size: int, fsync: bool) -> None:
        # Those of another file, which an index has no use for either.
        own = {key: text for key, text in texts.items() if key != CHECKSUMS}
        self._metadata = {**own, "total_size": total_size}
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


class Replacement:
    """The files of a new checkpoint, of one file or of several and an index, in place of what is there.

    Nothing of the checkpoint before is touched until :meth:`finish`, and no name is used that it may need: the index
    makes a new one of several files valid; or, where one file was the checkpoint, the end of that file.
    """

    def __init__(self, folder: Path, shards: Shards, index: Index) -> None:
        self._folder = folder
        self._shards = shards
        self._index = index
        self._before = _files_of_checkpoint(folder)
        self._is_single = len(shards) == 1
        self._plain = [_SINGLE] if self._is_single else _shard_names("model", len(shards))
        #: Where the shards have to be written, each at once, before :meth:`finish`.
        self.files = self._plain
        for number in itertools.count(1):
            if self._is_single or self._before.isdisjoint(self.files):
                break
            self.files = _shard_names(f"model.{number}", len(shards))

    def finish(self) -> None:
        """Makes the new files the checkpoint, and removes those of the one before."""
        if self._is_single:
            # Who looks for a checkpoint takes this file, whether there is an index or not: it may go first.
            self._clear([_INDEX, *(self._before - {_SINGLE, _INDEX})])
            return
        try:
            self._index.write(self._folder, self._shards, self.files)
        except BaseException:
            self.abort()
            raise
        self._clear([_SINGLE, *(self._before - {_SINGLE, _INDEX})])
        if self.files != self._plain:
            _rename(self._folder, self._shards, self.files, self._plain, self._index)

    def abort(self) -> None:
        """Removes what was written; a single file is there whole, or as it was before."""
        if not self._is_single:
            _remove(self._folder, self.files)

    def _clear(self, files: Iterable[str]) -> None:
        _remove(self._folder, files)
        _remove_dead(self._folder)


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


def remove_rank_shards(folder: Path, keep: Iterable[str] = ()) -> None:
    """Removes what the ranks wrote of their own, of other checkpoints than the one whose files are kept."""
    shards = [name for name in os.listdir(folder) if RANK_SHARD.fullmatch(name)]  # noqa: PTH208 (names, not paths)
    _remove(folder, set(shards) - set(keep))


def remove_whole(folder: Path) -> None:
    """Removes a checkpoint of whole tensors, so that what the ranks wrote of their own is the one there is."""
    # An index beside a single file is not what anybody reads, and goes first; on its own it ends its checkpoint.
    _remove(folder, [_INDEX, _SINGLE])
    _remove(folder, _files_of_checkpoint(folder))
    _remove_dead(folder)


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
