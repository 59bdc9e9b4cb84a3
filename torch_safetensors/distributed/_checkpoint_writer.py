"""Writes checkpoints for ``torch.distributed.checkpoint``."""

from __future__ import annotations

import math
import os
import uuid
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from .._arguments import PathLike, operator_filename, operator_metadata
from .._checkpoint_files import locked, make_folder, remove_rank_shards, remove_whole
from .._errors import printable
from .._memory import check_initialized
from .._options import check_flags
from .._sharded import parse_size
from ._carried import portable_errors
from ._new_files import NewFiles, Place, write_ranges
from ._save_plan import check_tensors, files_of_ranks, whole_files, write_data_of

__all__ = ["SafetensorsWriter"]

#: So much is written together: what the planner or a copy needs memory for does not grow with the file.
_BATCH = 1 << 30

#: By name of a tensor, where it is written.
Places: TypeAlias = "dict[str, Place]"


class _Save:
    """The files of a save, between its plan and its end. Dropped, it gives them up."""

    def __init__(self, folder: Path, files: list[NewFiles], shards: list[str] | None, fsync: bool) -> None:
        self._folder = folder
        self._files = files
        self._shards = shards
        self._fsync = fsync

    def commit(self) -> list[str]:
        """Makes the new files the checkpoint. Returns what to warn of."""
        with locked(self._folder):
            said = [warning for file in self._files for warning in file.commit()]
            remove_rank_shards(self._folder, self._shards or (), fsync=self._fsync)
            if self._shards is not None:
                remove_whole(self._folder, fsync=self._fsync)
        return said

    def abort(self) -> None:
        for file in self._files:
            file.abort()


#: Saves of this process by folder: torch does not tell a writer that a save failed elsewhere, and who still has the
#: exception has the writer. The next save to the same folder ends it.
_saves: weakref.WeakValueDictionary[str, _Save] = weakref.WeakValueDictionary()


