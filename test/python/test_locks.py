"""Who waits for a lock hears Ctrl-C, says so, and ends; nobody keeps a lock that is of no use to him."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from helpers import listing
from torch.distributed.checkpoint import CheckpointException, DefaultSavePlanner

import torch_safetensors as ts
from torch_safetensors.distributed import SafetensorsWriter

VARIABLE = "TORCH_SAFETENSORS_LOCK_TIMEOUT"
TENSORS = {"v": torch.ones(3), "w": torch.arange(300.0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "x.safetensors"
    path.parent.mkdir()
    ts.save_file(TENSORS, path)
    return path


@contextlib.contextmanager
def held(path: Path) -> Iterator[Callable[[], None]]:
    """Locked; the function ends that."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def child(work: Callable[[], None] = lambda: None) -> Iterator[int]:
    """A forked child, which does its work and then lives as long as the block lasts."""
    done, tells = os.pipe()
    process = os.fork()
    if process == 0:
        work()
        os.write(tells, b"x")
        while True:
            signal.pause()
    try:
        os.read(done, 1)
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(done)
        os.close(tells)


def replace(path: Path) -> None:
    ts.replace_tensor(path, "w", -TENSORS["w"])


def save_to_folder(path: Path) -> None:
    ts.save_sharded(TENSORS, path.parent, max_shard_size=1000)


#: What waits, and for the lock of what.
WAITS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Path]]] = {
    "replace_tensor": (replace, lambda path: path),
    "recover": (ts.recover, lambda path: path),
    "save_sharded": (save_to_folder, lambda path: path.parent),
}


@pytest.fixture(params=WAITS)
def wait(request: pytest.FixtureRequest, path: Path) -> tuple[Callable[[], Any], Path]:
    work, locked = WAITS[request.param]
    return lambda: work(path), locked(path)


