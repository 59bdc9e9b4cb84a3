"""The commanding side of a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

from .memory import Usage, peak_growth
from .peers import PEERS
from .settings import ROOT, Settings

#: Between two looks at a worker's memory.
MEMORY_INTERVAL = 0.0005


class WorkerError(Exception):
    """Why a worker's time does not count; ``lost`` if it is no longer there."""

    def __init__(self, message: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost


class RemoteWorker:
    """A worker process with a peer in it; raises WorkerError where the peer cannot be imported."""

    def __init__(self, peer: str, settings: Settings) -> None:
        self.peer = peer
        self._settings = settings
        self._log_path = settings.disk / f"{peer}.log"
        ours, theirs = socket.socketpair()
        folder = PEERS[peer].folder
        search = [str(settings.peers / folder)] if folder else []
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*search, str(ROOT)])}
        with theirs, self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", str(theirs.fileno()), peer],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
            )
        self._connection = Connection(ours.detach())
        try:
            self.version: str = self.call("start")["version"]
        except WorkerError:
            self.close()
            raise

    @property
    def process(self) -> int:
        return self._process.pid

    def call(self, command: str, *arguments: Any) -> Any:
        self._send(command, arguments)
        if not self._connection.poll(self._settings.timeout):
            self.close()
            raise WorkerError(f"no answer in {self._settings.timeout:.0f} s", lost=True)
        return self._receive()

    def peak_in_fork(self, case: str) -> dict[str, int]:
        """Bytes that one run of the case adds to a fork of the worker, watched from outside."""
        process = self.call("fork")
        try:
            self.call("prepare", case, self._settings)
            samples = []
            self._send("peak", ())
            deadline = time.monotonic() + self._settings.timeout
            while not self._connection.poll(MEMORY_INTERVAL):
                samples.append(Usage.now(process))
                if time.monotonic() > deadline:
                    os.kill(process, signal.SIGKILL)  # which the worker reports
            before, after = self._receive()
            self.call("finish")
            return peak_growth(before, after, samples)
        finally:
            if not self._connection.closed:
                self.call("leave")

    def _send(self, command: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._connection.send((command, arguments))
        except OSError:
            raise self._death() from None

    def _receive(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind != "done":
            raise WorkerError(value if kind == "cannot" else f"{kind}: {value}")
        return value

    def _death(self) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self.close()
        last_words = self._log_path.read_text(errors="replace").strip().splitlines()[-1:]
        return WorkerError(f"died with {self._process.returncode}: {' '.join(last_words)}", lost=True)

    def close(self) -> None:
        """Ends the process; a fork of it ends when nobody talks to it any more."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
