"""What ranks do together: agree, or fail with the same error."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

__all__ = [
    "ElsewhereError",
    "LostError",
    "all_gather",
    "check_same",
    "device_of",
    "group_of",
    "lost_ranks",
    "together",
    "world",
]

T = TypeVar("T")

#: ``dist.all_gather_into_tensor``, which has another name since torch 2.13.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class ElsewhereError(RuntimeError):
    """What a rank raises where another one's error, which says more, kept it from going on."""


class LostError(RuntimeError):
    """What a rank raises that another one left alone."""


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


@contextlib.contextmanager
def lost_ranks(source: str, doing: str) -> Iterator[None]:
    """Tells what the ranks were at when another one died or did not come within the group's timeout.

    Only for what communicates: any RuntimeError in here is taken for that.
    """
    try:
        yield
    except RuntimeError as error:  # of gloo, and DistBackendError of others, which is one
        raise LostError(f"{source}: another rank was lost while {doing}: {error}") from error


def together(group: dist.ProcessGroup, source: str, doing: str, action: Callable[[], T]) -> list[T]:
    """Runs ``action`` on every rank, and returns what each of them gave, which must be small, by rank.

    Where it raises on any rank, all raise what the first of these raised: none goes on alone, and none waits for a rank
    that will not come.
    """
    own: tuple[T | None, Exception | None]
    try:
        own = action(), None
    except Exception as raised:
        own = None, raised
    with lost_ranks(source, doing):
        outcomes = _exchange(group, own)
    errors = [error for _, error in outcomes if error is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, ElsewhereError)), errors[0])
    return [result for result, _ in outcomes]


#: What the last exchange did. A thread of gloo's lets go of it after the ranks went on; were it the last to hold it, it
#: would need the interpreter to let go of the tensors, and abort a program that has ended meanwhile. That is what
#: happens after ``dist.all_gather_object``: to one of some 30 processes that do nothing afterwards.
_kept: list[dist.Work] = []


def _exchange(group: dist.ProcessGroup, value: object) -> list[Any]:
    """``dist.all_gather_object``, but for that."""
    device = device_of(group)
    own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8).to(device)
    size = torch.tensor([own.numel()], device=device)
    sizes = size.new_empty(group.size())
    first = _wait(all_gather(sizes, size, group=group, async_op=True))
    largest = int(sizes.max())
    padded = torch.nn.functional.pad(own, (0, largest - own.numel()))
    everything = padded.new_empty(group.size() * largest)
    second = _wait(all_gather(everything, padded, group=group, async_op=True))
    _kept[:] = [first, second]
    rows = everything.view(group.size(), largest).cpu()
    return [pickle.loads(row[:length].numpy().tobytes()) for row, length in zip(rows, sizes.tolist(), strict=True)]


def _wait(work: dist.Work) -> dist.Work:
    work.wait()
    return work


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
