"""Saves what is spread over ranks, each of which writes what it holds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from .._arguments import PathLike, operator_filename
from .._options import check_flags
from ._boxes import LocalBox
from ._content import Content, of_dict, of_model
from ._deal import Held, Work, deal, held, holders_of, is_tiled
from ._group import check_same, source_of, together, world
from ._interrupts import signals_held
from ._new_files import NewFiles, write_ranges

__all__ = ["save_file", "save_model"]


def save_file(
    tensors: Mapping[str, torch.Tensor],
    path: PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    max_shard_size: int | str | None = None,
    fsync: bool = False,
    process_group: dist.ProcessGroup | None = None,
) -> None:
    """Saves a dict of DTensors and plain tensors, without gathering them on any rank.

    All ranks of the group call it, with tensors of the same names. Each writes the parts it holds to their places in
    one file, which is byte for byte what :func:`torch_safetensors.save_file` would make of the whole tensors; what
    several ranks hold is dealt out among them. The path has to lead all of them to the same file system.

    Whatever fails on any rank, all raise the same error, and an existing file stays as it was. Where a rank dies the
    others raise RuntimeError when the process group notices, at the latest after its timeout, which has to be longer
    than the slowest rank writes.

    Args:
        tensors: DTensors of any placements but partial sums; plain tensors, equal on all ranks, any of which writes
            its own. A copy is made of a part that is not contiguous.
        path: of the file; with ``max_shard_size`` of a directory.
        metadata: text to go with them.
        max_shard_size: None for one file; or as for :func:`torch_safetensors.save_sharded`, whose files and index
            result, with the same promises.
        fsync: also make it durable before it appears under its name.
        process_group: the ranks that take part, all those of the tensors' meshes; None for all ranks.

    Raises:
        ValueError: ranks that disagree about what to save or where, partial sums, what
            :func:`torch_safetensors.save_file` refuses.
        OSError: what the operating system reports on any rank.
        RuntimeError: tensors that share memory, or a rank that was lost.
    """
    _save(lambda: of_dict(tensors, metadata, max_shard_size), path, fsync, process_group)


def save_model(
    model: torch.nn.Module,
    path: PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    max_shard_size: int | str | None = None,
    fsync: bool = False,
    process_group: dist.ProcessGroup | None = None,
) -> None:
    """Saves a module that FSDP2's ``fully_shard``, ``parallelize_module`` or both have spread over ranks.

    As :func:`save_file` of its parameters and persistent buffers, without gathering them; the result is byte for byte
    what :func:`torch_safetensors.save_model` would make of the whole model, ties included.

    Args:
        model: any module whose ``state_dict()`` has DTensors and plain tensors.
        path: see :func:`save_file`.
        metadata: see :func:`save_file`.
        max_shard_size: see :func:`save_file`.
        fsync: see :func:`save_file`.
        process_group: see :func:`save_file`.

    Raises:
        ValueError: extra state that is not a tensor, and what :func:`save_file` raises.
        OSError, RuntimeError: as :func:`save_file`.
    """
    _save(lambda: of_model(model, metadata, max_shard_size), path, fsync, process_group)


def _save(prepare: Callable[[], Content], path: PathLike, fsync: bool, process_group: dist.ProcessGroup | None) -> None:
    group = process_group or world()
    with signals_held():
        said = _save_together(prepare, path, fsync, group)
    for warning in said:
        warnings.warn(warning, stacklevel=3)


def _save_together(prepare: Callable[[], Content], path: PathLike, fsync: bool, group: dist.ProcessGroup) -> list[str]:
    """Saves; returns what this rank has to warn of."""
    source = source_of(path)
    content, work = _agree(prepare, path, source, fsync, group)
    files: NewFiles | None = None

    def begin() -> list[tuple[str, str]]:
        nonlocal files
        if group.rank() != 0:
            return []
        files = NewFiles(path, content.files(), content.texts if content.limit is not None else None, fsync)
        return files.places

    try:
        places = together(group, source, "making the file", begin)[0]
        together(group, source, "writing", lambda: _write(content, work, places, path, fsync))
        said = together(group, source, "finishing the file", lambda: files.finish() if files else [])
        return said[group.rank()]
    finally:
        if files is not None:
            files.abort()


def _agree(
    prepare: Callable[[], Content], path: PathLike, source: str, fsync: bool, group: dist.ProcessGroup
) -> tuple[Content, Work]:
    """What is saved, in the order of the first rank, and which parts of it this rank writes."""
    prepared: list[tuple[Content, list[str]]] = []
    together(group, source, "preparing", lambda: prepared.append(_checked(prepare, path, fsync)))
    content, lines = prepared[0]
    check_same(group, source, "what to save", lines)

    by_name = sorted(content.types)

    def own() -> tuple[dict[str, str], Held, list[str]]:
        boxes = held(content.parts[name].box for name in by_name)
        return content.ties, boxes, list(content.types) if group.rank() == 0 else []

    ties, boxes_by_rank, orders = zip(*together(group, source, "comparing parts", own), strict=True)
    holders = dict(zip(by_name, holders_of(boxes_by_rank), strict=True))
    content = content.in_order(orders[0], {name: kept for of_rank in ties for name, kept in of_rank.items()})
    _check_whole(content, holders, source, group.size())
    types = content.types
    return content, deal(list(types.values()), [holders[name] for name in types], group.size(), group.rank())


def _checked(prepare: Callable[[], Content], path: PathLike, fsync: bool) -> tuple[Content, list[str]]:
    """What is saved, and all that the ranks have to agree about."""
    operator_filename(path)  # raises what it is not
    check_flags(fsync=fsync)
    content = prepare()
    where = os.fsdecode(Path(os.fsdecode(path)).absolute())
    return content, [*content.lines(), f"path {where!r}", f"fsync {fsync}"]


def _check_whole(
    content: Content, holders: Mapping[str, dict[LocalBox, list[int]]], source: str, group_size: int
) -> None:
    whole = set()
    for name, tensor in content.types.items():
        as_held = id(holders[name]), tensor.shape
        if as_held in whole:
            continue
        if not is_tiled(tensor.shape, set(holders[name])):
            raise ValueError(
                f"{source}: tensor {name!r}: what the {group_size} ranks hold does not make up its shape "
                f"{list(tensor.shape)}: {content.parts[name].layout}; process_group must have all ranks of the mesh"
            )
        whole.add(as_held)


def _write(content: Content, work: Work, places: list[tuple[str, str]], path: PathLike, fsync: bool) -> None:
    names = list(content.types)
    file_of = {name: number for number, (shard, _) in enumerate(content.files()) for name in shard}
    by_file: dict[int, Work] = {}
    for number, box in work:
        by_file.setdefault(file_of[names[number]], []).append((number, box))
    for file, boxes in by_file.items():
        parts = [content.parts[names[number]].cut(box) for number, box in boxes]
        texts = [names[number] for number, _ in boxes]
        write_ranges(places[file], texts, parts, [list(box.offsets) for _, box in boxes], path, fsync)
