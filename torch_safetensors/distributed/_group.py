"""What ranks do together: agree, or fail with the same error."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import pickle
import re
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from .._errors import printable
from ._carried import make_portable, trace_of
from ._interrupts import hear, hear_if_urgent, signals_heard, signals_held

__all__ = [
    "ElsewhereError",
    "LostError",
    "StoppedError",
    "all_gather",
    "check_same",
    "device_of",
    "group_of",
    "lost_ranks",
    "source_of",
    "together",
    "together_after",
    "world",
]

T = TypeVar("T")

#: ``dist.all_gather_into_tensor``, which has another name since torch 2.13.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class ElsewhereError(RuntimeError):
    """What a rank raises where another one's error, which says more, kept it from going on."""


class StoppedError(RuntimeError):
    """What a rank raises where another one was interrupted, or ended."""


class LostError(RuntimeError):
    """What a rank raises that another one left alone."""


class _RaisedThereError(Exception):
    """Where an error was raised that came from another rank: its cause, as Python prints it."""


#: What torch says where a rank is gone or late. All of gloo's own errors begin with the file that they are from.
_IS_LOST = re.compile(r"gloo/|\bMPI error\b|timed out|timeout|connection (closed|reset|refused)", re.IGNORECASE)


def group_of(mesh: DeviceMesh) -> dist.ProcessGroup:
    """The process group of all ranks of a mesh. Raises ValueError where torch has none."""
    if mesh.ndim == 1:
        return mesh.get_group()
    if mesh.size() == dist.get_world_size():
        return world()
    raise ValueError(
        f"a mesh of {mesh.ndim} dimensions over {mesh.size()} of {dist.get_world_size()} ranks has no process group of "
        "its own: pass process_group"
    )


def world() -> dist.ProcessGroup:
    """The process group of all ranks. Raises ValueError where there is none."""
    group = dist.group.WORLD
    if group is None:
        raise ValueError("torch.distributed is not initialized: call init_process_group() first")
    return group


def source_of(path: object) -> str:
    """A path in messages; also of what is none, which all ranks are told when it is opened."""
    return printable(path) if isinstance(path, (str, os.PathLike)) else repr(path)


@contextlib.contextmanager
def lost_ranks(source: str, doing: str) -> Iterator[None]:
    """Tells what the ranks were at when another one died or did not come within the group's timeout.

    Errors that are about something else keep their own words.
    """
    try:
        yield
    except RuntimeError as error:
        # Those of gloo have no class of their own.
        if isinstance(error, dist.DistError) or (type(error) is RuntimeError and _IS_LOST.search(str(error))):
            raise LostError(f"{source}: another rank was lost while {doing}: {error}") from error
        raise


class _Told(NamedTuple):
    """An error as other ranks get it, and where it was raised."""

    error: BaseException
    trace: str


#: What a row of an exchange begins with: what follows is a result or an error; or the rank was stopped as it waited.
_RESULT, _ERROR, _STOPPED = range(3)


def together(group: dist.ProcessGroup, source: str, doing: str, action: Callable[[], T]) -> list[T]:
    """Runs ``action`` on every rank, and returns what each of them gave, which must be small, by rank.

    Where it raises on any rank, all raise what the first of these raised: none goes on alone, and none waits for a rank
    that will not come. A rank that is interrupted raises that itself; the others raise StoppedError, which says so.

    The action exchanges nothing, which a rank that fails before it would not take part in: see :func:`together_after`.
    """
    with signals_held():
        error, own = _outcome(group, source, doing, action)
        try:
            rows, stopped = _exchange(group, source, doing, own)
        except Exception as lost:
            if error is not None:  # the others left, maybe for that
                raise error from lost
            raise
        error = error if stopped is None else stopped
        if error is not None and not isinstance(error, Exception):
            raise error
        results, told = _read(rows, source, doing)
        if not told:
            return results
        rank = min(told, key=lambda rank: (_says_less(told[rank].error), rank))
        if rank == group.rank() and error is not None:
            raise error
        raise told[rank].error from _RaisedThereError(f"rank {rank}:\n{told[rank].trace}")


def together_after(group: dist.ProcessGroup, source: str, doing: str, action: Callable[[], object]) -> None:
    """The same for an action that exchanges something: it begins on every rank, whatever comes. Within signals_held."""
    error: BaseException | None = None
    try:
        action()
    except BaseException as raised:
        error = raised

    def tell() -> None:
        if error is not None:
            raise error

    together(group, source, doing, tell)


def _says_less(error: BaseException) -> int:
    return 2 if isinstance(error, ElsewhereError) else 1 if isinstance(error, StoppedError) else 0


