"""Bytes that several ranks need, read from storage once and passed on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ._boxes import LocalBox, Read, read_boxes
from ._cost import block_of
from ._group import ElsewhereError, lost_ranks

__all__ = ["Shared", "read_shared"]

#: The name torch gives it since 2.13, and the one before.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

#: Where tensors begin in a block. The first so many bytes say whether the block could be read.
_ALIGNMENT = 64


class Shared(NamedTuple):
    """A stored tensor that ranks read together, and what this rank wants of it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    box: LocalBox
    out: torch.Tensor


class _Piece(NamedTuple):
    """One range of a tensor's bytes, and where it lies in its block."""

    tensor: int
    box: LocalBox
    begin: int


def read_shared(handle: Any, source: str, tensors: Sequence[Shared], group: dist.ProcessGroup) -> None:
    """Fills each tensor's ``out`` on all ranks of a group, which pass the same tensors, bar ``box`` and ``out``.

    In rounds: each rank reads one block, and gets those of all others, while it reads that of the next round. Holds two
    rounds in memory.

    Raises:
        RuntimeError: another rank was lost.
        ElsewhereError: another rank could not read its block; that one raises why.
    """
    ranks, rank = group.size(), group.rank()
    limit = max(block_of(ranks), 4 * _ALIGNMENT)
    blocks = list(_blocks(tensors, limit))
    if not blocks:
        return
    size = max(_end(block[-1], tensors) for block in blocks)
    device = _device_of(tensors)
    rounds = range(math.ceil(len(blocks) / ranks))

    def read(number: int) -> tuple[torch.Tensor, Exception | None]:
        buffer = torch.zeros(size, dtype=torch.uint8, device=device)
        mine = number * ranks + rank
        try:
            if mine < len(blocks):
                read_boxes(handle, [_read(buffer, piece, tensors) for piece in blocks[mine]])
        except Exception as error:
            buffer[0] = 1
            return buffer, error
        return buffer, None

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, 0)
        for number in rounds:
            own, error = ahead.result()
            if number + 1 < len(rounds):
                ahead = reader.submit(read, number + 1)
            all_blocks = torch.empty(ranks * size, dtype=torch.uint8, device=device)
            with lost_ranks(source, "passing on what was read"):
                _all_gather(all_blocks, own, group=group)
            by_rank = all_blocks.view(ranks, size)
            _check(error, by_rank, source)
            for block, buffer in zip(blocks[number * ranks : (number + 1) * ranks], by_rank, strict=False):
                for piece in block:
                    _copy_common(tensors[piece.tensor], piece, _view(buffer, piece, tensors))


def _check(error: Exception | None, by_rank: torch.Tensor, source: str) -> None:
    if error is not None:
        raise error
    failed = by_rank[:, 0].nonzero().flatten().tolist()
    if failed:
        raise ElsewhereError(f"{source}: rank {failed[0]} could not read its share")


def _device_of(tensors: Sequence[Shared]) -> torch.device:
    """Where the group moves bytes: the tensors' own device, so that no backend has to copy twice."""
    return tensors[0].out.device


def _blocks(tensors: Sequence[Shared], limit: int) -> Iterator[list[_Piece]]:
    block: list[_Piece] = []
    end = _ALIGNMENT
    for index, tensor in enumerate(tensors):
        for box in _ranges(tensor.shape, tensor.dtype.itemsize, limit - _ALIGNMENT):
            nbytes = _aligned(math.prod(box.shape) * tensor.dtype.itemsize)
            if block and end + nbytes > limit:
                yield block
                block, end = [], _ALIGNMENT
            block.append(_Piece(index, box, end))
            end += nbytes
    if block:
        yield block


def _ranges(shape: tuple[int, ...], itemsize: int, limit: int) -> Iterator[LocalBox]:
    """Cuts a tensor into parts that are each one range of its bytes, of at most ``limit``."""
    if 0 in shape:
        return
    inner = itemsize * math.prod(shape)
    dim = 0
    while dim < len(shape) and inner // shape[dim] > limit:
        inner //= shape[dim]
        dim += 1
    if dim == len(shape):
        yield LocalBox((0,) * dim, tuple(shape))
        return
    row = inner // shape[dim]
    step = max(limit // row, 1)
    for number in range(math.prod(shape[:dim])):
        outer = []
        for size in reversed(shape[:dim]):
            number, index = divmod(number, size)
            outer.append(index)
        for begin in range(0, shape[dim], step):
            offsets = (*reversed(outer), begin, *(0 for _ in shape[dim + 1 :]))
            yield LocalBox(offsets, (*(1 for _ in outer), min(step, shape[dim] - begin), *shape[dim + 1 :]))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _end(piece: _Piece, tensors: Sequence[Shared]) -> int:
    return piece.begin + _aligned(math.prod(piece.box.shape) * tensors[piece.tensor].dtype.itemsize)


def _view(buffer: torch.Tensor, piece: _Piece, tensors: Sequence[Shared]) -> torch.Tensor:
    dtype = tensors[piece.tensor].dtype
    nbytes = math.prod(piece.box.shape) * dtype.itemsize
    return buffer[piece.begin : piece.begin + nbytes].view(dtype).view(piece.box.shape)


def _read(buffer: torch.Tensor, piece: _Piece, tensors: Sequence[Shared]) -> Read:
    return Read(tensors[piece.tensor].name, piece.box.offsets, _view(buffer, piece, tensors))


def _copy_common(tensor: Shared, piece: _Piece, values: torch.Tensor) -> None:
    """Copies what a piece and this rank's part of the tensor have in common."""
    out = tensor.out
    for dim, (begin, length, own_begin, own_length) in enumerate(
        zip(piece.box.offsets, piece.box.shape, tensor.box.offsets, tensor.box.shape, strict=True)
    ):
        first, last = max(begin, own_begin), min(begin + length, own_begin + own_length)
        if first >= last:
            return
        values = values.narrow(dim, first - begin, last - first)
        out = out.narrow(dim, first - own_begin, last - first)
    with torch.no_grad():
        out.copy_(values)