class SafetensorsWriter(StorageWriter):
    """Writes safetensors files with ``torch.distributed.checkpoint.save`` and ``async_save``.

    By default the files hold whole tensors, as Hugging Face libraries read them: every rank writes its own parts to
    their places, and nothing has to be consolidated or gathered.

    >>> torch.distributed.checkpoint.save(model.state_dict(), storage_writer=SafetensorsWriter("checkpoint"))

    Until all ranks have written everything, the directory holds the checkpoint before, untouched; then the new one
    takes its place, as with :func:`torch_safetensors.save_sharded`. The path has to lead all ranks to the same file
    system.

    Args:
        path: a directory, made if it does not exist.
        fqn_to_index_mapping: by name of a tensor, the number of its file, from 1; see ``HuggingFaceStorageWriter``.
        save_distributed: every rank writes a file of its own, ``shard-00001-model-00001-of-00001.safetensors`` and so
            on, as ``HuggingFaceStorageWriter(save_distributed=True)`` does, for ``consolidate_safetensors_files``.
            They, too, take the place of all that is the checkpoint before, in whatever form.
        max_shard_size: begins a new file where the next tensor would not fit, see
            :func:`torch_safetensors.save_sharded`; None for one file, ``model.safetensors``.
        metadata: text to go into every file, beside ``"format": "pt"``.
        fsync: what was saved is on the disk when the save ends.

    Raises:
        TypeError, ValueError: arguments that are none of these, or contradict each other.

    Its methods are called by torch. What they raise arrives within torch's ``CheckpointException`` on all ranks:
    ValueError for values that are not tensors, before anything is written, and for what
    :func:`torch_safetensors.save_file` refuses; OSError for what the operating system reports.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        fqn_to_index_mapping: Mapping[str, int] | None = None,
        save_distributed: bool = False,
        max_shard_size: int | str | None = None,
        metadata: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> None:
        super().__init__()
        operator_filename(path)  # raises what it is not
        check_flags(save_distributed=save_distributed, fsync=fsync)
        if max_shard_size is not None and (fqn_to_index_mapping is not None or save_distributed):
            raise ValueError(
                "max_shard_size: not with fqn_to_index_mapping or save_distributed, which say what goes where"
            )
        for name, index in (fqn_to_index_mapping or {}).items():
            if type(index) is not int or not 1 <= index < 100_000:
                raise ValueError(f"fqn_to_index_mapping: {name!r}: {index!r} is not a number from 1 to 99999")
        self.path = path
        self._indices = None if fqn_to_index_mapping is None else dict(fqn_to_index_mapping)
        self._is_distributed = save_distributed
        self._limit = None if max_shard_size is None else parse_size(max_shard_size)
        self._texts = operator_metadata(metadata) or {}
        self._fsync = fsync
        self._save_id = str(uuid.uuid4())
        self._save: _Save | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For the process that saves in the background: what is open here is not for it."""
        return {**self.__dict__, "_save": None}

    @property
    def checkpoint_id(self) -> PathLike:
        """The path."""
        return self.path

    def reset(self, checkpoint_id: PathLike | None = None) -> None:
        """Makes it write another checkpoint, or the same again."""
        self._give_up()
        if checkpoint_id:
            self.path = checkpoint_id
        self._save_id = str(uuid.uuid4())

    def storage_meta(self) -> StorageMeta:
        """Which checkpoint this is."""
        return StorageMeta(checkpoint_id=self.path, save_id=self._save_id)

    @portable_errors
    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError where ranks would save without one that makes the files."""
        self._give_up()
        if not kwargs.get("use_collectives", True):
            raise ValueError(f"{printable(self.path)}: use_collectives=False: ranks have to agree about the files")

    @portable_errors
    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Raises ValueError for what is no tensor."""
        check_tensors(printable(self.path), plan)
        return plan

    @portable_errors
    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Makes the files, under temporary names, and tells every rank where to write what."""
        if not all(plan.usable for plan in plans):
            raise ValueError(
                f"{printable(self.path)}: a planner with enable_plan_caching leaves no room to say where to write; use "
                "one without"
            )
        folder = Path(os.fsdecode(self.path))
        make_folder(folder, self._fsync)
        key = os.path.realpath(folder)
        if (left := _saves.pop(key, None)) is not None:
            left.abort()
        self._save, places = (self._begin_shards if self._is_distributed else self._begin_whole)(folder, plans)
        _saves[key] = self._save
        return [replace(plan, storage_data=of_rank) for plan, of_rank in zip(plans, places, strict=True)]

    def _begin_whole(self, folder: Path, plans: list[SavePlan]) -> tuple[_Save, list[Places]]:
        files = whole_files(printable(self.path), plans, self._texts, self._indices, self._limit)
        new = NewFiles(
            folder, [(file.types, file.texts) for file in files], {"format": "pt", **self._texts}, self._fsync
        )
        place_of = {name: place for file, place in zip(files, new.places, strict=True) for name in file.types}
        names = [{item.index.fqn for item in plan.items} for plan in plans]
        return _Save(folder, [new], None, self._fsync), [
            {name: place_of[name] for name in of_rank} for of_rank in names
        ]

    def _begin_shards(self, folder: Path, plans: list[SavePlan]) -> tuple[_Save, list[Places]]:
        ranks = files_of_ranks(printable(self.path), plans, self._texts, self._indices, self._save_id)
        save = _Save(folder, [], [file.name for files in ranks for file in files.values()], self._fsync)
        places: list[Places] = []
        for files in ranks:
            of_rank: Places = {}
            for file in files.values():
                new = NewFiles(folder / file.name, [(file.types, file.texts)], None, self._fsync)
                save._files.append(new)
                of_rank |= dict.fromkeys(file.types, new.places[0])
            places.append(of_rank)
        return save, places

    @portable_errors
    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes what the plan has to its places."""
        by_place: dict[Place, list[WriteItem]] = {}
        for item in plan.items:
            by_place.setdefault(plan.storage_data[item.index.fqn], []).append(item)
        try:
            for place, items in by_place.items():
                self._write(place, items, planner)
        except BaseException:
            self._give_up()
            raise
        done: Future[list[WriteResult]] = Future()
        done.set_result([_result(item, plan.storage_data) for item in plan.items])
        return done

    def _write(self, place: Place, items: list[WriteItem], planner: SavePlanner) -> None:
        batch: list[WriteItem] = []
        tensors: list[torch.Tensor] = []
        nbytes = 0
        for item in items:
            tensor = planner.resolve_data(item)
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{place[0]}: tensor {item.index.fqn!r}: the planner gave {type(tensor).__name__}")
            check_initialized(item.index.fqn, tensor)
            if tensor.numel() == 0:
                continue
            batch.append(item)
            tensors.append(tensor.detach())
            nbytes += tensor.nbytes
            if nbytes >= _BATCH:
                self._write_batch(place, batch, tensors)
                batch, tensors, nbytes = [], [], 0
        if batch:
            self._write_batch(place, batch, tensors)

    def _write_batch(self, place: Place, items: list[WriteItem], tensors: list[torch.Tensor]) -> None:
        names = [item.index.fqn for item in items]
        chunks = [write_data_of(item).chunk for item in items]
        offsets = [[0] * len(chunk.offsets) if self._is_distributed else list(chunk.offsets) for chunk in chunks]
        write_ranges(place, names, tensors, offsets, self.path, self._fsync)

    @portable_errors
    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Puts the files under their names, in place of the checkpoint before."""
        save, self._save = self._save, None
        if save is None:
            raise ValueError(f"{printable(self.path)}: the save was given up before it was finished")
        try:
            said = save.commit()
        finally:
            save.abort()
        for warning in said:
            warnings.warn(warning, stacklevel=2)

    def _give_up(self) -> None:
        if self._save is not None:
            self._save.abort()
            self._save = None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is a path, and no URL."""
        return "://" not in os.fsdecode(checkpoint_id)


def _result(item: WriteItem, places: Places) -> WriteResult:
    data = write_data_of(item)
    nbytes = math.prod(data.chunk.sizes) * data.properties.dtype.itemsize
    return WriteResult(item.index, nbytes, places[item.index.fqn][0])
