"""Reads checkpoints for ``torch.distributed.checkpoint``."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from .._arguments import PathLike, operator_filename
from .._errors import printable, translated
from .._memory import check_memory
from .._models import memory_of
from ._boxes import LocalBox, Read, read_boxes, whole_box
from ._carried import portable_errors
from ._cost import Hardware, choose
from ._group import device_of, together, together_after, world
from ._interrupts import signals_heard, signals_held
from ._load import Strategy, check_strategy, log
from ._saved_boxes import ATTEMPTS, Saved, Sources, open_saved, replaced
from ._share import Shared, read_shared
from ._wanted import wanted

__all__ = ["SafetensorsReader"]

#: Of so much tensors are held at once that the planner or a conversion makes.
_BATCH = 1 << 30


class _Common(NamedTuple):
    """What all plans have in common."""

    #: Whether the ranks that load are those of the reader's process group.
    is_group: bool
    #: Saved parts that they read together, by index.
    shared: list[Any]


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
        strategy: ``"independent"``: each rank reads what it wants. ``"broadcast"``: what several ranks want is read by
            one of them and passed on, so that the storage gives every byte once. ``"auto"``: see :func:`load_file`.
        process_group: of the ranks that load, where ``torch.distributed.checkpoint.load`` is given one.

    Raises:
        TypeError, ValueError: arguments that are none of these.

    Its methods are called by torch. They raise OSError and :class:`torch_safetensors.SafetensorError`, which arrive
    within torch's ``CheckpointException``, on all ranks.
    """

    def __init__(
        self, path: PathLike, *, strategy: Strategy = "auto", process_group: dist.ProcessGroup | None = None
    ) -> None:
        super().__init__()
        operator_filename(path)  # raises what it is not
        check_strategy(strategy)
        self.path = path
        self._strategy = strategy
        self._process_group = process_group
        self._load_id = str(uuid.uuid4())
        self._saved: dict[Any, Saved] = {}
        self._sources: Sources | None = None

    @property
    def checkpoint_id(self) -> PathLike:
        """The path."""
        return self.path

    def reset(self, checkpoint_id: PathLike | None = None) -> None:
        """Makes it read another checkpoint, or the same again."""
        if checkpoint_id:
            self.path = checkpoint_id
        self._load_id = str(uuid.uuid4())
        self._saved = {}
        self._sources = None

    @portable_errors
    def read_metadata(self) -> Metadata:
        """What the headers of the files say."""
        try:
            self._sources, metadata = open_saved(self.path)
        except Exception as error:
            log.warning("%s", error)  # torch 2.11 keeps it to itself
            raise
        metadata.storage_meta = StorageMeta(checkpoint_id=self.path, load_id=self._load_id)
        return metadata

    @portable_errors
    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Takes note of where everything is."""
        self._saved = metadata.storage_data

    @portable_errors
    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Says on which machine this rank is. Raises ValueError for what is no tensor."""
        self._check_tensors(plan)
        return replace(plan, storage_data=socket.gethostname())

    @portable_errors
    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Says what the ranks read together."""
        source = printable(self.path)
        ranks = 1 if len(plans) == 1 else (self._process_group or world()).size()
        if ranks != len(plans) and self._strategy == "broadcast":
            raise ValueError(f"{source}: {len(plans)} ranks load it, and {ranks} are in the reader's process_group")
        is_group = 1 < ranks == len(plans)
        work = _Common(is_group, self._shared(plans) if is_group else [])
        return [replace(plan, storage_data=work) for plan in plans]

    def _shared(self, plans: list[LoadPlan]) -> list[Any]:
        source = printable(self.path)
        if self._strategy == "independent":
            return []
        work, shared = wanted(self._saved, plans, len({plan.storage_data for plan in plans}))
        if self._strategy == "auto":
            choice = choose(work, Hardware.from_environment())
            log.info("%s: %s", source, choice.reason)
            if choice.strategy == "independent":
                return []
        return shared

    @portable_errors
    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads what the plan has into the planner's tensors."""
        self._check_tensors(plan)
        common: _Common = plan.storage_data or _Common(False, [])
        group = (self._process_group or world()) if common.is_group else None
        # A rank that was interrupted between two exchanges would be missed in the next.
        with signals_held() if group is not None else contextlib.nullcontext():
            if group is not None:
                self._agree(group)
            sources = self._opened()
            shared: dict[Saved, list[ReadItem]] = {self._saved[index]: [] for index in common.shared}
            alone: dict[Saved, list[ReadItem]] = {}
            for item in plan.items:
                part = self._saved[item.storage_index]
                (shared if part in shared else alone).setdefault(part, []).append(item)
            if group is not None and shared:
                # One after the other: a rank that fails in the first must not be missed in those after it.
                together(group, printable(self.path), "reading", lambda: _read_alone(sources, alone, planner))
                for batch in _batches({part: part.nbytes for part in shared}):
                    _read_together(sources, batch, shared, planner, group)
            else:
                with signals_heard():
                    _read_alone(sources, alone, planner)
        self._sources = None  # closes the files
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _opened(self) -> Sources:
        if self._sources is None:  # the metadata is of another reader
            self._sources = Sources(self.path)
        return self._sources

    def _agree(self, group: dist.ProcessGroup) -> None:
        """Makes sure that all ranks read one version of the checkpoint: see :func:`open_together`."""
        source = printable(self.path)
        for _ in range(ATTEMPTS):
            if all(together(group, source, "opening it", lambda: self._opened().is_current())):
                return
            together(group, source, "opening it", self._open_again)
        raise replaced(self.path)

    def _open_again(self) -> None:
        """Opens what has taken the place of the checkpoint. Raises OSError unless the plans fit it, too."""
        self._sources, metadata = open_saved(self.path)
        if metadata.storage_data != self._saved:
            text = "a checkpoint with other tensors took the place of this one while it was loaded; load it again"
            raise OSError(errno.ESTALE, text, os.fspath(self.path))

    def _check_tensors(self, plan: LoadPlan) -> None:
        names = sorted({item.storage_index.fqn for item in plan.items if item.type == LoadItemType.BYTE_IO})
        if names:
            raise ValueError(
                f"{printable(self.path)}: {', '.join(map(repr, names))}: wanted as bytes, but safetensors files hold "
                "tensors only"
            )

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is a path, and no URL."""
        return "://" not in os.fsdecode(checkpoint_id)


def _read_alone(sources: Sources, wanted: Mapping[Saved, list[ReadItem]], planner: LoadPlanner) -> None:
    for batch in _batches({part: sum(_nbytes(part, item) for item in items) for part, items in wanted.items()}):
        source = batch[0].source
        handle = sources.open(source)
        places = [place for part in batch for place in _places(part, wanted[part], planner)]
        with translated(source):
            read_boxes(
                handle,
                [Read(part.name, tuple(item.storage_offsets), out) for part, item, out, is_first in places if is_first],
            )
        for _, item, out, _ in places:
            planner.commit_tensor(item, out)


def _read_together(
    sources: Sources,
    batch: list[Saved],
    wanted: Mapping[Saved, list[ReadItem]],
    planner: LoadPlanner,
    group: dist.ProcessGroup,
) -> None:
    source = batch[0].source
    places: list[_Place] = []
    tensors: list[Shared] = []
    handles: list[Any] = []

    def plan() -> None:
        handles.append(sources.open(source))
        for part in batch:
            of_part = _places(part, wanted[part], planner)
            places.extend(of_part)
            boxes = [
                (LocalBox(tuple(item.storage_offsets), tuple(item.lengths)), out)
                for _, item, out, is_first in of_part
                if is_first
            ]
            tensors.append(Shared(part.name, whole_box(part.box.shape), part.dtype, boxes))

    together(group, printable(source), "planning", plan)

    def read() -> None:
        with translated(source):
            read_shared(handles[0], printable(source), tensors, group, device_of(group))
        for _, item, out, _ in places:
            planner.commit_tensor(item, out)

    together_after(group, printable(source), "reading", read)


def _nbytes(part: Saved, item: ReadItem) -> int:
    return math.prod(item.lengths) * part.dtype.itemsize


def _batches(nbytes_of: Mapping[Saved, int]) -> Iterator[list[Saved]]:
    """Saved parts of one file, and not too many bytes of them."""
    batch: list[Saved] = []
    nbytes = 0
    for part in sorted(nbytes_of, key=lambda part: part.source):
        if batch and (nbytes >= _BATCH or part.source != batch[0].source):
            yield batch
            batch, nbytes = [], 0
        batch.append(part)
        nbytes += nbytes_of[part]
    if batch:
        yield batch


class _Place(NamedTuple):
    """Where the planner wants an item of a saved part."""

    part: Saved
    item: ReadItem
    out: torch.Tensor
    #: False where it is the memory of one before it, which is filled then.
    is_first: bool


def _places(part: Saved, items: list[ReadItem], planner: LoadPlanner) -> list[_Place]:
    """Where a saved part is wanted.

    Raises:
        ValueError: a name that was tied to that of the part, in memory of its own, where it may have been something
            else than the part: only the shape and the dtype of the part prove that it was the same.
    """
    places: list[_Place] = []
    filled: set[tuple[Any, ...]] = set()
    has_ties = any(item.storage_index.fqn != part.name for item in items)
    for item in sorted(items, key=lambda item: item.storage_index.fqn != part.name):
        out = _resolve(item, planner, part.source)
        memory = (tuple(item.storage_offsets), *memory_of(out)) if has_ties else (len(places),)
        is_first = memory not in filled
        filled.add(memory)
        if is_first and item.storage_index.fqn != part.name and out.dtype != part.dtype:
            raise ValueError(
                f"{printable(part.source)}: tensor {item.storage_index.fqn!r} is not in the file, which records only "
                f"that it shared memory with {part.name!r}, of {part.dtype}: load it as {part.dtype}, not {out.dtype}, "
                "or tie it to that tensor before you load"
            )
        places.append(_Place(part, item, out, is_first))
    return places


def _resolve(item: ReadItem, planner: LoadPlanner, source: str) -> torch.Tensor:
    """The tensor that the planner wants an item in."""
    out = planner.resolve_tensor(item).detach()
    if out.shape != item.lengths:
        raise ValueError(
            f"{printable(source)}: tensor {item.storage_index.fqn!r}: the planner gave a tensor of shape "
            f"{list(out.shape)} for a part of shape {list(item.lengths)}"
        )
    check_memory({item.storage_index.fqn: out}, printable(source))
    return out
