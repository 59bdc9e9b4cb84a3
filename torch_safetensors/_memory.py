"""Tensors without the memory that their shapes say: freed, moved elsewhere, or not made yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

__all__ = ["UNINITIALIZED", "check_initialized", "check_memory", "memory_faults", "state_dict_of"]

#: The types of what lazy modules have until they run once.
UNINITIALIZED = (UninitializedParameter, UninitializedBuffer)


def _is_uninitialized(tensor: list[list[torch.Tensor]]) -> bool:
    """The operator that the library asks about tensors of shape [0], as which it sees uninitialized ones."""
    return isinstance(tensor[0][0], UNINITIALIZED)


_library = torch.library.Library("safetensors", "IMPL")  # type: ignore[no-untyped-call]  # torch leaves it unannotated
if hasattr(torch.ops.safetensors, "_is_uninitialized"):  # not in the library on the stable ABI
    _library.impl("_is_uninitialized", _is_uninitialized, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]


def memory_faults(tensors: Iterable[torch.Tensor]) -> list[str]:
    """What is wrong with the memory of each tensor, in words that follow its name; "" where all is well.

    A storage can be resized or freed under its tensors, which keep their shapes: FSDP and offloading do that. torch's
    own methods do not look: a copy of such a tensor reads, and one into it writes, memory of others.
    """
    faults: list[str] = torch.ops.safetensors._memory_faults([list(tensors)])
    return faults


def check_memory(tensors: Mapping[str, torch.Tensor], source: str = "") -> None:
    """To be called before torch reads or writes values of the caller's tensors.

    Args:
        tensors: by name.
        source: the file they belong to, for the error.

    Raises:
        ValueError: names a tensor whose memory is not there, what it needs and what there is.
    """
    for name, fault in zip(tensors, memory_faults(tensors.values()), strict=True):
        if fault:
            raise ValueError(f"{source}{': ' if source else ''}tensor {name!r} {fault}")


def check_initialized(name: str, tensor: object, source: str = "") -> None:
    """Raises ValueError for a parameter or buffer of a lazy module that has not run (csrc/tensors/uninitialized.h)."""
    if isinstance(tensor, UNINITIALIZED):
        raise ValueError(
            f"{source}{': ' if source else ''}tensor {name!r} is an uninitialized parameter or buffer, which has no "
            "shape and no values yet: run its lazy module once, or materialize it, first"
        )


def state_dict_of(model: torch.nn.Module, **options: Any) -> dict[str, Any]:
    """``model.state_dict()``, of which torch's error for an uninitialized tensor does not say which one it is.

    Raises:
        ValueError: names it.
    """
    try:
        state: dict[str, Any] = model.state_dict(**options)
    except ValueError:
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            if is_lazy(tensor):
                check_initialized(name, tensor)
        raise
    return state
