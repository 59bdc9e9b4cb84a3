"""Loads checkpoints into models that are spread over ranks, straight into what each rank holds of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from .._arguments import PathLike
from .._memory import check_initialized, check_memory, state_dict_of
from .._models import check_or_load, has_own_loading, memory_of
from .._options import check_flags
from ._boxes import as_dtensor, local_part, whole_box
from ._group import check_same, source_of, world
from ._interrupts import signals_held
from ._load import Part, Strategy, describe, open_together, read_parts
from ._sharing import Sharing, sharing_of

__all__ = ["load_model"]

_ops = torch.ops.safetensors


def load_model(
    model: torch.nn.Module,
    path: PathLike,
    strict: bool = True,
    *,
    strategy: Strategy = "auto",
    backend: str = "auto",
    process_group: dist.ProcessGroup | None = None,
    strict_index: bool = True,
) -> tuple[list[str], list[str]]:
    """Loads a checkpoint into a model that ``fully_shard``, ``parallelize_module`` or both have spread over ranks.

    Each rank reads the bytes of its own shards, straight into them; parameters and buffers that are plain tensors are
    read whole on every rank. Names and shapes are checked on all ranks before anything is written. Every rank of the
    process group calls it, with the same model.

    Args:
        model: its parameters are DTensors, plain tensors, or some of each, and have memory: one built on ``meta`` is
            moved with ``model.to_empty(device=...)`` first.
        path: a file, an index, or a directory: see :func:`torch_safetensors.load_file`.
        strict: False forgives names that are missing or unexpected, never shapes.
        strategy: see :func:`load_file`.
        backend: see :func:`load_file`.
        process_group: of the ranks that hold the model; by default all.
        strict_index: see :func:`torch_safetensors.load_file`.

    Returns:
        The names that the file does not hold, and those that the model does not have; both sorted.

    Raises:
        SafetensorError: names or shapes that do not fit (the text is that of ``load_state_dict``), a malformed file.
            All ranks raise what one of them met, as for all errors here.
        ValueError: ranks that disagree about the model, a tensor on ``meta``, a dtype that does not convert, or a
            module that overrides loading or has hooks for it: give its ``load_state_dict`` what :func:`load_file`
            returns.
        OSError: what the operating system reports.
        RuntimeError: another rank was lost. The model then holds some of the new values.
    """
    group = process_group or world()
    source = source_of(path)

    def plan(handle: Any) -> tuple[tuple[list[str], list[str]], list[Part], list[str]]:
        check_flags(strict=strict)
        state: Mapping[str, torch.Tensor] = state_dict_of(model)
        _check_model(model, state, source)
        names = check_or_load(_ops._check_model, model, _stand_ins(state), handle, path, strict)
        parts = list(_parts(handle, state, names[1], group))
        for part in parts:
            _check_writable(part, source)
        lines = [f"{part.name!r} as {_describe(state[part.name])}" for part in parts]
        return names, parts, [f"strategy {strategy!r}", *lines]

    names: tuple[list[str], list[str]]
    with signals_held():
        handle, (names, parts, lines) = open_together(group, path, backend, plan, strict_index)
        check_same(group, source, "what to load", lines)
        read_parts(handle, source, parts, group, strategy)
    return names


def _check_model(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    if own := has_own_loading(model):
        raise ValueError(
            f"{source}: {own} has a say in loading, which reading into shards would pass over; call load_state_dict "
            "with what torch_safetensors.distributed.load_file returns"
        )
    for name, tensor in state.items():
        check_initialized(name, tensor, source)
        if tensor.is_meta:
            raise ValueError(
                f"{source}: tensor {name!r}: is on the meta device and has no memory to load into; move the model with "
                "to_empty() first"
            )


def _stand_ins(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors without memory that have the shapes of the whole ones, and share storages where those do.

    Of DTensors only those are taken to share one that are the same tensor.
    """
    storages: dict[object, torch.UntypedStorage] = {}
    stand_ins = {}
    for name, tensor in state.items():
        is_spread = as_dtensor(tensor) is not None
        whole = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") if is_spread else tensor
        memory = (*_memory_of(tensor), tensor.shape) if is_spread else tensor.untyped_storage()._cdata
        if memory not in storages:
            nbytes = whole.untyped_storage().nbytes()
            storages[memory] = torch.empty(nbytes, dtype=torch.uint8, device="meta").untyped_storage()
        stand_ins[name] = torch.empty(0, dtype=tensor.dtype, device="meta").set_(
            storages[memory], whole.storage_offset(), whole.shape, whole.stride()
        )
    return stand_ins


def _memory_of(tensor: torch.Tensor) -> tuple[object, ...]:
    return memory_of(tensor if (spread := as_dtensor(tensor)) is None else spread.to_local())


def _parts(
    handle: Any, state: Mapping[str, torch.Tensor], unexpected: list[str], group: dist.ProcessGroup
) -> Iterator[Part]:
    """What is read, in the order of the file; of names of one tensor, that which comes first."""
    filled = set()
    unused = set(unexpected)
    names: list[str] = handle.keys()
    for name in names:
        if name not in state or name in unused:
            continue
        tensor = state[name]
        memory = (*_memory_of(tensor), tensor.shape)
        if memory in filled:
            continue
        filled.add(memory)
        box, out = local_part(name, tensor)
        meta = handle._get_meta(name)
        shape = tuple(meta.shape)
        if len(shape) != tensor.dim():  # a scalar, which old files hold as one element
            box, out = whole_box(shape), out.view(shape)
        yield Part(name, shape, meta.dtype, box, out, _sharing(tensor, meta.dtype.itemsize, group))


def _sharing(tensor: torch.Tensor, itemsize: int, group: dist.ProcessGroup) -> Sharing:
    if (spread := as_dtensor(tensor)) is None:
        return Sharing(group.size(), tensor.dim(), group)
    return sharing_of(group, spread.shape, itemsize, spread.device_mesh, spread.placements)


def _check_writable(part: Part, source: str) -> None:
    if part.dtype.is_complex and not part.out.dtype.is_complex:
        raise ValueError(
            f"{source}: tensor {part.name!r}: the file holds {part.dtype}, which would lose its imaginary part as "
            f"{part.out.dtype}"
        )
    check_memory({part.name: part.out}, source)


def _describe(tensor: torch.Tensor) -> str:
    if (spread := as_dtensor(tensor)) is not None:
        return describe(tensor, spread.device_mesh, spread.placements)
    return f"{tensor.dtype} {list(tensor.shape)} on every rank"
