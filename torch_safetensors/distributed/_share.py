"""Bytes that several ranks need, read from storage once and passed on."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from .._warnings import warn
from ._boxes import LocalBox, Read, read_boxes
from ._cost import block_of
from ._group import ElsewhereError, all_gather, lost_ranks, together
from ._interrupts import hear, signals_held

__all__ = ["Shared", "read_shared"]

#: Where tensors begin in a block. The first so many bytes say whether the block could be read.
_ALIGNMENT = 64
#: Rows are so small that a block holds at least so many, and little of it is left over.
_ROWS = 16
#: complex128.
_LARGEST_NUMBER = 16


class Shared(NamedTuple):
    """A part of a stored tensor that ranks read together, and what this rank wants of it, and where to."""

    name: str
    part: LocalBox
    dtype: torch.dtype
    #: Boxes within the part.
    wanted: Sequence[tuple[LocalBox, torch.Tensor]]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.part.shape


class _Piece(NamedTuple):
    """One range of a part's bytes, and where it lies in its block."""

    tensor: int
    box: LocalBox
    begin: int


def read_shared(
    handle: Any, source: str, tensors: Sequence[Shared], group: dist.ProcessGroup, device: torch.device
) -> None:
    """Fills what each rank of a group wants of the tensors, which are the same on all of them.

    In rounds: each rank reads one block, and gets those of all others, while it reads that of the next round. Holds two
    rounds in memory, on ``device``, which is one where the group moves bytes.

    Where it raises on one rank, it does on all. It exchanges what the ranks read, so that none may leave it out.

    Raises:
        RuntimeError: another rank was lost.
        ElsewhereError: another rank could not read its block, or take what it was sent; that one raises why.
    """
    # A rank that stopped between two rounds would be missed in the next.
    with signals_held(), ThreadPoolExecutor(1) as reader:
        begun: list[tuple[_Rounds, Future[BaseException | None]]] = []

        def begin() -> None:
            rounds = _Rounds(handle, tensors, group, device)
            begun.append((rounds, reader.submit(rounds.read, 0)))

        # All have what they need to take part, or none goes on.
        together(group, source, "making room for what is passed on", begin)
        _run_rounds(*begun[0], source, reader)


class _Rounds:
    """The blocks that the ranks read, and memory for those of two rounds."""

    def __init__(self, handle: Any, tensors: Sequence[Shared], group: dist.ProcessGroup, device: torch.device) -> None:
        self._handle = handle
        self._tensors = tensors
        self.group = group
        ranks = group.size()
        blocks = list(_blocks(tensors, _block_size(tensors, ranks)))
        self._rounds = [blocks[begin : begin + ranks] for begin in range(0, len(blocks), ranks)]
        self._sizes = [max(_end(block[-1], tensors) for block in of_round) for of_round in self._rounds]
        size = max(self._sizes, default=0)
        own = torch.empty(2, size, dtype=torch.uint8, device=device)
        self._own = [own[number % 2, :size] for number, size in enumerate(self._sizes)]
        self._all = own.new_empty(ranks * size)

    def __len__(self) -> int:
        return len(self._rounds)

    def own(self, number: int) -> torch.Tensor:
        """Where this rank reads its block of a round; the one after the next has the same memory."""
        return self._own[number]

    def all(self, number: int) -> torch.Tensor:
        """The blocks of all ranks; those of the next round have the same memory."""
        return self._all[: self.group.size() * self._sizes[number]]

    def read(self, number: int) -> BaseException | None:
        """Reads this rank's block of a round, if there is one."""
        try:
            blocks = self._rounds[number] if number < len(self) else []
            if self.group.rank() < len(blocks):
                block = blocks[self.group.rank()]
                read_boxes(self._handle, [_read(self._own[number], piece, self._tensors) for piece in block])
        except BaseException as error:
            return error
        return None

    def copy(self, number: int, overflows: Any) -> BaseException | None:
        """Copies to where they are wanted what the ranks have read."""
        try:
            by_rank = self.all(number).view(self.group.size(), -1)
            _copy_round(self._rounds[number], by_rank, self._tensors, overflows)
        except BaseException as error:
            return error
        return None


def _run_rounds(rounds: _Rounds, ahead: Future[BaseException | None], source: str, reader: ThreadPoolExecutor) -> None:
    overflows = torch.classes.safetensors._Overflows()
    failed: BaseException | None = None
    for number in range(len(rounds)):
        read = ahead.result()
        # That of the round before the others have to be told, too.
        error = next((error for error in (failed, read, _interrupt()) if error is not None), None)
        own = rounds.own(number)
        own[0] = error is not None
        ahead = reader.submit(rounds.read, number + 1)
        with lost_ranks(source, "passing on what was read"):
            all_gather(rounds.all(number), own, group=rounds.group)
        _check(error, rounds.all(number).view(rounds.group.size(), -1), source)
        failed = rounds.copy(number, overflows)
    if failed is not None:
        raise failed
    warn(overflows.warning(source))


