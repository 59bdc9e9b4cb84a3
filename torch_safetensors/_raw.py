"""The reference's functions on bytes and addresses, which its modules for every framework are built on."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ._arguments import PathLike
from ._buffers import Buffer, bytes_of
from ._errors import SafetensorError
from ._files import load, save, save_file

__all__ = ["DTYPES", "TensorSpec", "deserialize", "serialize", "serialize_file", "torch_shape"]

#: The format's name of every dtype that torch has.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F4": torch.float4_e2m1fn_x2,
}
_FORMAT_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_TORCH_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in _FORMAT_NAMES}


class TensorSpec:
    """A tensor in memory that the caller keeps alive and unchanged while it is saved.

    Args:
        dtype: torch's name of the dtype, as ``"float32"``.
        shape: as torch has it.
        data_ptr: the address of its first byte.
        data_len: in bytes.

    Raises:
        SafetensorError: a dtype that the format or torch does not have.
    """

    __slots__ = ("data_len", "data_ptr", "dtype", "shape")

    def __init__(self, *, dtype: str, shape: Sequence[int], data_ptr: int, data_len: int) -> None:
        if dtype not in _TORCH_NAMES:
            raise SafetensorError(f"dtype: {dtype!r} is not one of {', '.join(_TORCH_NAMES)}")
        #: The format's name, as ``"F32"``.
        self.dtype = _FORMAT_NAMES[_TORCH_NAMES[dtype]]
        #: As a header has it: for F4 the last dimension counts elements, twice torch's.
        self.shape = _shape_in_header(self.dtype, shape)
        self.data_ptr = int(data_ptr)
        self.data_len = int(data_len)

    def __repr__(self) -> str:
        fields = ", ".join(f"{field}={getattr(self, field)!r}" for field in ("dtype", "shape", "data_ptr", "data_len"))
        return f"TensorSpec({fields})"


def serialize(tensor_dict: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file; see :func:`serialize_file`."""
    return save(_tensors(tensor_dict), metadata)


def serialize_file(
    tensor_dict: Mapping[str, TensorSpec], filename: PathLike, metadata: Mapping[str, str] | None = None
) -> None:
    """Saves tensors that are given by their addresses, as :func:`save_file` does.

    Raises:
        SafetensorError: a length that is not that of the dtype and shape.
        ValueError: no address.
        TypeError: a value that is not a :class:`TensorSpec`.
        OSError: what the operating system reports.
    """
    save_file(_tensors(tensor_dict), filename, metadata)


def deserialize(data: Buffer) -> list[tuple[str, dict[str, Any]]]:
    """The tensors in the bytes of a file: names, each with ``"dtype"`` and ``"shape"`` of the header and ``"data"``.

    Raises:
        SafetensorError: the bytes are malformed.
    """
    return [(name, _description(tensor)) for name, tensor in load(data).items()]


def _description(tensor: torch.Tensor) -> dict[str, Any]:
    dtype = _FORMAT_NAMES[tensor.dtype]
    return {"dtype": dtype, "shape": _shape_in_header(dtype, tensor.shape), "data": bytearray(_bytes_of(tensor))}


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return bytes_of(tensor.reshape(-1).view(torch.uint8)) if tensor.numel() else b""


def _tensors(specs: Mapping[str, TensorSpec]) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    addresses: set[int] = set()
    for name, spec in specs.items():
        if not isinstance(spec, TensorSpec):
            raise TypeError(f"tensor {name!r}: expected TensorSpec, not {type(spec).__name__}")
        tensor = _tensor(name, spec)
        # Names of one memory are the caller's decision here, which save_file would refuse.
        tensors[name] = tensor.clone() if spec.data_ptr in addresses else tensor
        addresses.add(spec.data_ptr)
    return tensors


def _tensor(name: str, spec: TensorSpec) -> torch.Tensor:
    dtype = DTYPES[spec.dtype]
    shape = torch_shape(spec.dtype, spec.shape)
    size = shape.numel() * dtype.itemsize
    if size != spec.data_len:
        raise SafetensorError(f"tensor {name!r}: {spec.dtype} {spec.shape} needs {size} bytes, not {spec.data_len}")
    if size == 0:
        return torch.empty(shape, dtype=dtype, device="cpu")
    if spec.data_ptr <= 0:
        raise ValueError(f"tensor {name!r} needs {size} bytes, but its data_ptr is {spec.data_ptr}")
    memory = (ctypes.c_uint8 * size).from_address(spec.data_ptr)
    return torch.frombuffer(memory, dtype=torch.uint8).view(dtype).view(shape)


def _shape_in_header(dtype: str, shape: Sequence[int]) -> list[int]:
    sizes = [int(dim) for dim in shape]
    return [*sizes[:-1], 2 * sizes[-1]] if dtype == "F4" and sizes else sizes


def torch_shape(dtype: str, shape: Sequence[int]) -> torch.Size:
    """The shape that torch gives a tensor of which a header says this: of F4 it counts pairs."""
    return torch.Size([*shape[:-1], shape[-1] // 2] if dtype == "F4" and shape else shape)
