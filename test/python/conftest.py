from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import cli
from installed import build, packages, prefix, site, wheel

__all__ = ["build", "cli", "packages", "prefix", "site", "wheel"]  # fixtures

HERE = Path(__file__).parent
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what it runs in the background so
    signal.signal(signal.SIGINT, signal.default_int_handler)
#: True for the long form of tests that repeat something until it breaks: make torture.
TORTURE = bool(os.environ.get("TORTURE"))


def serve(calls: Connection) -> None:
    faulthandler.enable()  # shows where it was if it dies, or hangs and is aborted
    while True:
        function, arguments = calls.recv()
        try:
            calls.send((True, function(*arguments)))
        except BaseException as error:
            calls.send((False, error))


class Worker:
    """Another process that runs functions of test modules, so that what hangs or dies is not pytest.

    Its system calls can be made to fail: see faults.c and :mod:`faults`.
    """

    def __init__(self, preload: Path) -> None:
        self._preload = preload
        self._process: Any = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._calls, calls = context.Pipe()
        self._process = context.Process(target=serve, args=(calls,), daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            # A sanitizer's library that is there has to stay the first.
            patch.setenv("LD_PRELOAD", f"{os.environ.get('LD_PRELOAD', '')} {self._preload}".strip())
            self._process.start()
        calls.close()

    def __call__(self, function: Callable[..., Any], *arguments: Any, timeout: float = 60) -> Any:
        if self._process is None:
            self._start()
        self._calls.send((function, arguments))
        if not self._calls.poll(timeout):
            os.kill(self._process.pid, signal.SIGABRT)
            self._process.join(10)
            self.close()
            raise TimeoutError(f"{function.__name__} hangs")
        done, answer = self._calls.recv()
        if not done:
            raise answer
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


@pytest.fixture
def device() -> torch.device:
    """The accelerator that there is."""
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    return torch.device(accelerator.type, torch.accelerator.current_device_index())


@pytest.fixture(scope="session")
def _preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("LD_PRELOAD needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, HERE / "faults.c", "-ldl"]
    subprocess.run([compiler, *options], check=True)
    return library


@pytest.fixture(scope="session")
def worker(_preload: Path) -> Iterator[Worker]:
    with contextlib.closing(Worker(_preload)) as worker:
        yield worker


@pytest.fixture(autouse=True)
def _same_directory_after() -> Iterator[None]:
    before = Path.cwd()
    yield
    assert Path.cwd() == before