def _interrupt() -> BaseException | None:
    try:
        hear()
    except BaseException as raised:
        return raised
    return None


def _check(error: BaseException | None, by_rank: torch.Tensor, source: str) -> None:
    if error is not None:
        raise error
    failed = by_rank[:, 0].nonzero().flatten().tolist()
    if failed:
        raise ElsewhereError(f"{source}: rank {failed[0]} could not do its share")


def _block_size(tensors: Sequence[Shared], ranks: int) -> int:
    """The most that fits in a round; less where the last round, or the only one, would be nearly empty otherwise."""
    limit = block_of(ranks)
    total = sum(_aligned(math.prod(tensor.shape) * tensor.dtype.itemsize) for tensor in tensors)
    rounds = math.ceil(total / (ranks * limit))
    even = math.ceil(total / (max(rounds, 1) * ranks))
    # Rows do not fill a block to the end; the smallest holds so many of the largest numbers.
    return max(min(limit, even + even // _ROWS), _ALIGNMENT + _ROWS * _LARGEST_NUMBER)


def _blocks(tensors: Sequence[Shared], limit: int) -> Iterator[list[_Piece]]:
    """Fills blocks one after the other; where a tensor does not fit, its other rows are in the next."""
    block: list[_Piece] = []
    end = _ALIGNMENT
    for index, tensor in enumerate(tensors):
        for run in _runs(tensor.shape, tensor.dtype.itemsize, (limit - _ALIGNMENT) // _ROWS):
            begin = 0
            while begin < run.rows:
                rows = min((limit - end) // run.nbytes, run.rows - begin)
                if rows > 0:
                    block.append(_Piece(index, run.box(begin, rows), end))
                    begin += rows
                    end += _aligned(rows * run.nbytes)
                if begin < run.rows:
                    yield block
                    block, end = [], _ALIGNMENT
    if block:
        yield block


class _Run(NamedTuple):
    """Rows of a tensor that follow each other in the file."""

    #: Where they are, in the dimensions outside of that of the rows.
    outer: tuple[int, ...]
    rows: int
    #: The shape of one; None of a tensor without dimensions, which is one row.
    row: tuple[int, ...] | None
    #: Of one row.
    nbytes: int

    def box(self, begin: int, rows: int) -> LocalBox:
        if self.row is None:
            return LocalBox((), ())
        offsets = (*self.outer, begin, *(0 for _ in self.row))
        return LocalBox(offsets, (*(1 for _ in self.outer), rows, *self.row))


def _runs(shape: tuple[int, ...], itemsize: int, most: int) -> Iterator[_Run]:
    """Of the outermost dimension whose rows have at most so many bytes."""
    if 0 in shape:
        return
    if not shape:
        yield _Run((), 1, None, itemsize)
        return
    dim, nbytes = 0, itemsize * math.prod(shape[1:])
    while nbytes > most:
        dim += 1
        nbytes //= shape[dim]
    for outer in itertools.product(*map(range, shape[:dim])):
        yield _Run(outer, shape[dim], tuple(shape[dim + 1 :]), nbytes)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _end(piece: _Piece, tensors: Sequence[Shared]) -> int:
    return piece.begin + _aligned(math.prod(piece.box.shape) * tensors[piece.tensor].dtype.itemsize)


def _view(buffer: torch.Tensor, piece: _Piece, tensors: Sequence[Shared]) -> torch.Tensor:
    dtype = tensors[piece.tensor].dtype
    nbytes = math.prod(piece.box.shape) * dtype.itemsize
    return buffer[piece.begin : piece.begin + nbytes].view(dtype).view(piece.box.shape)


def _read(buffer: torch.Tensor, piece: _Piece, tensors: Sequence[Shared]) -> Read:
    tensor = tensors[piece.tensor]
    offsets = tuple(map(operator.add, tensor.part.offsets, piece.box.offsets))
    return Read(tensor.name, offsets, _view(buffer, piece, tensors))


def _copy_round(
    of_round: Sequence[list[_Piece]], by_rank: torch.Tensor, tensors: Sequence[Shared], overflows: Any
) -> None:
    for block, buffer in zip(of_round, by_rank, strict=False):
        for piece in block:
            tensor = tensors[piece.tensor]
            for box, out in tensor.wanted:
                if (parts := _common(box, out, piece.box, _view(buffer, piece, tensors))) is not None:
                    into, values = parts
                    overflows.add(tensor.name, values, into.dtype)
                    with torch.no_grad():
                        into.copy_(values)


def _common(
    box: LocalBox, out: torch.Tensor, of_piece: LocalBox, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What a piece and a wanted part have in common: of the part, and of the piece."""
    for dim, (begin, length, own_begin, own_length) in enumerate(zip(*of_piece, *box, strict=True)):
        first, last = max(begin, own_begin), min(begin + length, own_begin + own_length)
        if first >= last:
            return None
        values = values.narrow(dim, first - begin, last - first)
        out = out.narrow(dim, first - own_begin, last - first)
    return out, values
