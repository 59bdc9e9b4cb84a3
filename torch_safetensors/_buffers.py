"""Memory of Python objects as tensors, without a copy."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch

__all__ = ["Buffer", "as_tensor", "bytes_of", "memory_of", "new_bytes"]

#: bytes, bytearray, memoryview, anything else with a buffer, or a 1-D uint8 tensor. (``collections.abc.Buffer``
#: is new in Python 3.12.)
Buffer: TypeAlias = Any

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype = ctypes.py_object
_new_bytes.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_bytes_address = ctypes.pythonapi.PyBytes_AsString
_bytes_address.restype = ctypes.c_void_p
_bytes_address.argtypes = [ctypes.py_object]


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` of the stable ABI (https://docs.python.org/3/c-api/buffer.html)."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_PyBuffer)]
_release_buffer.restype = None

_PYBUF_SIMPLE = 0


def _tensor_at(address: int, size: int) -> torch.Tensor:
    """A uint8 tensor over memory that the caller keeps alive.

    torch.frombuffer warns of read-only sources, and a warning filter would not be thread-safe; a ctypes array
    is writable.
    """
    if size == 0:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)


def new_bytes(size: int) -> tuple[bytes, torch.Tensor]:
    """A bytes object that is not filled yet, and its memory, to be filled before anybody else sees it.

    That is what the C API has ``PyBytes_FromStringAndSize(NULL, size)`` for.
    """
    data: bytes = _new_bytes(None, size)
    return data, _tensor_at(_bytes_address(data), size)


def bytes_of(tensor: torch.Tensor) -> bytes:
    """A copy of a contiguous uint8 tensor."""
    return ctypes.string_at(tensor.data_ptr(), tensor.numel())


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous uint8 tensor on the CPU, as long as the tensor lives."""
    size = tensor.numel()
    return memoryview((ctypes.c_uint8 * size).from_address(tensor.data_ptr()) if size else b"").cast("B")


@contextlib.contextmanager
def as_tensor(data: Buffer, *, writable: bool) -> Iterator[torch.Tensor]:
    """The memory of ``data`` as a 1-D uint8 tensor.

    Args:
        data: see :data:`Buffer`.
        writable: the tensor keeps ``data`` alive and outlives the context. Otherwise it is only read, within it.

    Raises:
        TypeError: no buffer.
        ValueError: a buffer that is not contiguous, or not writable where it must be.
    """
    if isinstance(data, torch.Tensor):
        if data.is_meta:
            raise ValueError("data: is on the meta device, and has no bytes to load from")
        yield data
        return
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(
            f"data: expected bytes, bytearray, memoryview, another buffer or a 1-D uint8 tensor, "
            f"not {type(data).__name__}"
        ) from None
    if not view.c_contiguous:
        raise ValueError("data: the buffer is not contiguous")
    if writable:
        if view.readonly:
            raise ValueError(f"data: copy=False needs a writable buffer, and this {type(data).__name__} is read-only")
        yield torch.frombuffer(view.cast("B"), dtype=torch.uint8) if view.nbytes else _tensor_at(0, 0)
        return
    buffer = _PyBuffer()
    _get_buffer(view, ctypes.byref(buffer), _PYBUF_SIMPLE)
    try:
        yield _tensor_at(buffer.buf, buffer.len)
    finally:
        _release_buffer(ctypes.byref(buffer))
