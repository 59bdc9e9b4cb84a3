"""Threads and processes: the GIL, many threads at once, fork, and DataLoader's workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_in_process

from torch_safetensors import load, load_file, load_model, load_tensor, safe_open, save, save_file, save_model

#: Large enough to be read by several threads, whatever the threshold.
LARGE = 4 << 20
#: Far more than any call here takes; what waits so long hangs.
TIMEOUT = 300


def large_tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: torch.full((LARGE // 2,), float(value)) for name in ("x", "y")}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("large") / "large.safetensors")
    save_file({name: torch.arange(LARGE, dtype=torch.float32) for name in ("x", "y")}, path)
    return path


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A call on one of its tensors takes longer than a scheduler leaves a busy thread alone (some milliseconds): with
    all cores at work on the call itself, another thread gets none sooner.
    """
    path = str(tmp_path_factory.mktemp("larger") / "larger.safetensors")
    save_file({name: torch.zeros(4 * LARGE) for name in ("x", "y")}, path)
    return path


# --- the GIL -------------------------------------------------------------------------------------


class OtherThread:
    """Counts, with the GIL, for as long as it lives; takes the GIL only where somebody gives it away."""

    def __init__(self) -> None:
        self.count = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopped:
            self.count += 1
            time.sleep(0)

    def __enter__(self) -> OtherThread:
        self._thread.start()
        while self.count == 0:
            time.sleep(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()


@pytest.fixture
def nobody_is_interrupted() -> Iterator[None]:
    """Has no thread lose the GIL that does not give it away."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(TIMEOUT)
    yield
    sys.setswitchinterval(interval)


def calls(path: str, out: str) -> dict[str, Callable[[], Any]]:
    tensors = load_file(path, backend="pread")
    data = save(tensors)
    model = torch.nn.ParameterDict(tensors)
    file = safe_open(path, backend="pread")
    script_file = torch.classes.safetensors.SafeOpen(path, torch.device("cpu"), "pread")
    return {
        "load_file": lambda: load_file(path, backend="pread"),
        "load_tensor": lambda: load_tensor(path, "x", backend="pread"),
        "load": lambda: load(data),
        "load_model": lambda: load_model(model, path, backend="pread"),
        "save_file": lambda: save_file(tensors, out),
        "save": lambda: save(tensors),
        "save_model": lambda: save_model(model, out),
        "safe_open.get_tensors": lambda: file.get_tensors(),
        "safe_open.get_slice": lambda: file.get_slice("x")[1:],
        "ops.load_file": lambda: torch.ops.safetensors.load_file(path, backend="pread"),
        "ops.load_into": lambda: torch.ops.safetensors.load_into(path, "x", tensors["x"]),
        "ops.save_tensors": lambda: torch.ops.safetensors.save_tensors(out, ["x"], [tensors["x"]]),
        "SafeOpen.load_into": lambda: script_file.load_into(["x", "y"], [tensors["x"], tensors["y"]]),
    }


CALLS = [
    *("load_file", "load_tensor", "load", "load_model", "save_file", "save", "save_model"),
    *("safe_open.get_tensors", "safe_open.get_slice"),
    *("ops.load_file", "ops.load_into", "ops.save_tensors", "SafeOpen.load_into"),
]


@pytest.mark.usefixtures("nobody_is_interrupted")
@pytest.mark.parametrize("name", CALLS)
def test_other_threads_run_meanwhile(name: str, larger: str, tmp_path: Path) -> None:
    call = calls(larger, str(tmp_path / "out"))[name]
    # While somebody else holds the GIL nothing counts at all, so no number of attempts would do; on a busy machine it
    # takes some until the other thread gets a core in time. Ten, as one or two could slip in between short calls.
    deadline = time.monotonic() + TIMEOUT / 5
    with OtherThread() as other:
        while time.monotonic() < deadline:
            before = other.count
            call()
            if other.count - before >= 10:
                return
    pytest.fail(f"no other thread made progress during {name}")


def test_that_test_sees_a_call_that_keeps_the_gil(nobody_is_interrupted: None) -> None:
    with OtherThread() as other:
        before = other.count
        sum(range(3_000_000))
        assert other.count == before


# --- many threads --------------------------------------------------------------------------------


def in_threads(work: Callable[[int], None], threads: int = 8) -> None:
    """Calls it in so many threads at once, with their numbers; raises what they raise."""
    start = threading.Barrier(threads)

    def run(number: int) -> None:
        start.wait(TIMEOUT)
        work(number)

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(run, number) for number in range(threads)]:
            future.result(TIMEOUT)


def value_of(tensors: dict[str, torch.Tensor]) -> float:
    """The value that all elements have; fails if they do not come from one save."""
    value = tensors["x"][0].item()
    for tensor in tensors.values():
        assert (tensor == value).all()
    return value


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_different_files(backend: str, tmp_path: Path) -> None:
    def work(number: int) -> None:
        for turn in range(4):
            path = tmp_path / f"{number}.safetensors"
            save_file(large_tensors(number * 10 + turn), path)
            assert value_of(load_file(path, backend=backend)) == number * 10 + turn
            with safe_open(path, backend=backend) as file:
                assert value_of(file.get_tensors()) == number * 10 + turn

    in_threads(work)


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_same_file(backend: str, tmp_path: Path) -> None:
    """Every load gives one of the files that were saved, whole."""
    path = tmp_path / "x.safetensors"
    save_file(large_tensors(0), path)

    def work(number: int) -> None:
        for turn in range(4):
            if number % 2:
                save_file(large_tensors(number * 10 + turn), path)
            else:
                value_of(load_file(path, backend=backend))
            model = torch.nn.ParameterDict(large_tensors(-1))
            load_model(model, path, backend=backend)
            assert value_of(dict(model)) >= 0

    in_threads(work)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_same_handle(backend: str, tmp_path: Path) -> None:
    tensors = {str(i): torch.full((1000 + i,), float(i)) for i in range(100)}
    save_file(tensors, tmp_path / "x.safetensors")
    file = safe_open(tmp_path / "x.safetensors", backend=backend)

    def work(number: int) -> None:
        for name in list(tensors)[number:] + list(tensors)[:number]:
            assert torch.equal(file.get_tensor(name), tensors[name])
            assert torch.equal(file.get_slice(name)[number:-1], tensors[name][number:-1])

    in_threads(work)


@pytest.mark.parametrize("copy", [True, False])
def test_same_bytes(copy: bool) -> None:
    data = bytearray(save(large_tensors(3)))

    def work(_number: int) -> None:
        for _ in range(4):
            assert value_of(load(data, copy=copy)) == 3
            assert save(large_tensors(3)) == data

    in_threads(work)


# --- processes -----------------------------------------------------------------------------------


def use_everything(path: str, out: str) -> None:
    """Every part of the library that may have threads, locks or other state of a process. Compares by numbers that
    torch computes without threads of its own, which do not survive fork.
    """
    for backend in "mmap", "pread":
        tensors = load_file(path, backend=backend)
        assert [tensors["x"][i].item() for i in (0, 12345, LARGE - 1)] == [0, 12345, LARGE - 1]
        with safe_open(path, backend=backend) as file:
            assert file.get_slice("y")[-1:].item() == LARGE - 1
    save_file(tensors, out)
    assert load_tensor(out, "x", backend="pread")[-1].item() == LARGE - 1
    torch.ops.safetensors.load_into(path, "x", tensors["y"])
    assert load(save({"x": tensors["y"]}))["x"][-1].item() == LARGE - 1


def in_child(work: Callable[[], None]) -> int:
    """Its exit status after the work in a forked process: 0, or -SIGALRM if it hung."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(TIMEOUT // 3)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_between_loads(path: str, out: str) -> None:
    use_everything(path, out)
    torch.ones(1 << 22).sum()  # has torch start its own threads, which the child then lacks
    handle = safe_open(path, backend="pread")
    mapped = load_file(path, backend="mmap")

    def work() -> None:
        use_everything(path, f"{out}.child")
        assert handle.get_tensor("x")[-1].item() == LARGE - 1
        mapped["x"][5] = -1  # in the child's own copy of the page
        assert in_child(lambda: use_everything(path, f"{out}.grandchild")) == 0

    assert in_child(work) == 0
    assert mapped["x"][5].item() == 5
    use_everything(path, out)
    assert handle.get_tensor("y")[-1].item() == LARGE - 1


def test_fork(large: str, tmp_path: Path) -> None:
    run_in_process(fork_between_loads, large, str(tmp_path / "out"))


def fork_while_others_load(path: str, out: str) -> None:
    """What another thread holds at that moment, nobody ever gives back in the child."""
    stop = False

    def load_on() -> None:
        while not stop:
            load_file(path, backend="pread")
            save_file({"x": torch.ones(1000)}, out)

    with ThreadPoolExecutor(2) as pool:
        loaders = [pool.submit(load_on) for _ in range(2)]
        statuses = [in_child(lambda i=i: use_everything(path, f"{out}.{i}")) for i in range(5)]
        stop = True
        for loader in loaders:
            loader.result(TIMEOUT)
    assert statuses == [0] * 5


def test_fork_while_other_threads_load(large: str, tmp_path: Path) -> None:
    run_in_process(fork_while_others_load, large, str(tmp_path / "out"))


class Rows(torch.utils.data.Dataset[torch.Tensor]):
    """Reads from a handle that it got from the parent, and from the file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = safe_open(path, backend="pread")

    def __len__(self) -> int:
        return 32

    def __getitem__(self, row: int) -> torch.Tensor:
        whole = load_file(self.path, backend="pread" if row % 2 else "mmap")["x"]
        part = self.file.get_slice("x")[row : row + 2]
        return torch.stack([whole[row], part[0], part[1]])


def load_with_workers(path: str, start_method: str) -> None:
    rows = Rows(path)
    load_file(path, backend="pread")
    loader = torch.utils.data.DataLoader(
        rows, batch_size=4, num_workers=2, multiprocessing_context=start_method, timeout=TIMEOUT // 3
    )
    for _ in range(2):
        seen = torch.cat(list(loader))
        first = torch.arange(32.0)
        assert torch.equal(seen, torch.stack([first, first, first + 1], dim=1)), seen


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_data_loader(start_method: str, large: str) -> None:
    run_in_process(load_with_workers, large, start_method)
