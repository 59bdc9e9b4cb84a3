"""Background loading to the CPU: what holds on every device. test_accelerators.py has what needs one."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from conftest import Worker
from helpers import assert_same, entry, make_file, random_tensors

import torch_safetensors
from torch_safetensors import SafetensorError, safe_open

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.safetensors"


def save(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    torch_safetensors.save_file(tensors, path)
    return tensors


def numbers(*sizes: int) -> dict[str, torch.Tensor]:
    return {f"t{i}": torch.arange(size) for i, size in enumerate(sizes)}


def thread_count() -> int:
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("threads of C++ are counted in /proc alone")
    return len(list(tasks.iterdir()))


@pytest.mark.parametrize("threads", [1, 2, 8, 16])
@pytest.mark.parametrize("buffer_size", [1, 1000, None])
def test_all_tensors_come_whatever_the_file(path: Path, threads: int, buffer_size: int | None) -> None:
    for seed in range(15):
        tensors = save(path, random_tensors(seed, 40))
        with safe_open(path).prefetch(threads=threads, buffer_size=buffer_size) as loader:
            assert len(loader) == len(tensors)
            assert_same(dict(loader), tensors)


def test_large_tensors_are_read_in_parts(path: Path) -> None:
    tensors = save(path, {"a": torch.randn(5 * MIB), "b": torch.randn(3), "c": torch.randn(4 * MIB + 1)})
    assert_same(dict(safe_open(path).prefetch(threads=4)), tensors)


def test_names_are_in_the_order_of_the_file(path: Path) -> None:
    save(path, {"b": torch.zeros(1), "a": torch.zeros(2), "wide": torch.zeros(3, dtype=torch.int64)})
    assert safe_open(path).prefetch({"a": None, "wide": None}).names() == ["wide", "a"]
    assert safe_open(path).prefetch().names() == safe_open(path).offset_keys()
    assert safe_open(path).prefetch({}).names() == []
    assert list(safe_open(path).prefetch({})) == []


def test_take_in_any_order_past_any_buffer(path: Path) -> None:
    tensors = save(path, numbers(*range(0, 3000, 50)))
    names = list(tensors)
    for seed in range(20):
        random.Random(seed).shuffle(names)
        loader = safe_open(path).prefetch(threads=2, buffer_size=1)
        assert_same({name: loader.take(name) for name in names}, tensors)


def test_each_tensor_is_handed_out_once(path: Path) -> None:
    tensors = save(path, numbers(5, 6, 7))
    loader = safe_open(path).prefetch()
    assert torch.equal(loader.take("t1"), tensors["t1"])
    with pytest.raises(SafetensorError, match="tensor 't1': was handed out already"):
        loader.take("t1")
    assert sorted(name for name, _ in loader) == ["t0", "t2"]
    assert list(loader) == []
    with pytest.raises(SafetensorError, match="tensor 't2': was handed out already"):
        loader.take("t2")
    with pytest.raises(SafetensorError, match="tensor 'x': is not among the 3 tensors being prefetched"):
        loader.take("x")
    assert len(loader) == 3


def test_rows_are_those_of_python(path: Path) -> None:
    tensor = torch.arange(60).view(10, 6)
    save(path, {"m": tensor, "e": torch.empty(0, 3), "s": torch.tensor(1)})
    file = safe_open(path)
    for rows in (slice(2, 5), slice(None), slice(-3, None), slice(7, 2), slice(0, 0), slice(4, 99), slice(1, 3, 1)):
        assert torch.equal(file.prefetch({"m": rows}).take("m"), tensor[rows])
    assert file.prefetch({"e": slice(0, 5)}).take("e").shape == (0, 3)
    assert file.prefetch({"s": None}).take("s") == 1
    with pytest.raises(ValueError, match="plan: 'm': a slice must have step 1, not 2"):
        file.prefetch({"m": slice(0, 4, 2)})
    with pytest.raises(ValueError, match="plan: 's': has no dimension to slice"):
        file.prefetch({"s": slice(0, 1)})
    with pytest.raises(TypeError, match="plan: 'm': expected None or a slice, not int"):
        file.prefetch({"m": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        file.prefetch({"m": slice("a", None)})


def test_rows_of_packed_tensors(path: Path) -> None:
    raw = torch.arange(32, dtype=torch.uint8).view(8, 4)
    save(path, {"f4": raw.view(torch.float4_e2m1fn_x2)})
    part = safe_open(path).prefetch({"f4": slice(2, 5)}).take("f4")
    assert torch.equal(part.view(torch.uint8), raw[2:5])


def test_wrong_arguments(path: Path) -> None:
    path.write_bytes(make_file({"f6": entry("F6_E2M3", [4], 0, 3), "ok": entry("U8", [1], 3, 4)}, bytes(4)))
    file = safe_open(path)
    with pytest.raises(SafetensorError, match="'f6': torch cannot hold F6_E2M3"):
        file.prefetch()
    assert file.prefetch({"ok": None}).take("ok") == 0
    with pytest.raises(SafetensorError, match="tensor 'x': not in this file"):
        file.prefetch({"x": None})
    for keyword in ("threads", "buffer_size", "ring_size"):
        with pytest.raises(ValueError, match=f"{keyword} must be positive, not 0"):
            file.prefetch({"ok": None}, **{keyword: 0})
    with pytest.raises(ValueError, match="there is nothing to prefetch to the meta device"):
        file.prefetch({"ok": None}, device="meta")
    with file:
        pass
    with pytest.raises(SafetensorError, match="File is closed"):
        file.prefetch({"ok": None})


def test_a_loader_outlives_its_file_and_tensors_their_loader(path: Path) -> None:
    tensors = save(path, numbers(1000, 2000))
    with safe_open(path) as file:
        loader = file.prefetch(buffer_size=1)
    del file
    first = loader.take("t0")
    loader.close()
    del loader
    assert torch.equal(first, tensors["t0"])


def test_close_ends_the_threads_and_tells_those_who_wait(path: Path) -> None:
    save(path, numbers(*[MIB] * 20))
    before = thread_count()
    loader = safe_open(path).prefetch(threads=4, buffer_size=1)
    assert thread_count() > before
    loader.close()
    loader.close()
    assert thread_count() == before
    with pytest.raises(SafetensorError, match="the prefetch loader is closed"):
        loader.take("t0")
    with pytest.raises(SafetensorError, match="the prefetch loader is closed"):
        next(iter(loader))


def test_a_dropped_loader_leaves_no_threads(path: Path) -> None:
    save(path, numbers(*[1000] * 20))
    before = thread_count()
    loaders = [safe_open(path).prefetch(threads=2, buffer_size=1) for _ in range(5)]
    iterator = iter(loaders[0])
    next(iterator)
    del loaders, iterator
    gc.collect()
    assert thread_count() == before


def bytes_read_ahead(path: Path, buffer_size: int) -> list[int]:
    with faults.faults():
        loader = safe_open(path).prefetch(threads=4, buffer_size=buffer_size)
        ahead = []
        taken = 0
        for _, tensor in loader:
            taken += tensor.nbytes
            ahead.append(faults.bytes_read() - taken)
    return ahead


def test_readers_pause_at_the_buffer(path: Path, worker: Worker) -> None:
    save(path, numbers(*[MIB // 8] * 64))
    header = path.stat().st_size - 64 * MIB
    ahead = worker(bytes_read_ahead, path, 4 * MIB)
    assert len(ahead) == 64
    assert max(ahead) <= 4 * MIB + max(header, 16 * 1024)


def test_a_truncated_file_is_told_to_take_and_to_iteration(path: Path) -> None:
    save(path, numbers(*[MIB] * 4))
    for act in (lambda loader: loader.take("t3"), dict):
        file = safe_open(path)
        size = path.stat().st_size
        os.truncate(path, size - MIB)
        loader = file.prefetch(threads=1)
        with pytest.raises(OSError, match="it was truncated after it was opened"):
            act(loader)
        os.truncate(path, size)


def take_from_a_disk_that_hangs(path: Path) -> int:
    """Another thread must run for the wait to end."""
    with faults.faults():
        file = safe_open(path)
        faults.hang_reads(True)
        loader = file.prefetch(threads=1)
        assert loader._loader.take("t0", 1) is None
        assert loader._loader.take_any(1) == ("", None)
        threading.Timer(0.05, faults.hang_reads, (False,)).start()
        return loader.take("t0").numel() + sum(tensor.numel() for _, tensor in loader)


def test_other_threads_run_while_one_waits(path: Path, worker: Worker) -> None:
    save(path, numbers(10, 20))
    assert worker(take_from_a_disk_that_hangs, path) == 30


def interrupt_a_wait(path: Path) -> int:
    interrupted = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with faults.faults():
        file = safe_open(path)
        faults.hang_reads(True)
        loader = file.prefetch(threads=1)
        try:
            for act in (lambda: loader.take("t0"), lambda: next(iter(loader))):
                timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
                try:
                    timer.start()
                    act()
                except KeyboardInterrupt:
                    interrupted += 1
                timer.join()
        finally:
            faults.hang_reads(False)
        assert loader.take("t0").numel() == 10  # it was not lost
    return interrupted


def test_a_wait_can_be_interrupted(path: Path, worker: Worker) -> None:
    save(path, numbers(10))
    assert worker(interrupt_a_wait, path) == 2


LEFT_OPEN = """
import sys, torch_safetensors
loader = torch_safetensors.safe_open(sys.argv[1]).prefetch(threads=4, buffer_size=1)
loader.take("t3")
"""


def test_a_program_may_end_with_a_loader_open(path: Path) -> None:
    save(path, numbers(*[MIB] * 8))
    subprocess.run([sys.executable, "-c", LEFT_OPEN, path], timeout=60, check=True)


def in_child(function: Any) -> int:
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            os._exit(1)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise TimeoutError("the child hangs")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(done[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_drops_it_and_makes_its_own(path: Path) -> None:
    tensors = save(path, numbers(*[1000] * 30))
    loaders = [safe_open(path).prefetch(threads=4, buffer_size=1)]
    loaders[0].take("t5")

    def child() -> None:
        with pytest.raises(SafetensorError, match="made before a fork"):
            loaders[0].take("t6")
        loaders.pop()
        gc.collect()
        assert_same(dict(safe_open(path).prefetch(threads=4)), tensors)

    assert in_child(child) == 0
    assert len(dict(loaders[0])) == 29


def test_several_threads_share_a_loader(path: Path) -> None:
    tensors = save(path, numbers(*range(200)))
    loader = safe_open(path).prefetch(threads=3, buffer_size=5000)
    taken: list[dict[str, torch.Tensor]] = [{} for _ in range(4)]
    threads = [threading.Thread(target=lambda into=into: into.update(loader)) for into in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(len, taken)) == 200
    assert_same({name: tensor for part in taken for name, tensor in part.items()}, tensors)


def test_file_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    save(path, numbers(3))
    assert len(dict(safe_open(path).prefetch())) == 1
