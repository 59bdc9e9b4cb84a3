"""Loads the library on torch's stable ABI, which has the operators on lists (csrc/stable)."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch

__all__ = ["load"]

#: The definitions last as long as this object.
_definitions: list[Any] = []


def load(path: Path) -> None:
    """Defines the operators, and loads their kernels.

    They are defined here, and not by the library: only so can TorchScript be told to keep every call, also one whose
    result is not used, as that of a save is not.

    Raises:
        ImportError: torch has not what the library needs, or it is not what it should be.
    """
    try:
        library = ctypes.CDLL(str(path))
        schemas = library.torch_safetensors_schemas
    except (OSError, AttributeError) as error:
        raise ImportError(f"{path} does not load with torch {torch.__version__}: {error}") from error
    schemas.restype = ctypes.c_char_p
    make_library: Any = torch.library.Library  # which torch leaves unannotated
    definitions = make_library("safetensors", "FRAGMENT")
    for schema in schemas().decode().splitlines():
        # An annotated schema is right for a single tensor (csrc/library.cpp).
        definitions.define(schema, alias_analysis="" if "(a!)" in schema else "CONSERVATIVE")
        # No operator has a derivative.
        definitions.impl(schema.partition("(")[0], torch.library.fallthrough_kernel, "Autograd")
    _definitions.append(definitions)
