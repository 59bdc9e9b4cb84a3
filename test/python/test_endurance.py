"""Saves that are killed, many that meet at one file, long rows of calls; make torture makes all of it longer."""

from __future__ import annotations

import contextlib
import errno
import gc
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TORTURE
from helpers import assert_same, descriptors, listing, run_in_process
from torch import Tensor

from torch_safetensors import (
    SafetensorError,
    Writer,
    load,
    load_file,
    load_model,
    replace_tensor,
    safe_open,
    save,
    save_file,
    save_model,
)

KILLS = 1000 if TORTURE else 40
SECONDS = 60.0 if TORTURE else 3.0
CALLS = 10_000 if TORTURE else 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def version(number: float, size: int = 1 << 18) -> dict[str, Tensor]:
    """Tensors that tell whether they come from one save."""
    return {name: torch.full((size,), float(number)) for name in "xyz"}


def number_of(tensors: dict[str, Tensor]) -> float:
    number = tensors["x"][0].item()
    assert sorted(tensors) == ["x", "y", "z"]
    for tensor in tensors.values():
        assert (tensor == number).all()
    return number


# --- killed --------------------------------------------------------------------------------------------------------


def is_representative(seen: Counter[str], kills: int) -> bool:
    """Some came too late, some too early, and enough in the middle."""
    return seen["new"] > 0 and seen["old"] + seen["none"] > kills / 10 and seen["something left"] > kills / 20


