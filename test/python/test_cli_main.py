"""The command line as a program: exit codes, errors in one line, pipes, interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import ROOT, Cli, run_program
from installed import SANITIZE

import torch_safetensors
from torch_safetensors import save_file
from torch_safetensors._cli import _main, _progress, info
from torch_safetensors._cli._errors import one_line

COMMANDS = ["info", "verify", "diff", "convert", "split", "merge", "extract", "rename", "bench"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    save_file({"a.w": torch.zeros(2, 3), "a.b": torch.zeros(3)}, path)
    return path


def test_the_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"torch-safetensors {torch_safetensors.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_an_example(cli: Cli, command: str) -> None:
    result = cli(command, "--help")
    assert result.status == 0
    assert f"\n  torch-safetensors {command} " in result.out.partition("examples:")[2]
    assert f"\n    {command} " in cli("--help").out


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["info"], ["info", "a", "--depth", "0"], ["run"]])
def test_wrong_usage_exits_with_2(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert "usage: torch-safetensors" in result.err


def test_an_error_is_one_line(cli: Cli, tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    expected = f"torch-safetensors: {missing}: No such file or directory\n"
    assert cli("info", missing) == (2, "", expected)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\2\0\0\0\0\0\0\0{]")
    status, out, err = cli("info", bad)
    assert (status, out) == (2, "")
    assert err.startswith(f"torch-safetensors: {bad}: ")
    assert err.count("\n") == 1


def test_errors_of_several_lines_become_one() -> None:
    assert one_line(RuntimeError("first\n  second\x1b[31m")) == "first second\\x1b[31m"
    assert one_line(MemoryError()) == "not enough memory"
    assert one_line(KeyError()) == "KeyError"


def test_a_traceback_on_request(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cli("info", tmp_path / "missing.safetensors", "--traceback")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Also where a shell runs the tests in its background, and so has all of it ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_exits_with_130(cli: Cli, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "list_tensors", interrupted)
    assert cli("info", path) == (130, "", "")


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_becomes_another_error(cli: Cli, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setattr(info, "list_tensors", interrupted)
    assert cli("info", path) == (130, "", "")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_is_ignored(cli: Cli, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(handle: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return list_tensors(handle)

    list_tensors = info.list_tensors
    monkeypatch.setattr(info, "list_tensors", interrupted)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert cli("info", path).status == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_interrupt_of_the_program_is_quiet(path: Path) -> None:
    command = [sys.executable, "-m", "torch_safetensors", "bench", path, "--runs", "1000000000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", "")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    # A file that is mapped is being loaded: the command runs.
    while str(path) not in Path(f"/proc/{process.pid}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        assert process.communicate(timeout=60) == (b"", b"")
    finally:
        process.kill()
    assert process.returncode == 130


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({f"layer.{i}.weight": torch.zeros(1) for i in range(20_000)}, path)
    program = f"{sys.executable} -m torch_safetensors info {path} | head -n 1"
    command = ["bash", "-c", f"{program}; exit ${{PIPESTATUS[0]}}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT) + os.pathsep + os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(f"{path}: 20,000 tensors")
    assert (done.stderr, done.returncode) == ("", 128 + signal.SIGPIPE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_does_not_fit(path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_program("info", path, stdout=full)
    assert (done.returncode, done.stderr) == (2, "torch-safetensors: [Errno 28] No space left on device\n")


def test_a_path_that_is_not_utf_8(cli: Cli, tmp_path: Path, path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.safetensors")
    path.rename(odd)
    assert cli("info", odd).out.startswith(f"{tmp_path}/\\xff.safetensors: 2 tensors")
    assert json.loads(cli("info", odd, "--json").out)["path"] == str(odd)
    assert cli("verify", odd).out.startswith(f"ok   {tmp_path}/\\xff.safetensors: ")
    assert cli("convert", odd, tmp_path / os.fsdecode(b"\xff.pt")).out.startswith(f"{tmp_path}/\\xff.pt: 2 tensors")


def test_as_a_program(path: Path, tmp_path: Path) -> None:
    done = run_program("info", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\na.w " in done.stdout
    done = run_program("info", tmp_path / "missing")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_names_that_the_encoding_of_the_output_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "é.safetensors"
    save_file({"漢": torch.zeros(1)}, path)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_program("info", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n\\u6f22 " in done.stdout


def test_importing_the_package_imports_nothing_of_it() -> None:
    # torch has imported tqdm, where there is one.
    code = """
import sys, torch
before = {*sys.modules}
import torch_safetensors
print({"rich", "tqdm", "plotly", "torch_safetensors._cli"} & ({*sys.modules} - before))"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_run_gets_its_arguments_as_they_are(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    module = types.ModuleType("torch_safetensors._run")
    module.run = calls.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_safetensors._run", module)
    assert cli("run", "script.py", "--version", "-h", "info") == (0, "", "")
    assert calls == [["script.py", "--version", "-h", "info"]]
    assert "SCRIPT" in cli("run", "--help").out
    assert len(calls) == 1


def test_what_a_script_raises_is_its_own_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str]) -> None:
        raise ZeroDivisionError

    module = types.ModuleType("torch_safetensors._run")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_safetensors._run", module)
    with pytest.raises(ZeroDivisionError):
        _main.main(["run", "script.py"])


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tqdm = pytest.importorskip("tqdm")
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, **options: object) -> None:
            super().__init__(**options)
            bars.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    with _progress.progress("comparing", 100) as advance:
        advance(60)
    assert bars == []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with _progress.progress("comparing", 100) as advance:
        advance(60)
        assert (bars[0].desc, bars[0].n, bars[0].total) == ("comparing", 60, 100)
    assert capsys.readouterr().err == ""  # It took less than a second.


@pytest.mark.skipif(bool(SANITIZE), reason="only the library is built with sanitizers")
def test_the_console_script_of_the_wheel(site: Path, path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [site / "bin/torch-safetensors", "info", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: 2 tensors")
