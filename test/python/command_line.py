"""The command line, called in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import pytest

import torch_safetensors
from torch_safetensors._cli import main

ROOT = Path(torch_safetensors.__file__).parents[1]


class Result(NamedTuple):
    status: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Calls a command: ``cli("info", path)``."""
    for name in "FORCE_COLOR", "NO_COLOR", "COLUMNS":
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse, which has printed why
            status = int(ended.code or 0)
        return Result(status, *capsys.readouterr())

    return call


def run_program(*arguments: object, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, as ``python -m torch_safetensors``."""
    command = [sys.executable, "-m", "torch_safetensors", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for name in "FORCE_COLOR", "NO_COLOR":
        environment.pop(name, None)
    return subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120)


def lines_of(result: Result) -> list[str]:
    assert result.err == ""
    return result.out.splitlines()
