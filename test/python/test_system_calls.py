"""Each system call that the library makes fails in turn, or is the last one: what was asked for is done, or an OSError
says why, and nothing is lost or left behind.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TORTURE
from faults import KILL, calls, failed_call, failing_call
from helpers import assert_same, descriptors, listing
from torch import Tensor

from torch_safetensors import load_file, load_tensor, safe_open, save, save_file

OLD = {"w": torch.arange(100.0)}
NEW = {"w": -torch.arange(200.0), "v": torch.ones(3, dtype=torch.int64)}
#: More than what fsync=True writes past the page cache, in blocks of 8 MiB.
LARGE = {"w": torch.arange(5 << 20, dtype=torch.float32), "v": torch.ones(3)}

#: What calls fail with. None says "there is no such file", which is an answer and no failure.
ERRORS = [errno.EIO, errno.ENOSPC, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMFILE, errno.ENOMEM, errno.EINTR]
SOME_ERRORS = ERRORS if TORTURE else [errno.EIO, errno.ENOSYS, errno.EINTR]
each_error = pytest.mark.parametrize("error", SOME_ERRORS, ids=errno.errorcode.get)
#: These are simply interrupted sometimes, by any signal.
REPEATED = {"open", "flock", "ftruncate", "writev", "pwrite", "pread", "preadv", "fallocate", "fsync", "fchmod"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def each_call_fails(
    error: int, path: Path, prepare: Callable[[], None], work: Callable[[], Any]
) -> Iterator[tuple[str, Any]]:
    """Does the work again and again with one call after another failing; yields its name and what came of the work.

    Ends when the work makes no more calls than that. No descriptor and no mapping of the file may be left.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a file was written in place
        prepare()
        work()  # what happens once in a process is not a part of it
        for index in itertools.count():
            prepare()
            before = descriptors()
            outcome: Any = None
            assert not is_mapped(path)
            with failing_call(index, error):
                try:
                    outcome = work()
                except OSError as caught:
                    outcome = caught.with_traceback(None)
                    outcome.__context__ = None  # its frames would keep alive what they worked on
                call = failed_call()
            assert descriptors() == before, call
            if call is None:
                assert not isinstance(outcome, OSError)
                return
            yield call, outcome


def check_error(outcome: OSError, call: str, error: int, path: Path) -> None:
    what = call, str(outcome)
    assert error != errno.EINTR or call not in REPEATED, what
    assert (outcome.errno, outcome.filename) == (error, str(path)), what


# --- saving --------------------------------------------------------------------------------------------------------


def save_while_calls_fail(path: Path, new: dict[str, Tensor], exists: bool, fsync: bool, error: int) -> list[str]:
    """The names of the calls, of which each failed once."""
    old_bytes, new_bytes = save(OLD), save(new)
    mode = 0o640

    def prepare() -> None:
        path.unlink(missing_ok=True)
        if exists:
            path.write_bytes(old_bytes)
            path.chmod(mode)

    seen = []
    for call, outcome in each_call_fails(error, path, prepare, lambda: save_file(new, path, fsync=fsync)):
        seen.append(call)
        found = path.read_bytes() if path.exists() else None
        if isinstance(outcome, OSError):
            check_error(outcome, call, error, path)
            # After rename, what fails is to flush the directory: whether the name survives a crash is unknown.
            is_renamed = fsync and "rename" in calls()
            assert found == (new_bytes if is_renamed else old_bytes if exists else None), (call, outcome)
        else:
            assert found == new_bytes, call
            assert not exists or call == "fchmod" or stat.S_IMODE(path.stat().st_mode) == mode, call
        assert listing(path.parent) == ([path.name] if path.exists() else []), call
    return seen


@each_error
@pytest.mark.parametrize("fsync", [False, True], ids=["plain", "fsync"])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_each_call_of_a_save_fails(path: Path, worker: Any, error: int, fsync: bool, exists: bool) -> None:
    seen = worker(save_while_calls_fail, path, NEW, exists, fsync, error)
    assert {"stat", "open", "flock", "lstat", "writev", "fcntl", "rename", "close"} <= set(seen)
    assert not fsync or seen.count("fsync") == 2


@pytest.mark.parametrize("error", ERRORS if TORTURE else [errno.ENOSPC], ids=errno.errorcode.get)
def test_each_call_of_a_large_durable_save_fails(path: Path, worker: Any, error: int) -> None:
    seen = worker(save_while_calls_fail, path, LARGE, True, True, error)
    assert "pwrite" in seen or "writev" in seen  # as the file system knows O_DIRECT or not


def kill_saves(path: Path, fsync: bool) -> list[int]:
    """The exit statuses of saves of which each is killed one call later than the one before."""
    statuses = []
    while not statuses or statuses[-1] != 0:
        child = os.fork()
        if child == 0:
            with failing_call(len(statuses), KILL):
                save_file(NEW, path, fsync=fsync)
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert path.read_bytes() in (save(OLD), save(NEW))
        save_file(OLD, path)
        assert listing(path.parent) == [path.name]
    return statuses


@pytest.mark.parametrize("fsync", [False, True], ids=["plain", "fsync"])
def test_each_call_of_a_save_is_its_last(path: Path, worker: Any, fsync: bool) -> None:
    save_file(OLD, path)
    *killed, last = worker(kill_saves, path, fsync)
    assert last == 0
    assert len(killed) > 15
    assert set(killed) == {-signal.SIGKILL}


# --- loading -------------------------------------------------------------------------------------------------------


def _open_and_get(path: Path, backend: str) -> dict[str, Tensor]:
    with safe_open(path, backend=backend) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (in the order of the names)


def _open_and_slice(path: Path, backend: str) -> dict[str, Tensor]:
    with safe_open(path, backend=backend) as file:
        return {name: torch.cat([file.get_slice(name)[:2], file.get_slice(name)[2:]]) for name in NEW}


def _prefetch(path: Path, backend: str) -> dict[str, Tensor]:
    with safe_open(path, backend=backend) as file, file.prefetch() as loader:
        return dict(loader)


LOADS: dict[str, Callable[[Path, str], dict[str, Tensor]]] = {
    "load_file": lambda path, backend: load_file(path, backend=backend),
    "load_tensor": lambda path, backend: {name: load_tensor(path, name, backend=backend) for name in NEW},
    "safe_open": _open_and_get,
    "get_slice": _open_and_slice,
    "prefetch": _prefetch,
}


def load_while_calls_fail(path: Path, load: str, backend: str, expected: dict[str, Tensor], error: int) -> list[str]:
    seen = []
    for call, outcome in each_call_fails(error, path, lambda: None, lambda: LOADS[load](path, backend)):
        seen.append(call)
        if isinstance(outcome, OSError):
            check_error(outcome, call, error, path)
        else:
            assert_same(outcome, expected)
        del outcome
    return seen


@each_error
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("backend", ["auto", "mmap", "pread"])
def test_each_call_of_a_load_fails(path: Path, worker: Any, load: str, backend: str, error: int) -> None:
    save_file(NEW, path)
    seen = worker(load_while_calls_fail, path, load, backend, NEW, error)
    assert {"open", "fstat", "close"} <= set(seen)
    assert {"pread", "preadv"} & set(seen)


@pytest.mark.parametrize("error", ERRORS if TORTURE else [errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_each_call_of_a_large_load_fails(path: Path, worker: Any, backend: str, error: int) -> None:
    save_file(LARGE, path)
    seen = worker(load_while_calls_fail, path, "load_file", backend, LARGE, error)
    assert "mmap" in seen if backend == "mmap" else "madvise" in seen or seen.count("pread") > 2
