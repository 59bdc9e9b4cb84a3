"""Processes of a gloo group that do what they are told, one thing at a time."""

from __future__ import annotations

import contextlib
import datetime
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..remote import WorkerError
from .hosts import Host

_CONTEXT = multiprocessing.get_context("spawn")


class Ranks:
    """Raises WorkerError where one of them fails or takes too long."""

    def __init__(self, connections: Sequence[Any], timeout: float) -> None:
        self._connections = connections
        self._timeout = timeout

    def __len__(self) -> int:
        return len(self._connections)

    def call(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What each rank returns, which is told its number after the other arguments."""
        for connection in self._connections:
            connection.send((function, arguments))
        answers = [self._answer(rank, connection) for rank, connection in enumerate(self._connections)]
        for rank, (failure, _) in enumerate(answers):
            if failure:
                raise WorkerError(f"rank {rank}: {failure}")
        return [value for _, value in answers]

    def _answer(self, rank: int, connection: Any) -> Any:
        if not connection.poll(self._timeout):
            raise WorkerError(f"no answer of rank {rank} in {self._timeout:.0f} s", lost=True)
        try:
            return connection.recv()
        except EOFError:
            raise WorkerError(f"rank {rank} died", lost=True) from None


@contextlib.contextmanager
def ranks(count: int, of_hosts: Sequence[Host] | None = None, timeout: float = 120) -> Iterator[Ranks]:
    """A group of so many processes, each on one of the hosts."""
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        pipes = [_CONTEXT.Pipe() for _ in range(count)]
        places = [of_hosts[rank % len(of_hosts)] if of_hosts else None for rank in range(count)]
        processes = [
            _CONTEXT.Process(target=_serve, args=(theirs, rank, count, store, places[rank]), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        try:
            for process in processes:
                process.start()
            yield Ranks([ours for ours, _ in pipes], timeout)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _serve(connection: Any, rank: int, count: int, store: str, host: Host | None) -> None:
    if host is not None:
        host.enter()
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", datetime.timedelta(seconds=60), count, rank)
    while True:
        function, arguments = connection.recv()
        try:
            connection.send(("", function(*arguments, rank)))
        except Exception:
            connection.send((traceback.format_exc(), None))
