"""What ``info --json`` prints; its form is a promise (:data:`info.EPILOG`)."""

from __future__ import annotations

import json
from typing import Any

from .._listing import Listing, Tensor
from ._totals import Total, by_dtype, by_module, total

__all__ = ["print_json"]


def print_json(path: str, listing: Listing, depth: int) -> None:
    """One object, of which each tensor is a line."""
    files = [{"path": file.path, "header_bytes": file.header_bytes, "bytes": file.nbytes} for file in listing.files]
    totals = {
        **_total(total(listing.tensors)),
        "by_dtype": {dtype: _total(part) for dtype, part in by_dtype(listing.tensors).items()},
        "by_module": {module: _total(part) for module, part in by_module(listing.tensors, depth).items()},
    }
    tensors = ",\n".join("    " + json.dumps(_tensor(tensor)) for tensor in listing.tensors)
    print("{")
    for key, value in ("path", path), ("files", files), ("metadata", listing.metadata), ("totals", totals):
        print(f"  {json.dumps(key)}: {json.dumps(value)},")
    print(f'  "tensors": [\n{tensors}\n  ]\n}}')


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": tensor.shape,
        "bytes": tensor.nbytes,
        "file": tensor.file,
        "begin": tensor.begin,
    }


def _total(part: Total) -> dict[str, Any]:
    return {"tensors": part.tensors, "elements": part.elements, "bytes": part.nbytes}
