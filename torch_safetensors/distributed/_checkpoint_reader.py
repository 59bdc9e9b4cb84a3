"""Reads checkpoints for ``torch.distributed.checkpoint``."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from .._arguments import PathLike, operator_filename
from .._errors import printable, translated
from ._boxes import Read, open_checkpoint, read_boxes
from ._saved_boxes import read_saved_boxes

__all__ = ["SafetensorsReader"]

#: So much is read together: what the planner or a conversion needs memory for does not grow with the file.
_BATCH = 1 << 30


class SafetensorsReader(StorageReader):
    """Reads safetensors files with ``torch.distributed.checkpoint.load``, each rank the bytes of its own parts.

    It takes what :class:`SafetensorsWriter`, :func:`save_model` and :func:`torch_safetensors.save_sharded` write, what
    Hugging Face libraries do, and what torch's own ``HuggingFaceStorageWriter`` and ``consolidate_safetensors_files``
    do, of any number of ranks and any mesh:

    >>> state = model.state_dict()
    >>> torch.distributed.checkpoint.load(state, storage_reader=SafetensorsReader("checkpoint"))
    >>> model.load_state_dict(state)

    All parts that a rank wants of a file are read in one call, by several threads, straight into its tensors; those of
    another dtype than the file's are converted, as ``copy_`` would.

    Args:
        path: a file, an index or a directory. Of a directory ``model.safetensors`` is read, without it the files of its
            index; without either all ``*.safetensors``, or only the ranks' shards where there are some.

    Its methods are called by torch. They raise OSError and :class:`torch_safetensors.SafetensorError`, which arrive
    within torch's ``CheckpointException``, on all ranks.
    """

    def __init__(self, path: PathLike) -> None:
        super().__init__()
        operator_filename(path)  # raises what it is not
        self.path = path
        self._load_id = str(uuid.uuid4())
        self._sources: dict[Any, str] = {}

    @property
    def checkpoint_id(self) -> PathLike:
        """The path."""
        return self.path

    def reset(self, checkpoint_id: PathLike | None = None) -> None:
        """Makes it read another checkpoint, or the same again."""
        if checkpoint_id:
            self.path = checkpoint_id
        self._load_id = str(uuid.uuid4())
        self._sources = {}

    def read_metadata(self) -> Metadata:
        """What the headers of the files say."""
        metadata = read_saved_boxes(self.path)
        metadata.storage_meta = StorageMeta(checkpoint_id=self.path, load_id=self._load_id)
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Takes note of where everything is."""
        self._sources = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Raises ValueError for what is no tensor."""
        names = sorted({item.storage_index.fqn for item in plan.items if item.type == LoadItemType.BYTE_IO})
        if names:
            raise ValueError(
                f"{printable(self.path)}: {', '.join(map(repr, names))}: wanted as bytes, but safetensors files hold "
                "tensors only"
            )
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Leaves the plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads what the plan has into the planner's tensors."""
        by_source: dict[str, list[ReadItem]] = {}
        for item in self.prepare_local_plan(plan).items:
            by_source.setdefault(self._sources[item.storage_index], []).append(item)
        for source, items in by_source.items():
            handle = open_checkpoint(source)
            for batch in _batches(items, planner, source):
                with translated(source):
                    read_boxes(
                        handle, [Read(item.storage_index.fqn, tuple(item.storage_offsets), out) for item, out in batch]
                    )
                for item, out in batch:
                    planner.commit_tensor(item, out)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is a path, and no URL."""
        return "://" not in os.fsdecode(checkpoint_id)


def _batches(items: list[ReadItem], planner: LoadPlanner, source: str) -> Iterator[list[tuple[ReadItem, torch.Tensor]]]:
    """The items with the tensors that the planner wants them in."""
    batch: list[tuple[ReadItem, torch.Tensor]] = []
    nbytes = 0
    for item in items:
        out = planner.resolve_tensor(item).detach()
        if out.shape != item.lengths:
            raise ValueError(
                f"{printable(source)}: tensor {item.storage_index.fqn!r}: the planner gave a tensor of shape "
                f"{list(out.shape)} for a part of shape {list(item.lengths)}"
            )
        batch.append((item, out))
        nbytes += out.nbytes
        if nbytes >= _BATCH:
            yield batch
            batch, nbytes = [], 0
    if batch:
        yield batch