def test_a_wait_ends(wait: tuple[Callable[[], Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    work, locked = wait
    monkeypatch.setenv(VARIABLE, "0.2")
    with held(locked), pytest.raises(TimeoutError) as caught:
        work()
    assert (caught.value.errno, caught.value.filename) == (errno.ETIMEDOUT, str(locked))
    assert re.fullmatch(
        r"waited 0 seconds for its lock, which another (thread of this )?process holds; "
        r"TORCH_SAFETENSORS_LOCK_TIMEOUT sets how long",
        caught.value.strerror,
    )
    work()


def test_it_names_the_process(wait: tuple[Callable[[], Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    work, locked = wait

    def hold() -> None:
        fcntl.flock(os.open(locked, os.O_RDONLY), fcntl.LOCK_EX)

    monkeypatch.setenv(VARIABLE, "0")
    with child(hold) as holder:
        if str(holder) not in Path("/proc/locks").read_text():
            pytest.skip("this system does not tell who holds a lock")
        with pytest.raises(TimeoutError) as caught:
            work()
    assert f"for its lock, which process {holder} (" in str(caught.value)
    work()


@pytest.mark.parametrize("value", ["", "-1", "soon", "inf"])
def test_a_limit_that_is_none(
    wait: tuple[Callable[[], Any], Path], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    work, locked = wait
    monkeypatch.setenv(VARIABLE, value)
    with held(locked), pytest.raises(OSError, match=f"{VARIABLE} must be a number of seconds, not '{value}'") as caught:
        work()
    assert caught.value.errno == errno.EINVAL
    work()  # it does not matter where nobody waits


def test_a_wait_hears_signals(wait: tuple[Callable[[], Any], Path]) -> None:
    work, locked = wait
    timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    with held(locked):
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            work()
    timer.join()
    work()


def test_a_wait_lets_other_threads_work(wait: tuple[Callable[[], Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    work, locked = wait
    monkeypatch.setenv(VARIABLE, "30")
    with held(locked) as let_go:
        ticks: list[int] = []

        def tick() -> None:
            while len(ticks) < 20:
                ticks.append(len(ticks))
                time.sleep(0.01)
            let_go()

        thread = threading.Thread(target=tick)
        thread.start()
        work()  # not before the other thread has had its turns
        assert len(ticks) == 20
        thread.join()


def test_a_wait_is_told_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "6")
    text = rf"^waiting for the lock of '{re.escape(str(path))}', which another .*process holds$"
    with held(path), pytest.warns(UserWarning, match=text), pytest.raises(TimeoutError):
        replace(path)


# --- forked children -----------------------------------------------------------------------------------------------


def test_a_child_that_was_forked_during_a_save(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    writer = ts.Writer(path, TENSORS)
    with child():
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)
        writer.close()
        replace(path)
        assert ts.load_file(path)["w"].equal(-TENSORS["w"])


def test_a_child_that_was_forked_during_a_save_of_several_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    with contextlib.ExitStack() as children:

        def fork(done: int, _total: int) -> None:
            if done == 0:
                children.enter_context(child())

        ts.save_sharded(TENSORS, path.parent, max_shard_size=1000, progress=fork)
        save_to_folder(path)
        assert ts.load_file(path.parent).keys() == TENSORS.keys()


def test_a_child_does_not_end_the_locks_of_its_parent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")

    def fork(done: int, _total: int) -> None:
        if done == 0:
            process = os.fork()
            if process == 0:
                raise SystemExit  # and leaves the save, in the child
            os.waitpid(process, 0)
            with pytest.raises(TimeoutError), child_error(save_to_folder, path):
                pass

    parent = os.getpid()
    try:
        ts.save_sharded(TENSORS, path.parent, max_shard_size=1000, progress=fork)
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert ts.load_file(path.parent).keys() == TENSORS.keys()


@contextlib.contextmanager
def child_error(work: Callable[[Path], None], path: Path) -> Iterator[None]:
    """Raises what the work raises in another thread."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(path)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    yield
    if errors:
        raise errors[0]


# --- a save within a save, and after one that failed ----------------------------------------------------------------


def test_a_save_within_the_progress_of_another(tmp_path: Path) -> None:
    errors: list[OSError] = []

    def save_too(done: int, _total: int) -> None:
        if done == 0:
            with pytest.raises(OSError, match="a function that reports progress cannot begin another save") as caught:
                ts.save_sharded(TENSORS, tmp_path)
            errors.append(caught.value)
        ts.save_sharded(TENSORS, tmp_path / "other")

    ts.save_sharded(TENSORS, tmp_path, max_shard_size=1000, progress=save_too)
    assert (errors[0].errno, errors[0].filename) == (errno.EDEADLK, str(tmp_path))
    assert ts.load_file(tmp_path).keys() == TENSORS.keys()


class _Failing(DefaultSavePlanner):
    """Fails when the files are made, as a rank elsewhere would, of which the one that made them is not told."""

    def finish_plan(self, new_plan: Any) -> Any:
        raise RuntimeError("stop")


@pytest.mark.parametrize("form", [{}, {"max_shard_size": 1000}, {"save_distributed": True}])
def test_a_save_after_one_of_torch_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any]
) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    ts.save_sharded({"old": torch.ones(3)}, tmp_path)
    writer = SafetensorsWriter(tmp_path, **form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((RuntimeError, CheckpointException)) as kept:
            dcp.save(TENSORS, storage_writer=writer, planner=_Failing())
    ts.save_sharded(TENSORS, tmp_path, max_shard_size=1000)
    assert ts.load_file(tmp_path).keys() == TENSORS.keys()
    del kept, writer
    gc.collect()
    assert not [name for name in listing(tmp_path) if name.startswith(".st-")]


def test_saves_at_once_of_torch_and_of_this_process(tmp_path: Path) -> None:
    """One that comes in between has the names that the other would have had."""
    folder = tmp_path

    class Between(DefaultSavePlanner):
        def finish_plan(self, new_plan: Any) -> Any:
            ts.save_sharded({"between": torch.ones(3), "other": torch.ones(300)}, folder, max_shard_size=1000)
            return super().finish_plan(new_plan)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(TENSORS, storage_writer=SafetensorsWriter(folder, max_shard_size=1000), planner=Between())
    assert ts.load_file(folder).keys() == TENSORS.keys()
    assert len(listing(folder)) == 3


def range_file(path: Path) -> Any:
    names, sizes, tensors = "w", [1], [[torch.empty(3, device="meta")]]
    return torch.classes.safetensors._RangeFile(str(path), names, sizes, tensors, None, False, 0)


def test_a_rank_that_comes_late_does_not_write_into_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "x"
    given_up = range_file(path)
    late = given_up.temporary()
    given_up.abort()
    following = range_file(path)
    assert following.temporary() != late
    with pytest.raises(RuntimeError, match="No such file or directory"):
        torch.ops.safetensors._write_ranges(late, str(path), "w", [1], [[torch.ones(3)]], [[0]], False)
    following.commit(str(path))
    assert ts.load_file(path)["w"].equal(torch.zeros(3))
    assert listing(tmp_path) == ["x"]
