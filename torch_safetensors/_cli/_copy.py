"""Copies tensors from a checkpoint into one file, one by one, so that they need not fit into memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from .._errors import printable
from .._iterate import Conversion, is_converted
from .._safe_open import safe_open
from .._text import count_of, format_bytes
from .._writer import Writer
from ._checksums import names_with_checksums
from ._grid import line
from ._progress import is_watched

__all__ = ["copy_tensors", "report", "say"]


def copy_tensors(
    source: str,
    new_names: Mapping[str, str],
    target: str,
    metadata: Mapping[str, str] | None,
    *,
    checksum: bool,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes the tensors that are keys of ``new_names`` under the names that are its values.

    Args:
        source: a file, an index, or a directory.
        new_names: by name in the source.
        target: the file to write.
        metadata: text to go with it.
        checksum: record checksums also where the source has none.
        dtype: convert floating-point tensors to it.

    Raises:
        SafetensorError: a tensor that is not what its checksum says; nothing is written then.
    """
    conversion = Conversion(source, dtype)
    # What is checked has to be what is written: mapped pages would still change with the file.
    with safe_open(source, backend="pread") as handle:
        checked = names_with_checksums(handle)
        checksum = checksum or not checked.isdisjoint(new_names)
        spec = {new: _as_converted(handle._call("_get_meta", old), dtype) for old, new in new_names.items()}
        with Writer(target, spec, metadata, checksum=checksum, progress=is_watched()) as writer:
            for old, new in new_names.items():
                arguments = [old], torch.device("cpu"), None, None, old in checked
                (tensor,) = handle._call("_get_tensors", *arguments)
                writer.write(new, conversion.convert(old, tensor))
    say(conversion.warning())
    report(target, len(spec), sum(tensor.nbytes for tensor in spec.values()))


def _as_converted(meta: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return meta.to(dtype) if dtype is not None and is_converted(meta.dtype, dtype) else meta


def report(target: str, tensors: int, nbytes: int) -> None:
    """Says what was written."""
    line(f"{printable(target)}: {count_of(tensors, 'tensor')}, {format_bytes(nbytes)}")


def say(text: str) -> None:
    """Says on stderr what goes with the result."""
    if text:
        print(f"torch-safetensors: {text}", file=sys.stderr)
