"""Copies tensors from a checkpoint into one file, one by one, so that they need not fit into memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .._errors import printable
from .._files import load_file
from .._safe_open import safe_open
from .._text import count_of, format_bytes
from .._writer import Writer
from ._grid import line
from ._progress import is_watched

__all__ = ["converted", "copy_tensors", "report"]


def copy_tensors(
    source: str,
    new_names: Mapping[str, str],
    target: str,
    metadata: Mapping[str, str] | None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes the tensors that are keys of ``new_names`` under the names that are its values.

    ``dtype``: floating-point ones are converted to it.
    """
    meta = load_file(source, "meta")
    spec = {new: converted(meta[old], dtype) for old, new in new_names.items()}
    nbytes = sum(tensor.nbytes for tensor in spec.values())
    with safe_open(source) as handle, Writer(target, spec, metadata, progress=is_watched()) as writer:
        for old, new in new_names.items():
            writer.write(new, converted(handle.get_tensor(old), dtype))
    report(target, len(spec), nbytes)


def converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """The tensor, or what it is in another floating-point dtype."""
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def report(target: str, tensors: int, nbytes: int) -> None:
    """Says what was written."""
    line(f"{printable(target)}: {count_of(tensors, 'tensor')}, {format_bytes(nbytes)}")