def kill_saves(path: Path, kind: str, kills: int, seed: int) -> Counter[str]:
    """Kills saves at moments that are spread over all their time; counts what there was afterwards.

    On a busy machine the moments are not what they should be, and more kills are needed to hit all kinds.
    """
    rng = random.Random(seed)
    old, new = version(1), version(2)
    save_file(new, path)
    start = time.perf_counter()
    save_file(new, path)
    duration = time.perf_counter() - start
    seen: Counter[str] = Counter()
    for turn in range(10 * kills):
        if turn >= kills and is_representative(seen, kills):
            break
        path.unlink()
        if kind != "new":
            save_file(old, path)
        mapped = load_file(path, backend="mmap") if kind == "mapped" else None
        started, starts = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(starts, b"x")
            save_file(new, path, fsync=turn % 4 == 0)
            os._exit(0)
        os.read(started, 1)
        time.sleep(rng.uniform(0, 2 * duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(started)
        os.close(starts)

        if path.exists():
            seen["old" if number_of(load_file(path)) == 1 else "new"] += 1
        else:
            assert kind == "new"
            seen["none"] += 1
        assert mapped is None or number_of(mapped) == 1
        seen["something left"] += len(listing(path.parent)) > path.exists()
        save_file(old, path)
        assert listing(path.parent) == [path.name]
        assert number_of(load_file(path)) == 1
    return seen


@pytest.mark.parametrize("kind", ["new", "existing", "mapped"])
def test_a_killed_save_leaves_the_old_file_or_the_new_one(path: Path, worker: Any, kind: str) -> None:
    seed = random.SystemRandom().randrange(2**32)
    seen = worker(kill_saves, path, kind, KILLS, seed, timeout=600)
    print(f"seed {seed}: {dict(seen)}")
    assert is_representative(seen, KILLS)


# --- many at once --------------------------------------------------------------------------------------------------


def save_until(path: Path, deadline: float, number: int) -> None:
    while time.time() < deadline:
        number += 1
        save_file(version(number), path, fsync=number % 50 == 0)


def load_until(path: Path, deadline: float) -> int:
    loads = 0
    numbers = set()
    while time.time() < deadline:
        backend = ("mmap", "pread")[loads % 2]
        loads += 1
        numbers.add(number_of(load_file(path, backend=backend)))
        with safe_open(path, backend=backend) as file:
            number_of({name: file.get_slice(name)[:1000] for name in "xyz"})
            number_of(file.get_tensors())
    assert loads < 10 or len(numbers) > 1
    return loads


def save_and_load_at_once(path: Path, seconds: float) -> None:
    """16 threads and 4 processes save, another two of each load."""
    save_file(version(0), path)
    deadline = time.time() + seconds + 5  # to start them all
    context = multiprocessing.get_context("spawn")  # torch's own threads do not survive a fork
    processes = [context.Process(target=save_until, args=(path, deadline, (20 + i) * 100_000)) for i in range(4)]
    processes += [context.Process(target=load_until, args=(path, deadline)) for _ in range(2)]
    for process in processes:
        process.start()
    errors: list[BaseException] = []

    def guarded(function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(save_until, path, deadline, i * 100_000)) for i in range(16)]
    threads += [threading.Thread(target=guarded, args=(load_until, path, deadline)) for _ in range(2)]
    for running in threads:
        running.start()
    for waiting in [*threads, *processes]:
        waiting.join()
    assert not errors, errors
    assert [process.exitcode for process in processes] == [0] * 6


def test_every_load_sees_one_whole_version(path: Path) -> None:
    run_in_process(save_and_load_at_once, path, SECONDS)
    assert listing(path.parent) == [path.name]


# --- a disk that is full, a folder that goes -------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("fsync", [False, True])
def test_full_disk(small_disk: Path, fsync: bool) -> None:
    path = small_disk / "x"
    old = {"w": torch.arange(100_000, dtype=torch.float32)}
    save_file(old, path)
    with pytest.raises(OSError, match="No space left on device") as error:
        save_file({"w": torch.zeros(200_000)}, path, fsync=fsync)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert listing(small_disk) == ["x"]
    assert_same(load_file(path), old)


def save_over_limit(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for fsync in False, True:
        try:
            save_file({"w": torch.zeros(100_000)}, path, fsync=fsync)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EFBIG, str(path))  # noqa: PT017 (not in a test)
        else:
            raise AssertionError("saved more than it may")


def test_limit_of_file_size(path: Path) -> None:
    old = {"w": torch.arange(10.0)}
    save_file(old, path)
    run_in_process(save_over_limit, path)
    assert listing(path.parent) == [path.name]
    assert_same(load_file(path), old)


def test_directory_that_goes_away_during_saves(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            folder.mkdir(exist_ok=True)
            time.sleep(0.0005)
            shutil.rmtree(folder, ignore_errors=True)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    seen: Counter[int] = Counter()
    before = descriptors()
    deadline = time.monotonic() + SECONDS / 3
    while time.monotonic() < deadline:
        try:
            save_file(version(1, 100), folder / "x")
            seen[0] += 1
        except FileNotFoundError as error:
            assert error.filename == str(folder / "x")  # noqa: PT017 (one of two outcomes)
            seen[errno.ENOENT] += 1
    stop.set()
    thread.join()
    assert descriptors() == before
    assert seen[0] > 10
    assert seen[errno.ENOENT] > 10


# --- again and again -------------------------------------------------------------------------------------------------


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(300, 300))
        self.tied = self.w


def endless_calls(path: Path) -> dict[str, Callable[[], Any]]:
    tensors = {"w": torch.ones(300, 300), "v": torch.ones(5)}
    out = path.with_name("out")
    save_file(tensors, path)
    data = save(tensors)
    bad = path.with_name("bad")
    bad.write_bytes(data[:-1])
    layer = Layer()
    save_model(layer, path.with_name("model"))

    def slice_of() -> None:
        with safe_open(path) as file:
            file.get_slice("w")[3:7, 5]

    def prefetch() -> None:
        with safe_open(path) as file, file.prefetch() as loader:
            next(iter(loader))

    def write() -> None:
        with Writer(out, tensors, progress=lambda *_: None) as writer:
            for name, tensor in tensors.items():
                writer.write(name, tensor)

    def refused(call: Callable[[], Any], error: type[Exception]) -> Callable[[], None]:
        def check() -> None:
            with pytest.raises(error):
                call()

        return check

    return {
        "load_file, mmap": lambda: load_file(path, backend="mmap"),
        "load_file, pread": lambda: load_file(path, backend="pread"),
        "load": lambda: load(data),
        "load, alias": lambda: load(bytearray(data), copy=False),
        "get_slice": slice_of,
        "prefetch": prefetch,
        "load_model": lambda: load_model(layer, path.with_name("model")),
        "save_file": lambda: save_file(tensors, out),
        "save_file, fsync": lambda: save_file(tensors, out, fsync=True),
        "save": lambda: save(tensors),
        "Writer": write,
        "Writer, aborted": refused(lambda: Writer(out, tensors).close(), ValueError),
        "replace_tensor, fsync": lambda: replace_tensor(path, "v", tensors["v"]),
        "save_model": lambda: save_model(layer, out),
        "load_file, malformed": refused(lambda: load_file(bad), SafetensorError),
        "load, malformed": refused(lambda: load(data[:-1]), SafetensorError),
        "load_file, missing": refused(lambda: load_file(path.with_name("none")), FileNotFoundError),
        "save_file, no folder": refused(lambda: save_file(tensors, path / "x"), NotADirectoryError),
        "save_file, refused": refused(lambda: save_file({"w": tensors["w"].t()[1:]}, out), ValueError),
    }


def own_memory() -> int:
    """In bytes, without pages of files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def repeat(path: Path, name: str, count: int) -> tuple[int, int]:
    """How many bytes and mappings more there are after so many calls. Descriptors must be the same."""
    call = endless_calls(path)[name]

    def state() -> tuple[int, int]:
        gc.collect()
        return own_memory(), len(Path("/proc/self/maps").read_text().splitlines())

    for _ in range(count // 5):
        call()
    open_before = descriptors()
    memory, maps = state()
    for _ in range(count):
        call()
    memory_after, maps_after = state()
    assert descriptors() == open_before
    return memory_after - memory, maps_after - maps


NAMES = [
    *("load_file, mmap", "load_file, pread", "load", "load, alias", "get_slice", "prefetch", "load_model", "save_file"),
    *("save_file, fsync", "save", "Writer", "Writer, aborted", "replace_tensor, fsync"),
    *("save_model", "load_file, malformed", "load, malformed", "load_file, missing"),
    *("save_file, no folder", "save_file, refused"),
]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_piles_up(path: Path, worker: Any, name: str) -> None:
    memory, maps = worker(repeat, path, name, CALLS if "fsync" not in name else CALLS // 10, timeout=600)
    assert memory < 1 << 20  # of 360 KB of data in each call, and a kilobyte of other things
    assert abs(maps) < 10


def test_the_list_of_calls_is_whole(path: Path) -> None:
    assert list(endless_calls(path)) == NAMES


# --- processes that end ----------------------------------------------------------------------------------------------


def exit_while_loading(path: Path) -> None:
    """With the library's own threads at work: of prefetch, and those that read a mapped file ahead. A daemon thread in
    the middle of a load is another matter, which is torch's: docs/limits.md.
    """
    save_file(version(1, 8 << 20), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    loader = safe_open(path, backend="pread").prefetch(threads=4, buffer_size=1 << 20)
    next(iter(loader))
    sys.kept = loader, load_file(path, backend="mmap")  # type: ignore[attr-defined]
    time.sleep(random.random() / 100)


@pytest.mark.parametrize("turn", range(20 if TORTURE else 2))
def test_the_interpreter_ends_while_files_are_read(path: Path, turn: int) -> None:
    assert run_in_process(exit_while_loading, path) == ""


def outlive_everything(path: Path) -> None:
    """Tensors that die after the interpreter's modules, of a file that is gone."""
    file = safe_open(path, backend="mmap")
    sys.kept = [load_file(path, backend="mmap"), file.get_tensor("x"), file.get_slice("y"), file]  # type: ignore[attr-defined]
    sys.kept.append(file.prefetch())  # type: ignore[attr-defined]
    path.unlink()


def test_the_last_tensor_outlives_everything(path: Path) -> None:
    save_file(version(1), path)
    assert run_in_process(outlive_everything, path) == ""


def interrupt(path: Path) -> None:
    """Control-C at any moment of loads and saves: KeyboardInterrupt, and all goes on."""
    seen = 0
    deadline = time.monotonic() + SECONDS / 2
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    before = descriptors()
    while time.monotonic() < deadline:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.01))
        with contextlib.suppress(KeyboardInterrupt):
            try:
                for _ in range(100):
                    tensors = load_file(path, backend="pread")
                    save_file(tensors, path)
                    load(save(tensors))
            except KeyboardInterrupt:
                seen += 1
                raise
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert number_of(load_file(path)) == 1
    gc.collect()
    assert seen > 3, seen
    assert descriptors() == before
    assert listing(path.parent) == [path.name]


def test_interrupted_from_the_keyboard(path: Path) -> None:
    save_file(version(1), path)
    run_in_process(interrupt, path)


def use_up_descriptors(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    handles: list[Any] = []
    try:
        while len(handles) < 200:
            handles.append(safe_open(path))
    except OSError as error:
        assert (error.errno, error.filename) == (errno.EMFILE, str(path))  # noqa: PT017 (not in a test)
    assert 50 < len(handles) < 100
    for call in (lambda: load_file(path), lambda: save_file(version(2), path)):
        try:
            call()
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017 (not in a test)
        else:
            raise AssertionError("opened more than it may")
    assert number_of(handles[0].get_tensors()) == 1
    del handles[:]
    gc.collect()
    assert number_of(load_file(path)) == 1


def test_no_descriptor_is_left(path: Path) -> None:
    save_file(version(1), path)
    run_in_process(use_up_descriptors, path)
    # Tensors of mapped files need none.
    kept = [load_file(path, backend="mmap") for _ in range(2000)]
    assert number_of(kept[-1]) == 1
