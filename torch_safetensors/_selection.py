"""Which tensors of a checkpoint are loaded, under which names, and where to."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch

from ._arguments import DeviceLike, PathLike, operator_device
from ._errors import SafetensorError, printable
from ._globs import match_globs
from ._torch_private import constant_while_compiling

__all__ = ["DeviceMap", "Names", "Rename", "Selection", "choose", "is_selective", "matching", "select"]

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
        ValueError: two tensors that ``rename`` gives one name; a tensor that no prefix of ``device`` fits; an entry of
            ``rename`` or ``device`` that is for none of the tensors that the checkpoint has.
    """
    if isinstance(rename, Mapping):
        _check_renamed(source, stored, list(rename))
    if isinstance(device, Mapping):
        _check_prefixes(source, stored, list(device))
    chosen = stored if names is None else matching(source, stored, names)
    return Selection(chosen, _renamed(source, chosen, rename), _devices(source, chosen, device))


@constant_while_compiling
def _check_renamed(source: PathLike, stored: list[str], names: list[str]) -> None:
    """What is for no tensor is misspelled, or meant for another checkpoint."""
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"rename: expected names of type str, not {type(name).__name__}")
    known = set(stored)
    _refuse_unused(source, "rename=", [name for name in names if name not in known])


@constant_while_compiling
def _check_prefixes(source: PathLike, stored: list[str], prefixes: list[str]) -> None:
    """As for ``rename``, but that ``""`` stands for all tensors, even if there are none."""
    for prefix in prefixes:
        if not isinstance(prefix, str):
            raise TypeError(f"device: expected prefixes of type str, not {type(prefix).__name__}")
    known, ordered = set(stored), sorted(stored)

    def fits_none(prefix: str) -> bool:
        part = _part(prefix)
        first = bisect.bisect_left(ordered, part)
        return prefix not in known and not (first < len(ordered) and ordered[first].startswith(part))

    _refuse_unused(source, "device=", [prefix for prefix in prefixes if prefix and fits_none(prefix)])


def _refuse_unused(source: PathLike, what: str, unused: list[str]) -> None:
    if unused:
        listed = ", ".join(map(repr, unused[:5])) + (f" and {len(unused) - 5} more" if len(unused) > 5 else "")
        raise ValueError(f"{printable(source)}: no tensor fits these entries of {what}: {listed}; leave them out")


def _part(prefix: str) -> str:
    """A prefix as the whole part of a name: ``"layer.1"`` does not stand for ``"layer.10"``."""
    return prefix if prefix.endswith(".") or not prefix else f"{prefix}."


@constant_while_compiling
def matching(source: PathLike, stored: list[str], names: Names) -> list[str]:
    """The stored names that are wanted, in their order. Raises SafetensorError where a pattern matches none."""
    if not isinstance(names, Iterable):
        raise TypeError(f"names: expected str or several of them, not {type(names).__name__}")
    patterns = [names] if isinstance(names, str) else list(names)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"names: expected str, not {type(pattern).__name__}")
    chosen, missed = choose(stored, patterns)
    if missed is not None:
        raise SafetensorError(
            f"{printable(source)}: no tensor has the name {missed!r} or matches it, among {len(stored)} tensors"
        )
    return chosen


def choose(stored: Sequence[str], patterns: Sequence[str]) -> tuple[list[str], str | None]:
    """The names, in their order, that are among the patterns or match one; and the first pattern without any."""
    known = set(stored)
    # A name may have brackets, which mean something in a pattern.
    matched, missed = match_globs(stored, [pattern for pattern in patterns if pattern not in known])
    wanted = matched.union(known.intersection(patterns))
    return [name for name in stored if name in wanted], missed


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
    # The longest first.
    prefixes = sorted(device, key=len, reverse=True)
    devices = {prefix: operator_device(device[prefix]) for prefix in prefixes}
    parts = {prefix: _part(prefix) for prefix in prefixes}
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
