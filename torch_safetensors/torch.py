"""What the reference has in ``safetensors.torch``, also the private names that other packages import from there.

The functions are those of :mod:`torch_safetensors`. ``from torch_safetensors.torch import …`` stands for
``from safetensors.torch import …``; :func:`torch_safetensors.install` does without a change of the code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ._arguments import operator_tensors
from ._files import load, load_file, save, save_file
from ._memory import check_memory
from ._models import load_model, save_model
from ._raw import DTYPES, TensorSpec, deserialize, serialize, serialize_file, torch_shape
from ._safe_open import safe_open
from ._shared_names import end_ptr as _end_ptr
from ._shared_names import filter_shared_not_shared as _filter_shared_not_shared
from ._shared_names import find_shared_tensors as _find_shared_tensors
from ._shared_names import is_complete as _is_complete
from ._shared_names import remove_duplicate_names as _remove_duplicate_names
from ._shared_names import storage_ptr, storage_size

__all__ = [
    "TensorSpec",
    "_end_ptr",
    "_filter_shared_not_shared",
    "_find_shared_tensors",
    "_is_complete",
    "_remove_duplicate_names",
    "deserialize",
    "load",
    "load_file",
    "load_model",
    "safe_open",
    "save",
    "save_file",
    "save_model",
    "serialize",
    "serialize_file",
    "storage_ptr",
    "storage_size",
]

_float8_e4m3fn = torch.float8_e4m3fn
_float8_e4m3fnuz = torch.float8_e4m3fnuz
_float8_e5m2 = torch.float8_e5m2
_float8_e5m2fnuz = torch.float8_e5m2fnuz
_float8_e8m0 = torch.float8_e8m0fnu
_float4_e2m1_x2 = torch.float4_e2m1fn_x2

#: Also with F8_E8M0 and F4, which the reference saves and leaves out here.
_TYPES = dict(DTYPES)
#: Bytes of an element; float4_e2m1fn_x2 has two numbers in it.
_SIZE = {dtype: dtype.itemsize for dtype in DTYPES.values()}


def _getdtype(dtype_str: str) -> torch.dtype:
    return _TYPES[dtype_str]


def _view2torch(safeview: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, torch.Tensor]:
    """Tensors over the memory of what :func:`deserialize` returns."""
    tensors = {}
    for name, view in safeview:
        dtype = _getdtype(view["dtype"])
        shape = torch_shape(view["dtype"], view["shape"])
        if len(view["data"]) == 0:
            tensors[name] = torch.empty(shape, dtype=dtype, device="cpu")
        else:
            tensors[name] = torch.frombuffer(view["data"], dtype=torch.uint8).view(dtype).view(shape)
    return tensors


def _evaluate_tensors_for_save(tensors: dict[str, torch.Tensor]) -> None:
    """Raises what :func:`save_file` would."""
    torch.classes.safetensors._PythonSave(*operator_tensors(tensors), None, False)


def _flatten_as_ptr(tensors: dict[str, torch.Tensor], keep_alive_buffer: list[Any]) -> dict[str, TensorSpec]:
    """What :func:`serialize` takes, while ``keep_alive_buffer``, which gets the memory, lives."""
    _evaluate_tensors_for_save(tensors)
    specs = {}
    for name, tensor in tensors.items():
        dense = _dense(tensor)
        keep_alive_buffer.append(dense)
        dtype = str(dense.dtype).removeprefix("torch.")
        specs[name] = TensorSpec(dtype=dtype, shape=dense.shape, data_ptr=dense.data_ptr(), data_len=dense.nbytes)
    return specs


def _flatten(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """What ``serialize`` of the reference took up to its release 0.7: dtype, shape and bytes of each."""
    _evaluate_tensors_for_save(tensors)
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": tensor.shape,
            "data": _tobytes(tensor, name),
        }
        for name, tensor in tensors.items()
    }


def _tobytes(tensor: torch.Tensor, name: str) -> bytes:
    """The bytes of a tensor as a file has them.

    Raises:
        ValueError, NotImplementedError: what :func:`save_file` would raise.
    """
    _evaluate_tensors_for_save({name: tensor})
    dense = _dense(tensor)
    return ctypes.string_at(dense.data_ptr(), dense.nbytes) if dense.nbytes else b""


def _to_ndarray(tensor: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """The bytes of a contiguous tensor as a 1-D numpy array of uint8, and the tensor whose memory that is."""
    check_memory({"": tensor})
    dense = _dense(tensor)
    flat = dense.reshape(-1).view(torch.uint8) if dense.numel() else torch.empty(0, dtype=torch.uint8, device="cpu")
    return flat.numpy(), dense


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, with the values that lazy conjugation and negation stand for."""
    return tensor.detach().cpu().resolve_conj().resolve_neg()
