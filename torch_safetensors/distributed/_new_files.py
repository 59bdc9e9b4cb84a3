"""The files of a save that the ranks write together, as the first rank makes and ends them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from .._arguments import PathLike, operator_filename, operator_tensors
from .._checkpoint_files import Index, Replacement, locked, make_folder
from .._errors import translated

__all__ = ["NewFiles", "Place", "write_ranges"]

_ops = torch.ops.safetensors

#: A file to be, and the temporary one that is written to until then, as operators take them.
Place: TypeAlias = "tuple[str, str]"


def write_ranges(
    place: Place,
    names: list[str],
    parts: list[torch.Tensor],
    offsets: list[list[int]],
    path: PathLike,
    fsync: bool,
) -> None:
    """Writes parts of tensors, which begin at these offsets, to their places. ``path`` is what was to be saved."""
    filename, temporary = place
    sizes = [len(name.encode()) for name in names]
    with translated(path):
        _ops._write_ranges(temporary, filename, "".join(names), sizes, [parts], offsets, fsync)


class NewFiles:
    """Temporary files with headers and sizes of their own, until they are committed or given up.

    Until then nothing is locked but these files: who waits for other ranks, or was forgotten after a failure that it
    was not told of, keeps nobody from saving to the directory.

    Args:
        path: of the file; with ``folder_texts`` of the directory, which is made if it does not exist.
        shards: what each file holds, tensors on ``meta``, and its metadata. One where ``path`` is a file.
        folder_texts: what the index of a directory says beside the size.
        fsync: what is committed is on the disk.
    """

    def __init__(
        self,
        path: PathLike,
        shards: list[tuple[dict[str, torch.Tensor], dict[str, str] | None]],
        folder_texts: Mapping[str, str] | None,
        fsync: bool,
    ) -> None:
        self._path = path
        self._folder: _Folder | None = None
        self._fsync = fsync
        paths: list[PathLike] = [path]
        if folder_texts is not None:
            self._folder = _Folder(Path(os.fsdecode(path)), [tensors for tensors, _ in shards], folder_texts, fsync)
            paths = self._folder.paths(self._folder.replacement())
        with contextlib.ExitStack() as stack:
            self._files = [self._make(stack, path, *shard) for path, shard in zip(paths, shards, strict=True)]
            #: By shard.
            self.places: list[Place] = [
                (operator_filename(path), file.temporary()) for path, file in zip(paths, self._files, strict=True)
            ]
            self._end = stack.pop_all()

    def _make(
        self,
        stack: contextlib.ExitStack,
        path: PathLike,
        shard: dict[str, torch.Tensor],
        texts: dict[str, str] | None,
    ) -> Any:
        arguments = operator_filename(path), *operator_tensors(shard), texts, self._fsync, 0
        with translated(self._path):
            file = torch.classes.safetensors._RangeFile(*arguments)
        stack.callback(file.abort)
        return file

    def finish(self) -> list[str]:
        """:meth:`commit` with the directory locked."""
        with contextlib.nullcontext() if self._folder is None else locked(self._folder.path):
            return self.commit()

    def commit(self) -> list[str]:
        """Gives the files their names, for who has their directory locked. Returns what to warn of.

        Raises OSError, with the old files as they were; unless it says that the new file is in place.
        """
        with self._end:
            if self._folder is None:
                return self._commit_files([self._path])
            # Other saves may have come in between, and have the names that were free.
            new = self._folder.replacement()
            try:
                warnings = self._commit_files(self._folder.paths(new))
            except BaseException as error:
                new.abort(error)
                raise
            new.finish()
        return warnings

    def _commit_files(self, paths: list[PathLike]) -> list[str]:
        with translated(self._path):
            said = [file.commit(operator_filename(path)) for file, path in zip(self._files, paths, strict=True)]
        return list(filter(None, said))

    def abort(self) -> None:
        """Removes the temporary files. Nothing where they were committed."""
        self._end.close()


class _Folder:
    """The directory of a checkpoint to be; made if it does not exist."""

    def __init__(
        self, path: Path, shards: list[dict[str, torch.Tensor]], texts: Mapping[str, str], fsync: bool
    ) -> None:
        self.path = path
        self._shards = [list(shard) for shard in shards]
        self._index = Index(texts, sum(tensor.nbytes for shard in shards for tensor in shard.values()), fsync)
        make_folder(path, fsync)

    def replacement(self) -> Replacement:
        """The files to be, by what is there now."""
        return Replacement(self.path, self._shards, self._index)

    def paths(self, replacement: Replacement) -> list[PathLike]:
        """Where they are to be."""
        return [self.path / file for file in replacement.files]
