"""Runs functions of test modules as the ranks of a process group."""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

__all__ = ["Outcome", "outcomes_of_ranks", "run_ranks"]

#: Ranks are forked off a process that has imported torch, and has no threads yet: each starts in no time.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch.distributed.fsdp", "torch.distributed.tensor.parallel", "pytest", "torch_safetensors"]
)


@dataclass
class Outcome:
    """What became of a rank: it returned, or raised, or did neither."""

    value: Any = None
    error: BaseException | None = None
    traceback: str = ""
    #: Of the process; negative where a signal ended it.
    exit_status: int | None = None

    @property
    def has_returned(self) -> bool:
        return self.error is None and self.exit_status == 0


def run_ranks(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 60) -> list[Any]:
    """Calls ``function(*arguments)`` on every rank of a new gloo group, and returns what each returned, by rank.

    The function is one of a test module; what goes in and out is pickled. A rank that raises, dies, or has not returned
    after ``timeout`` seconds fails the test, with all tracebacks there are.
    """
    outcomes = outcomes_of_ranks(world_size, function, *arguments, timeout=timeout)
    failed = [
        f"rank {rank} (exit status {outcome.exit_status}): {outcome.traceback or 'died or was killed at the timeout'}"
        for rank, outcome in enumerate(outcomes)
        if not outcome.has_returned
    ]
    assert not failed, "\n".join(failed)
    return [outcome.value for outcome in outcomes]


def outcomes_of_ranks(
    world_size: int,
    function: Callable[..., Any],
    *arguments: Any,
    timeout: float = 60,
    group_timeout: float = 30,
    before: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """The same for ranks that may fail. ``group_timeout``: seconds that the group waits for one that does not come.
    ``before`` is called with the rank before there is a group.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        places = [_Place(rank, world_size, store, group_timeout, before) for rank in range(world_size)]
        ranks = [_start(function, arguments, place) for place in places]
        end = time.monotonic() + timeout
        try:
            return [_finish(process, answers, end) for process, answers in ranks]
        finally:
            for process, _ in ranks:
                process.kill()


class _Place(NamedTuple):
    rank: int
    world_size: int
    store: str
    group_timeout: float
    before: Callable[[int], None] | None


def _start(function: Callable[..., Any], arguments: tuple[Any, ...], place: _Place) -> Any:
    answers, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(function, arguments, place, sender))
    process.start()
    sender.close()
    return process, answers


def _run(function: Callable[..., Any], arguments: tuple[Any, ...], place: _Place, sender: Any) -> None:
    faulthandler.enable()
    torch.set_num_threads(1)
    if place.before is not None:
        place.before(place.rank)
    timeout = datetime.timedelta(seconds=place.group_timeout)
    dist.init_process_group("gloo", f"file://{place.store}", timeout, place.world_size, place.rank)
    try:
        outcome = Outcome(function(*arguments))
    except BaseException as error:
        outcome = Outcome(error=error, traceback=traceback.format_exc())
    sender.send(outcome)
    if outcome.error is None:
        dist.destroy_process_group()


def _finish(process: Any, answers: Any, end: float) -> Outcome:
    outcome = Outcome()
    if multiprocessing.connection.wait([answers], max(0.0, end - time.monotonic())):
        with contextlib.suppress(EOFError):  # of one that died
            outcome = answers.recv()
    else:
        os.kill(process.pid, signal.SIGABRT)  # and says where it hangs
    process.join(10)
    if process.is_alive():
        process.kill()
        process.join()
    outcome.exit_status = process.exitcode
    return outcome
