"""From the forms that Python callers use to those that the operators take, and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TypeAlias

import torch

from ._memory import UNINITIALIZED, check_initialized

__all__ = [
    "CHECKSUMS",
    "DeviceLike",
    "OperatorTensors",
    "PathLike",
    "is_dtensor",
    "operator_device",
    "operator_filename",
    "operator_metadata",
    "operator_name",
    "operator_tensors",
    "split_names",
]

#: The key of metadata under which a file records checksums (csrc/format/checksum.h).
CHECKSUMS = "torch_safetensors.xxh3_128"

PathLike: TypeAlias = "str | os.PathLike[str]"
DeviceLike: TypeAlias = "str | int | torch.device | None"


def operator_filename(filename: PathLike) -> str:
    """The name as operators take it, which carry UTF-8 only.

    A name that is not UTF-8 (``os.fsdecode`` gives it lone surrogates) travels as a NUL and its bytes in
    hexadecimal; csrc/tensors/filename.cpp takes that apart.

    Raises:
        TypeError: neither str nor ``os.PathLike``.
        ValueError: a NUL in it.
    """
    if type(filename) is not str:
        if not isinstance(filename, (str, os.PathLike)):
            raise TypeError(f"filename: expected str or os.PathLike, not {type(filename).__name__}")
        filename = os.fsdecode(filename)
    if "\0" in filename:
        raise ValueError("embedded null character in path")
    try:
        filename.encode("utf-8")
    except UnicodeEncodeError:
        return "\0" + os.fsencode(filename).hex()
    return filename


def operator_device(device: DeviceLike) -> torch.device:
    """The device for everything that ``torch.device(...)`` takes; None is the CPU, as in the reference.

    Raises:
        TypeError, ValueError: what ``torch.device(...)`` refuses.
    """
    try:
        return torch.device("cpu") if device is None else torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: {error}") from None


def operator_name(name: str) -> str:
    """A tensor's name, checked, since an operator's schema would take bytes and refuse others less clearly.

    Raises:
        TypeError: not a str.
        ValueError: text that is not Unicode (a lone surrogate).
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected str, not {type(name).__name__}")
    if not name.isascii():
        check_unicode(name, "tensor name")
    return name


def operator_metadata(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """The metadata, checked; never the caller's own dict.

    Raises:
        TypeError: not a mapping of str to str; names the key.
        ValueError: text that is not Unicode (a lone surrogate).
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata: expected dict[str, str], not {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise TypeError(f"metadata: key {key!r} is {type(key).__name__}, not str")
        if not isinstance(value, str):
            raise TypeError(f"metadata: the value of {key!r} is {type(value).__name__}, not str")
        check_unicode(key, "metadata key")
        check_unicode(value, f"metadata value of {key!r}")
    return dict(metadata)


def check_unicode(text: str, what: str) -> None:
    """Raises ValueError where ``text`` cannot be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} {text!r}: not valid Unicode: {error.reason}") from None


#: Tensors as the operators for Python take them: all names in one text, the bytes of each, and the tensors.
#: csrc/tensors/python_save.h says why.
OperatorTensors: TypeAlias = "tuple[str, list[int], list[list[torch.Tensor]]]"


def operator_tensors(tensors: Mapping[str, torch.Tensor]) -> OperatorTensors:
    """The tensors, checked for what an operator's schema would refuse less clearly.

    Raises:
        ValueError: not a dict, or a value that is not a tensor (the types the reference raises); an uninitialized one;
            a name that is not Unicode.
        TypeError: a name that is not a str.
    """
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    tensors = dict(tensors)  # Names and tensors are taken one after the other, and other threads may change it.
    types = set(map(type, tensors.values()))
    plain = set(map(type, tensors)) <= {str} and all(
        issubclass(t, torch.Tensor) and not issubclass(t, UNINITIALIZED) for t in types
    )
    if not plain:
        for name, tensor in tensors.items():
            _check_named_tensor(name, tensor)
    names = "".join(tensors)
    if plain and names.isascii():
        sizes = list(map(len, tensors))
    else:
        for name in tensors:
            check_unicode(name, "tensor name")
        sizes = [len(str.encode(name)) for name in tensors]
    return names, sizes, [list(tensors.values())]


def _check_named_tensor(name: object, tensor: object) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"Key {name!r} is invalid, expected torch.Tensor but received {type(tensor)}")
    if not isinstance(name, str):
        raise TypeError(f"Key {name!r} is invalid, expected str but received {type(name)}")
    check_initialized(name, tensor)


def is_dtensor(tensor: object) -> bool:
    """True for a tensor that is spread over ranks, without importing what makes those."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def split_names(names: list[str], separator: str | None) -> list[str]:
    """Names from the form that converts the fastest: one text, to be split at the separator (joined_names.h)."""
    return names if separator is None else names[0].split(separator)