def _outcome(
    group: dist.ProcessGroup, source: str, doing: str, action: Callable[[], object]
) -> tuple[BaseException | None, bytearray]:
    """What an action raised, and the row that tells others of it, or of what it returned."""
    try:
        with signals_heard():
            result = action()
        return None, bytearray([_RESULT]) + pickle.dumps(result)
    except BaseException as error:
        told = error
        if not isinstance(error, Exception):  # which would end other ranks without a word
            what = "".join(traceback.format_exception_only(type(error), error)).strip()
            told = StoppedError(f"{source}: rank {group.rank()} raised {what} while {doing}")
        make_portable(told)
        return error, bytearray([_ERROR]) + pickle.dumps(_Told(told, trace_of(error)))


def _read(rows: list[memoryview], source: str, doing: str) -> tuple[list[Any], dict[int, _Told]]:
    """Results and errors by rank."""
    results, told = [], {}
    for rank, row in enumerate(rows):
        if row[0] == _STOPPED:
            told[rank] = _Told(StoppedError(f"{source}: rank {rank} was interrupted while {doing}"), "")
            continue
        value = pickle.loads(row[1:])
        if row[0] == _ERROR:
            told[rank] = value
        else:
            results.append(value)
    return results, told


def _exchange(
    group: dist.ProcessGroup, source: str, doing: str, own: bytearray
) -> tuple[list[memoryview], BaseException | None]:
    """``dist.all_gather_object`` of rows, without numpy; and what a signal raised while this rank waited for others."""
    device = device_of(group)
    size = torch.tensor([len(own)], device=device)
    sizes = size.new_empty(group.size())
    with lost_ranks(source, doing):
        all_gather(sizes, size, group=group)
    stopped = None
    try:
        hear()
    except BaseException as raised:  # all are here now, and can be told
        own[0], stopped = _STOPPED, raised
    largest = int(sizes.max())
    row = torch.frombuffer(own, dtype=torch.uint8).to(device)
    row = torch.nn.functional.pad(row, (0, largest - len(own)))
    everything = row.new_empty(group.size() * largest)
    with lost_ranks(source, doing):
        all_gather(everything, row, group=group)
    memory = bytearray(everything.numel())
    torch.frombuffer(memory, dtype=torch.uint8).copy_(everything)
    view = memoryview(memory)
    return [view[rank * largest :][:length] for rank, length in enumerate(sizes.tolist())], stopped


#: What the last exchange did. A thread of gloo's lets go of it after the ranks went on; were it the last to hold it, it
#: would need the interpreter to let go of the tensors, and abort a program that has ended meanwhile. That is what
#: happens after ``dist.all_gather_object``: to one of some 30 processes that do nothing afterwards.
_kept: collections.deque[dist.Work] = collections.deque(maxlen=2)

#: Seconds between looks at whether the others have come: a rank that waits hears signals.
_LONGEST_PAUSE = 0.01


def all_gather(everything: torch.Tensor, own: torch.Tensor, group: dist.ProcessGroup) -> None:
    """Fills a tensor with those of all ranks, one after the other."""
    work = _all_gather(everything, own, group=group, async_op=True)
    _kept.append(work)
    pause = 1e-5
    while not work.is_completed():
        hear_if_urgent()
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    work.wait()


def device_of(group: dist.ProcessGroup) -> torch.device:
    """Where a group moves bytes: on the CPU if it can."""
    backend = dist.get_backend(group)
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or any(name in backend for name in ("gloo", "mpi", "ucc", "cpu:")):
        return torch.device("cpu")
    return accelerator


def check_same(group: dist.ProcessGroup, source: str, what: str, lines: list[str]) -> None:
    """Raises ValueError on all ranks, with what differs, unless all of them pass the same lines.

    Where they do, digests alone are sent around.
    """
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
    values = together(group, source, f"comparing {what}", lambda: digest)
    if len(set(values)) == 1:
        return
    sources, told = zip(*together(group, source, f"comparing {what}", lambda: (source, lines)), strict=True)
    odd = next(rank for rank, other in enumerate(values) if other != values[0])
    first, other = set(told[0]), set(told[odd])
    raise ValueError(
        f"{sources[0]}: ranks disagree about {what}: rank 0 has {_some(first - other)}, "
        f"rank {odd} has {_some(other - first)}"
    )


def _some(lines: set[str]) -> str:
    shown = sorted(lines)[:3]
    rest = f" and {len(lines) - len(shown)} more" if len(lines) > len(shown) else ""
    return ("; ".join(shown) or "nothing else") + rest
