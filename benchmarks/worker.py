"""A process in which one peer works: ``python -m benchmarks.worker FILE_DESCRIPTOR PEER``, started by remote.py."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from .case import Action, CannotRunError, Case
from .cases import make_case
from .content import WrongError
from .memory import Usage, forget_peak
from .peers import PEERS
from .raw import Raw
from .settings import Settings


class Worker:
    """Its methods are the commands."""

    def __init__(self, peer: str) -> None:
        self._peer = PEERS[peer]()
        self._case: Case | None = None
        self._action: Action | None = None

    def start(self) -> dict[str, str]:
        """Imports the peer."""
        self._peer.start()
        return {"version": self._peer.version()}

    def prepare(self, name: str, settings: Settings) -> None:
        case = make_case(name, settings)
        is_limit = self._peer.name == "limit"
        action = case.limit(Raw(settings.disk)) if is_limit else case.prepare(self._peer)
        self._case, self._action = case, action

    def first(self) -> float:
        """A run that is checked, and warms up. Returns the seconds that a sample takes, with all around it."""
        case, action = self._work()
        start = time.perf_counter()
        case.sample(action)
        elapsed = time.perf_counter() - start
        result = case.take_result()
        if self._peer.name != "limit":
            case.check(result)
        del result
        case.calibrate(action)
        return elapsed

    def sample(self) -> float:
        case, action = self._work()
        seconds = case.sample(action)
        case.take_result()
        return seconds

    def peak(self) -> tuple[Usage, Usage]:
        """Memory before and after one run, with its result still there."""
        case, action = self._work()
        case.before()
        gc.collect()
        forget_peak()
        before = Usage.now()
        result = action()
        after = Usage.now()
        del result
        return before, after

    def finish(self) -> list[str]:
        """Lets go of the case; returns what it has to say."""
        case, self._case, self._action = self._case, None, None
        if case is None:
            return []
        case.finish()
        notes = case.notes
        del case
        self._peer.release()
        gc.collect()
        return notes

    def _work(self) -> tuple[Case, Action]:
        if self._case is None or self._action is None:
            raise RuntimeError("prepare comes first")
        return self._case, self._action


def serve(connection: Connection, worker: Worker, *, in_fork: bool = False) -> None:
    """Answers (command, arguments) with (kind, value) until the other side closes.

    After ``fork``, a fork of the process answers, until ``leave``.
    """
    while True:
        try:
            command, arguments = connection.recv()
        except EOFError:
            return
        if command == "fork":
            serve_in_fork(connection, worker)
            continue
        if command == "leave":
            connection.send(("done", None))
            if in_fork:
                return
            continue
        try:
            answer: tuple[str, Any] = "done", getattr(worker, command)(*arguments)
        except (ImportError, CannotRunError) as error:
            answer = "cannot", str(error)
        except WrongError as error:
            answer = "wrong", str(error)
        except Exception as error:
            traceback.print_exc()
            answer = "failed", f"{type(error).__name__}: {error}"
        connection.send(answer)


def serve_in_fork(connection: Connection, worker: Worker) -> None:
    child = os.fork()
    if child == 0:
        connection.send(("done", os.getpid()))
        serve(connection, worker, in_fork=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        connection.send(("failed", f"died with {os.waitstatus_to_exitcode(status)}"))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Worker(sys.argv[2]))
