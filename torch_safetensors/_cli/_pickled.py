"""State dicts in torch's own files: what is in them, and how they are written."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from .._errors import printable
from .._text import printable_name
from ._errors import CommandError, one_line
from ._output import replacing

__all__ = ["load_state", "save_pickled"]

_REFUSED = re.compile(r"(?:WeightsUnpickler error|Unsupported (?:global|operand)).*")


def load_state(path: str, key: str | None) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a file that ``torch.save`` wrote; none of its code is run.

    Args:
        path: a state dict, or a dict that holds one.
        key: the entry that is the state dict; by default the file itself, or the only entry that is one.

    Returns:
        The tensors, mapped from the file where its format allows it; and what was chosen and what was left out,
        to be told, or nothing.

    Raises:
        CommandError: the file cannot be loaded so, or it is not clear which tensors are meant.
    """
    content = _load(path)
    where = printable(path)
    if not isinstance(content, Mapping):
        raise CommandError(f"{where}: holds a {type(content).__name__}, not a dict of tensors")
    if key is None and _has_tensors(content):
        return _checked(content, where), ""
    candidates = [name for name, value in content.items() if _has_tensors(value)]
    if key is None:
        key = _only(candidates, content, where)
    if key not in candidates:
        raise CommandError(f"{where}: {key!r} is not a dict of tensors there; these are: {_listed(candidates)}")
    others = [name for name in content if name != key]
    left_out = f"; left out: {_listed(others)}" if others else ""
    return _checked(content[key], f"{where}: {key!r}"), f"{where}: taking the tensors under {key!r}{left_out}"


def _load(path: str) -> Any:
    with open(path, "rb") as file:  # noqa: PTH123 (a missing file is the system's error, not torch's)
        is_archive = zipfile.is_zipfile(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that it then refuses, which is told
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except OSError:
        raise
    except Exception as error:  # Of what is not a file of its own, torch raises anything.
        refused = _REFUSED.search(str(error))
        reason = refused[0] if refused else one_line(error)
        raise CommandError(f"{printable(path)}: torch.load(weights_only=True) refuses it: {reason}") from error


def _has_tensors(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and all(isinstance(name, str) for name in value)
        and any(isinstance(tensor, torch.Tensor) for tensor in value.values())
    )


def _only(candidates: list[Any], content: Mapping[Any, Any], where: str) -> Any:
    if not candidates:
        raise CommandError(f"{where}: holds no tensors by name; its entries are: {_listed(content)}")
    if len(candidates) > 1:
        raise CommandError(f"{where}: several entries hold tensors, choose one with --key: {_listed(candidates)}")
    return candidates[0]


def _checked(state: Mapping[str, Any], where: str) -> dict[str, torch.Tensor]:
    # Extra state of None says nothing, and is left out as save_model does.
    state = {name: value for name, value in state.items() if not (value is None and name.endswith("_extra_state"))}
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            hint = "; choose an entry with --key" if isinstance(value, Mapping) else ""
            raise CommandError(f"{where}: {printable_name(name)!r} is {type(value).__name__}, not a tensor{hint}")
    return dict(state)


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def save_pickled(state: dict[str, torch.Tensor], path: str) -> None:
    """Writes a file for ``torch.load``, which appears under its name only when it is whole."""
    # torch.save tells storages apart by their address, which that of an empty tensor may share with the next one.
    state = {name: tensor if tensor.numel() else torch.empty_like(tensor) for name, tensor in state.items()}
    with replacing(path) as temporary:
        torch.save(state, temporary)
