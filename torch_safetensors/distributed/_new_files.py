"""The files of a save that the ranks write together, as the first rank makes and ends them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from .._arguments import PathLike, operator_filename, operator_tensors
from .._checkpoint_files import Index, Replacement, locked
from .._errors import translate, translated

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
        self._replacement: Replacement | None = None
        self._fsync = fsync
        with contextlib.ExitStack() as stack:
            paths: list[PathLike] = [path]
            if folder_texts is not None:
                paths = self._begin_folder(
                    stack, Path(os.fsdecode(path)), [tensors for tensors, _ in shards], folder_texts
                )
            self._files = [self._make(stack, path, *shard) for path, shard in zip(paths, shards, strict=True)]
            #: By shard.
            self.places: list[Place] = [
                (operator_filename(path), file.temporary()) for path, file in zip(paths, self._files, strict=True)
            ]
            self._end = stack.pop_all()

    def _begin_folder(
        self, stack: contextlib.ExitStack, folder: Path, shards: list[dict[str, torch.Tensor]], texts: Mapping[str, str]
    ) -> list[PathLike]:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(folder))
        total_size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        self._replacement = Replacement(
            folder, [list(shard) for shard in shards], Index(texts, total_size, self._fsync)
        )
        return [folder / file for file in self._replacement.files]

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

    def commit(self) -> list[str]:
        """Gives the files their names. Returns what to warn of. Raises OSError, with the old files as they were."""
        with self._end:
            try:
                warnings = self._commit_files()
            except BaseException:
                if self._replacement is not None:
                    self._replacement.abort()
                raise
            if self._replacement is not None:
                self._replacement.finish()
        return list(filter(None, warnings))

    def _commit_files(self) -> list[str]:
        try:
            return [file.commit() for file in self._files]
        except RuntimeError as error:
            raise translate(error, self._path) from None

    def abort(self) -> None:
        """Removes the temporary files. Nothing where they were committed."""
        self._end.close()
