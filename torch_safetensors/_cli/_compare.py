"""Compares the values of two tensors of one shape, in pieces, so that large ones need little memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Difference", "compare"]

#: In bytes: temporary copies in float64 are up to sixteen times as large.
_PIECE = 1 << 23

#: Views of any dtype as bits.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: The sixteen values of float4_e2m1fn.
_FLOAT4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_SIGN = -(2**63)


@dataclass
class Difference:
    """What two tensors differ in."""

    #: How many elements are neither of the same bits nor as close as is asked for.
    elements: int = 0
    #: The largest absolute difference of all elements that are numbers in both, whether they count or not.
    largest: float | int = 0
    #: How many of ``elements`` are NaN in one or both.
    nans: int = 0

    def add(self, other: Difference) -> None:
        """Takes in another part of the same tensor."""
        self.elements += other.elements
        self.largest = max(self.largest, other.largest)
        self.nans += other.nans


def compare(a: torch.Tensor, b: torch.Tensor, atol: float = 0, rtol: float = 0) -> Difference:
    """Compares two tensors of the same shape, of any dtypes.

    Elements are the same if their bits are (so may NaNs be), if they are equal as numbers (so are both zeros), or if
    ``|a - b| <= atol + rtol * |b|``. Integers of one dtype are compared exactly, others as float64. Of different
    dtypes any NaN is the same as any other.
    """
    difference = Difference()
    if a.dtype != b.dtype:
        a, b = _unpacked(a), _unpacked(b)
    a, b = a.reshape(-1), b.reshape(-1)
    length = _PIECE // max(a.element_size(), b.element_size())
    for begin in range(0, a.numel(), length):
        piece = slice(begin, begin + length)
        difference.add(_compare_piece(a[piece], b[piece], atol, rtol))
    return difference


def _compare_piece(a: torch.Tensor, b: torch.Tensor, atol: float, rtol: float) -> Difference:
    if a.dtype != b.dtype:
        a, b = _to_float(a), _to_float(b)
        return _compare_numbers(a, b, a.isnan() & b.isnan(), atol, rtol)
    bits_a, bits_b = _to_bits(a), _to_bits(b)
    if torch.equal(bits_a, bits_b):
        return Difference()
    if a.dtype in _EXACT:
        return _compare_integers(_EXACT[a.dtype](a), _EXACT[b.dtype](b), atol, rtol)
    a, b = _to_float(a), _to_float(b)
    # Two elements in a byte have no bits of their own there, and are never NaN.
    same_bits = bits_a == bits_b if bits_a.numel() == a.numel() else a == b
    return _compare_numbers(a, b, same_bits, atol, rtol)


def _compare_numbers(a: torch.Tensor, b: torch.Tensor, identical: torch.Tensor, atol: float, rtol: float) -> Difference:
    distance = (a - b).abs()
    # A tolerance that is a share of infinity would be infinite.
    same = identical | (a == b) | ((distance <= atol + rtol * b.abs()) & b.isfinite())
    nan = a.isnan() | b.isnan()
    # The distance of an infinity to itself is NaN, too.
    known = distance[~(nan | distance.isnan())]
    return Difference(int((~same).sum()), float(known.max()) if known.numel() else 0, int((nan & ~same).sum()))


def _compare_integers(a: torch.Tensor, b: torch.Tensor, atol: float, rtol: float) -> Difference:
    """Of int64; the difference may need 64 bits without a sign."""
    distance = torch.maximum(a, b) - torch.minimum(a, b)
    # Those that went past the largest int64 came out negative.
    wrapped = distance[distance < 0]
    largest = int(wrapped.max()) + 2**64 if wrapped.numel() else int(distance.max())
    unsigned = distance.double() + (distance < 0) * 2.0**64
    differs = (distance != 0) & (unsigned > atol + rtol * b.double().abs())
    return Difference(int(differs.sum()), largest)


def _to_float(tensor: torch.Tensor) -> torch.Tensor:
    return _unpacked(tensor).to(torch.complex128 if tensor.is_complex() else torch.float64)


def _unpacked(tensor: torch.Tensor) -> torch.Tensor:
    """Of float4, two elements to a byte, a flat copy in float32, since torch converts it to nothing."""
    if tensor.dtype is not torch.float4_e2m1fn_x2:
        return tensor
    pairs = tensor.reshape(-1).view(torch.uint8)
    return torch.tensor(_FLOAT4)[torch.stack((pairs & 15, pairs >> 4), dim=-1).int()].reshape(-1)


def _to_bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(_BITS[tensor.element_size()])


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.int64)


def _shifted(tensor: torch.Tensor) -> torch.Tensor:
    """uint64 as int64 of the same order and distances."""
    return tensor.view(torch.int64) ^ _SIGN


_EXACT: dict[torch.dtype, Callable[[torch.Tensor], torch.Tensor]] = {
    torch.bool: _widened,
    torch.uint8: _widened,
    torch.int8: _widened,
    torch.uint16: _widened,
    torch.int16: _widened,
    torch.uint32: _widened,
    torch.int32: _widened,
    torch.int64: _widened,
    torch.uint64: _shifted,
}
