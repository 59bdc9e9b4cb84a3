"""Which tensors of a checkpoint are loaded, under which names, and where to."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

import torch

from ._arguments import DeviceLike, PathLike, operator_device
from ._errors import SafetensorError, printable
from ._torch_private import constant_while_compiling

__all__ = ["DeviceMap", "Names", "Rename", "Selection", "is_selective", "matching", "select"]

#: A name or glob pattern (``fnmatch``: ``*``, ``?``, ``[...]``), or several.
Names: TypeAlias = "str | Iterable[str]"
#: From names in the file to names in the result.
Rename: TypeAlias = "Mapping[str, str] | Callable[[str], str]"
#: A device for each prefix of names; the longest that fits counts, ``""`` fits all.
DeviceMap: TypeAlias = "Mapping[str, DeviceLike]"


class Selection(NamedTuple):
    """What is loaded, in the order of the data."""

    #: As the checkpoint has them.
    names: list[str]
    #: As the caller gets them.
    new_names: list[str]
    devices: list[torch.device]

    def by_device(self) -> dict[torch.device, list[str]]:
        """Names as the checkpoint has them, by the device they go to."""
        groups: dict[torch.device, list[str]] = {}
        for name, device in zip(self.names, self.devices, strict=True):
            groups.setdefault(device, []).append(name)
        return groups


def is_selective(device: DeviceLike | DeviceMap, names: Names | None, rename: Rename | None) -> bool:
    """False where all tensors go to one device under their own names."""
    return names is not None or rename is not None or isinstance(device, Mapping)


def select(
    source: PathLike,
    stored: list[str],
    device: DeviceLike | DeviceMap,
    names: Names | None,
    rename: Rename | None,
) -> Selection:
    """Chooses among the names that a checkpoint has, which come in the order of its data.

    Raises:
        SafetensorError: one of ``names`` that no tensor has or matches.
        TypeError: arguments of other types.
        ValueError: two tensors that ``rename`` gives one name; a tensor that no prefix of ``device`` fits.
    """
    chosen = stored if names is None else matching(source, stored, names)
    return Selection(chosen, _renamed(source, chosen, rename), _devices(source, chosen, device))


@constant_while_compiling
def matching(source: PathLike, stored: list[str], names: Names) -> list[str]:
    """The stored names that are wanted, in their order. Raises SafetensorError where a pattern matches none."""
    patterns = [names] if isinstance(names, str) else list(names)
    known = set(stored)
    wanted: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"names: expected str, not {type(pattern).__name__}")
        # A name may have brackets, which mean something in a pattern.
        found = {pattern} if pattern in known else set(filter(re.compile(fnmatch.translate(pattern)).match, stored))
        if not found:
            raise SafetensorError(
                f"{printable(source)}: no tensor has the name {pattern!r} or matches it, among {len(stored)} tensors"
            )
        wanted |= found
    return [name for name in stored if name in wanted]


def _renamed(source: PathLike, names: list[str], rename: Rename | None) -> list[str]:
    if rename is None:
        return names
    if isinstance(rename, Mapping):
        new_names = [rename.get(name, name) for name in names]
    elif callable(rename):
        new_names = [rename(name) for name in names]
    else:
        raise TypeError(f"rename: expected a mapping or a callable, not {type(rename).__name__}")
    first: dict[str, str] = {}
    for name, new in zip(names, new_names, strict=True):
        if not isinstance(new, str):
            raise TypeError(f"rename: gives {type(new).__name__} for {name!r}, not str")
        if new in first:
            raise ValueError(f"{printable(source)}: rename gives {new!r} for both {first[new]!r} and {name!r}")
        first[new] = name
    return new_names


def _devices(source: PathLike, names: list[str], device: DeviceLike | DeviceMap) -> list[torch.device]:
    if not isinstance(device, Mapping):
        return [operator_device(device)] * len(names)
    for prefix in device:
        if not isinstance(prefix, str):
            raise TypeError(f"device: expected prefixes of type str, not {type(prefix).__name__}")
    # The longest first, and whole parts of names only: "layer.1" does not stand for "layer.10".
    prefixes = sorted(device, key=len, reverse=True)
    devices = {prefix: operator_device(device[prefix]) for prefix in prefixes}
    parts = {prefix: prefix if prefix.endswith(".") or not prefix else f"{prefix}." for prefix in prefixes}
    chosen = []
    for name in names:
        fits = (prefix for prefix in prefixes if name == prefix or name.startswith(parts[prefix]))
        longest = next(fits, None)
        if longest is None:
            raise ValueError(
                f"{printable(source)}: tensor {name!r}: no prefix of device= fits, among {sorted(device)}; "
                "'' fits all others"
            )
        chosen.append(devices[longest])
    return chosen
