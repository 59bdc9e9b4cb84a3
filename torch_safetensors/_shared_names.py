"""Names of tensors that share memory, as the reference's private functions tell them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import torch

__all__ = [
    "end_ptr",
    "filter_shared_not_shared",
    "find_shared_tensors",
    "is_complete",
    "remove_duplicate_names",
    "storage_ptr",
    "storage_size",
]


def storage_ptr(tensor: torch.Tensor) -> int:
    """The address of the tensor's storage; 0 if it has none, as on ``meta``."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors, and subclasses that wrap others
        return 0


def storage_size(tensor: torch.Tensor) -> int:
    """Bytes of the tensor's storage; of one without, those of its elements."""
    try:
        return tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):
        return tensor.nelement() * tensor.element_size()


def end_ptr(tensor: torch.Tensor) -> int:
    """The address behind the last byte of the tensor's elements, whatever its strides."""
    if tensor.nelement() == 0:
        return tensor.data_ptr()
    last = sum((dim - 1) * stride for dim, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size()


def is_complete(tensor: torch.Tensor) -> bool:
    """True if the tensor's elements are the whole of its storage."""
    return tensor.data_ptr() == storage_ptr(tensor) and (
        tensor.nelement() * tensor.element_size() == storage_size(tensor)
    )


def find_shared_tensors(state_dict: Mapping[str, torch.Tensor]) -> list[set[str]]:
    """Every name that has memory, in groups whose ranges of memory meet."""
    by_storage: defaultdict[tuple[torch.device, int, int], set[str]] = defaultdict(set)
    for name, tensor in state_dict.items():
        storage = tensor.device, storage_ptr(tensor), storage_size(tensor)
        if tensor.device.type != "meta" and all(storage[1:]):
            by_storage[storage].add(name)
    return filter_shared_not_shared(by_storage.values(), state_dict)


def filter_shared_not_shared(tensors: Iterable[set[str]], state_dict: Mapping[str, torch.Tensor]) -> list[set[str]]:
    """Splits names of one storage where the ranges of their elements do not meet."""
    return [part for group in tensors for part in ([group] if len(group) < 2 else _split(group, state_dict))]


def _split(group: set[str], state_dict: Mapping[str, torch.Tensor]) -> list[set[str]]:
    parts: list[set[str]] = []
    stop = 0
    for begin, end, name in sorted((state_dict[n].data_ptr(), end_ptr(state_dict[n]), n) for n in group):
        if not parts or begin >= stop:
            parts.append(set())
        parts[-1].add(name)
        # The furthest, not the last: what lies within one tensor does not end it (the reference gets that wrong).
        stop = max(stop, end)
    return parts


def remove_duplicate_names(
    state_dict: Mapping[str, torch.Tensor],
    *,
    preferred_names: Collection[str] | None = None,
    discard_names: Collection[str] | None = None,
) -> dict[str, list[str]]:
    """Which names to save of tensors that share memory: each of them, with those that it stands for.

    Args:
        state_dict: tensors by name.
        preferred_names: are kept before all others.
        discard_names: are kept only if there is no other.

    Returns:
        The name kept, the first in the order of the alphabet among tensors that are the whole of their storage, with
        the sorted names of the others of its group. A tensor that shares memory with none is in no group, also where
        it is a part of its storage (which the reference refuses).

    Raises:
        RuntimeError: of a group none is the whole of the storage.
    """
    duplicates: defaultdict[str, list[str]] = defaultdict(list)
    for group in find_shared_tensors(state_dict):
        if len(group) == 1:
            continue
        complete = {name for name in group if is_complete(state_dict[name])}
        if not complete:
            raise RuntimeError(
                f"tensors {sorted(group)}: share memory, and none is the whole of its storage, so that none can stand "
                "for the others; use torch_safetensors.save_model, which saves each in full"
            )
        candidates = complete.intersection(preferred_names or ()) or complete.difference(discard_names or ())
        kept = min(candidates or complete)
        duplicates[kept] = sorted(group - {kept})
    return duplicates
