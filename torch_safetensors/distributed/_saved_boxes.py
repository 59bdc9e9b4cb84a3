"""Which parts of which tensors the files of a checkpoint hold, as ``torch.distributed.checkpoint`` wants to know it."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from .._arguments import PathLike, split_names
from .._checkpoint_files import RANK_SHARD
from .._errors import SafetensorError, printable, translated
from ._boxes import LocalBox, open_checkpoint
from ._deal import is_tiled

__all__ = ["ATTEMPTS", "SAVE_ID", "SHARDING_INFO", "Saved", "Sources", "open_saved", "replaced"]

#: So often a checkpoint is opened that is replaced meanwhile.
ATTEMPTS = 100
#: So many files stay open.
_KEPT = 32

#: The metadata of a file in which torch.distributed.checkpoint keeps where in the whole tensors those of it begin.
SHARDING_INFO = "DCP_SHARDING_INFO"
#: That of a rank's shard in which our writer keeps which save it is of: the shards take their names one by one.
SAVE_ID = "torch_safetensors.save_id"
_INDEX = re.compile(r".*\.safetensors\.index\.json")


def replaced(path: PathLike) -> OSError:
    """What to raise where no version of a checkpoint stays long enough to be opened."""
    text = f"another save replaced the checkpoint each of the {ATTEMPTS} times it was opened"
    return OSError(errno.ESTALE, f"{text}; load it while nobody saves to it", os.fspath(path))


class Saved(NamedTuple):
    """A part of a tensor, and the file or index to open for it."""

    source: str
    #: There. That which is asked for may be another, tied to it.
    name: str
    dtype: torch.dtype
    box: LocalBox

    @property
    def nbytes(self) -> int:
        return math.prod(self.box.shape) * self.dtype.itemsize


class Sources:
    """The files of a checkpoint, each of the version that it had when it was first opened.

    What is opened here stays open; but not very many files, of which others are opened again.
    """

    def __init__(self, path: PathLike) -> None:
        self._path = os.fsdecode(path)
        self.names = _sources(self._path)
        self._versions: dict[str, list[int]] = {}
        self._kept: dict[str, Any] = {}

    def open(self, source: str) -> Any:
        """A ``torch.classes.safetensors.SafeOpen``. Raises OSError also for a file that was replaced."""
        if source in self._kept:
            return self._kept[source]
        handle = open_checkpoint(source)
        version = handle._version()
        if self._versions.setdefault(source, version) != version:
            raise OSError(errno.ESTALE, "the file was replaced since it was opened; load it again", source)
        if len(self._kept) < _KEPT:
            self._kept[source] = handle
        return handle

    def is_current(self) -> bool:
        """Whether all of it is still the checkpoint, unchanged."""
        try:
            return _sources(self._path) == self.names and all(map(self._is_one_current, self.names))
        except OSError:
            return False

    def _is_one_current(self, source: str) -> bool:
        return bool(self.open(source)._is_current())


class _Tensors(dict[str, Any]):
    """What is known of tensors by name, also under names that are not listed, but stand for tensors that are."""

    def __init__(self, tensors: Mapping[str, Any], ties: Mapping[str, str]) -> None:
        super().__init__(tensors)
        self._ties = ties

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._ties

    def __missing__(self, name: str) -> Any:
        return self[self._ties[name]]

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name) or super().get(self._ties.get(name, name), default)


def open_saved(path: PathLike) -> tuple[Sources, Metadata]:
    """Opens a checkpoint, and gives what it holds; begins again where its files are replaced meanwhile.

    The ``storage_data`` has a :class:`Saved` for each part, in the order of the files. Names that ``save_model`` did
    not write, since they were tied to others, are found but not listed: they need not stand for the whole of the
    tensor that was written.

    Raises:
        OSError: what the operating system reports; no checkpoint in a directory.
        SafetensorError: malformed files, parts of a tensor that overlap, or leave gaps; shards of different saves.
    """
    for attempt in range(1, ATTEMPTS + 1):
        sources = Sources(path)
        try:
            metadata = _read_saved_boxes(sources)
        except (OSError, SafetensorError):
            if attempt == ATTEMPTS or sources.is_current():
                raise
        else:
            # A file, or what has an index, is of one save already; files side by side need not be.
            if sources.names == [os.fsdecode(path)] or sources.is_current():
                return sources, metadata
    raise replaced(path)


def _read_saved_boxes(sources: Sources) -> Metadata:
    saved: dict[str, list[Saved]] = {}
    saves: dict[str | None, str] = {}
    ties: dict[str, set[str]] = {}
    for source in sources.names:
        handle = sources.open(source)
        with translated(source):
            handle._require_whole(True)
        texts: dict[str, str] = handle.metadata()
        saves.setdefault(texts.get(SAVE_ID), source)
        names = set()
        for name, part in _parts_of(source, handle, texts):
            saved.setdefault(name, []).append(part)
            names.add(name)
        for name, kept in texts.items():
            if kept in names and name != "format":  # which is of all files
                ties.setdefault(name, set()).add(kept)
    if len(saves) > 1:
        one, other, *_ = map(printable, saves.values())
        raise SafetensorError(f"{other}: not of the same save as {one}: was a save killed as it put files in place?")
    tensors: dict[str, Any] = {}
    places: dict[MetadataIndex, Saved] = {}
    for name, parts in saved.items():
        tensors[name] = _whole(name, parts)
        places |= {MetadataIndex(name, part.box.offsets): part for part in _filled(parts)}
    kept_of = {name: kept for name, (kept, *more) in ties.items() if name not in saved and not more}
    for name, kept in kept_of.items():
        places |= {MetadataIndex(name, part.box.offsets): part for part in _filled(saved[kept])}
    return Metadata(_Tensors(tensors, kept_of), storage_data=places)


def _sources(path: str) -> list[str]:
    """What to open.

    That is a file, an index or a directory with either; or all files of one, or the ranks' shards where there are any.
    """
    if not os.path.isdir(path):  # noqa: PTH112 (a Path would take "./" away)
        return [path]
    names = sorted(name for name in os.listdir(path) if isinstance(name, str))  # noqa: PTH208
    if "model.safetensors" in names or any(map(_INDEX.fullmatch, names)):
        return [path]
    files = [name for name in names if name.endswith(".safetensors")]
    shards = [name for name in files if RANK_SHARD.fullmatch(name)]
    return [os.path.join(path, name) for name in shards or files] or [path]  # noqa: PTH118


def _parts_of(source: str, handle: Any, texts: Mapping[str, str]) -> Iterator[tuple[str, Saved]]:
    with translated(source):
        info = _sharding_info(source, texts) if not _is_folder_or_index(source) else None
        for name in split_names(*handle._keys()):
            tensor = handle._get_meta(name)
            shape = tuple(tensor.shape)
            offsets = (0,) * len(shape) if info is None else _offsets(source, name, len(shape), info)
            yield name, Saved(source, name, tensor.dtype, LocalBox(offsets, shape))


def _is_folder_or_index(source: str) -> bool:
    """Where tensors are whole, whatever their files say: an index has no room for parts."""
    return source.endswith(".json") or os.path.isdir(source)  # noqa: PTH112


def _sharding_info(source: str, metadata: Mapping[str, str]) -> Mapping[str, Any] | None:
    text = metadata.get(SHARDING_INFO)
    if text is None:
        return None
    try:
        info = json.loads(text)
    except ValueError as error:
        raise SafetensorError(f"{printable(source)}: metadata {SHARDING_INFO!r}: not JSON: {error}") from None
    if not isinstance(info, dict):
        raise SafetensorError(f"{printable(source)}: metadata {SHARDING_INFO!r}: not an object")
    return info


def _offsets(source: str, name: str, ndim: int, info: Mapping[str, Any]) -> tuple[int, ...]:
    entry = info.get(name)
    offsets = entry.get("saved_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != ndim
        or not all(type(offset) is int and 0 <= offset < 1 << 63 for offset in offsets)
    ):
        raise SafetensorError(
            f"{printable(source)}: tensor {name!r}: metadata {SHARDING_INFO!r} has {entry!r}, not the {ndim} offsets "
            "of its part"
        )
    return tuple(offsets)


def _filled(parts: list[Saved]) -> list[Saved]:
    """Those that have elements; or one, of a tensor that has none."""
    return [part for part in parts if math.prod(part.box.shape)] or parts[:1]


def _whole(name: str, parts: list[Saved]) -> TensorStorageMetadata:
    """The tensor that the parts make up."""
    first = parts[0]
    for part in parts:
        if (part.dtype, len(part.box.shape)) != (first.dtype, len(first.box.shape)):
            raise SafetensorError(
                f"{printable(part.source)}: tensor {name!r}: {part.dtype} of {len(part.box.shape)} dimensions, but "
                f"{first.dtype} of {len(first.box.shape)} in {printable(first.source)}"
            )
    # The same as torch's own reader takes: files do not have the sizes of whole tensors.
    ends = [[offset + size for offset, size in zip(*part.box, strict=True)] for part in parts]
    size = [max(end) for end in zip(*ends, strict=True)]
    filled = _filled(parts)
    if len(parts) > 1 or any(first.box.offsets):
        _check_tiled(name, size, filled)
    chunks = [ChunkStorageMetadata(torch.Size(part.box.offsets), torch.Size(part.box.shape)) for part in filled]
    return TensorStorageMetadata(TensorProperties(dtype=first.dtype), torch.Size(size), chunks)


def _check_tiled(name: str, size: list[int], parts: list[Saved]) -> None:
    boxes = {part.box for part in parts if math.prod(part.box.shape)}
    if len(boxes) == len(parts) and is_tiled(size, boxes):  # which is soon said, and true of all meshes
        return
    for number, part in enumerate(parts):
        for other in parts[:number]:
            if _overlap(part.box, other.box):
                raise SafetensorError(
                    f"{printable(part.source)}: tensor {name!r}: its {_text(part.box)} overlap the {_text(other.box)} "
                    f"in {printable(other.source)}; is a file left of another checkpoint?"
                )
    held = sum(math.prod(part.box.shape) for part in parts)
    if held != math.prod(size):
        raise SafetensorError(
            f"{printable(parts[0].source)}: tensor {name!r}: this file and {len(parts) - 1} more hold {held} of the "
            f"{math.prod(size)} elements of its shape {size}; is a file missing?"
        )


def _overlap(one: LocalBox, other: LocalBox) -> bool:
    return all(
        begin < other_begin + other_size and other_begin < begin + size
        for begin, size, other_begin, other_size in zip(*one, *other, strict=True)
    )


def _text(box: LocalBox) -> str:
    return f"elements at {list(box.offsets)} of shape {list(box.shape)}"
