"""Files of many tensors: they come in two steps, the second without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_safetensors import load, load_file, safe_open, save, save_file
from torch_safetensors._gc import gc_paused

#: On both sides of where the second step begins.
COUNTS = [1, 999, 1000, 5000]


@pytest.fixture(params=COUNTS)
def tensors(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    return {f"layer.{i:05}": torch.tensor([i, -i]) for i in range(request.param)}


@pytest.fixture(params=[True, False], ids=["collector on", "collector off"])
def collector(request: pytest.FixtureRequest) -> Iterator[bool]:
    was_enabled = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if was_enabled else gc.disable)()


def from_file(tmp_path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    save_file(tensors, tmp_path / "many.safetensors")
    return load_file(tmp_path / "many.safetensors")


def from_bytes(_tmp_path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return load(save(tensors))


@pytest.mark.parametrize("there_and_back", [from_file, from_bytes])
def test_comes_back(
    tmp_path: Path, tensors: dict[str, Tensor], there_and_back: Callable[..., dict[str, Tensor]], collector: bool
) -> None:
    loaded = there_and_back(tmp_path, tensors)
    assert list(loaded) == list(tensors)
    assert torch.equal(torch.stack(list(loaded.values())), torch.stack(list(tensors.values())))
    assert gc.isenabled() == collector


def test_nothing_is_collected_while_many_tensors_become_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({str(i): torch.zeros(1) for i in range(20_000)}, path)
    sizes: list[int] = []
    collections: list[Any] = []

    def note(phase: str, info: dict[str, int]) -> None:
        collections.append((phase, info))

    gc.collect()
    gc.callbacks.append(note)
    try:
        sizes.append(len(load_file(path)))
        within = len(collections)
    finally:
        gc.callbacks.remove(note)
    assert sizes == [20_000]
    # One may come after, for all of them; without the pause there are dozens.
    assert within <= 2 * 3


@contextlib.contextmanager
def collections() -> Iterator[list[str]]:
    """What the collector does, and reason enough to do it at each turn."""
    seen: list[str] = []

    def note(phase: str, _info: dict[str, int]) -> None:
        seen.append(phase)

    before = gc.get_threshold()
    gc.set_threshold(10, *before[1:])
    gc.callbacks.append(note)
    try:
        yield seen
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)


def make_objects() -> list[list[int]]:
    return [[number] for number in range(1000)]


def test_collector_is_on_again_after_an_error(collector: bool) -> None:
    with collections() as seen:

        @gc_paused()
        def fail() -> None:
            seen.clear()
            make_objects()
            assert seen == []
            raise KeyError

        with pytest.raises(KeyError):
            fail()
        make_objects()
        assert bool(seen) == collector
    assert gc.isenabled() == collector


def test_a_collector_that_is_turned_off_meanwhile_stays_off(collector: bool) -> None:
    before = gc.get_threshold()
    with gc_paused():
        gc.disable()
    assert not gc.isenabled()
    assert gc.get_threshold() == before
    with gc_paused():
        gc.enable()
    assert gc.isenabled()
    try:
        for threshold in (0, 0, 0), (500, 5, 5):
            with gc_paused():
                gc.set_threshold(*threshold)
            assert gc.get_threshold()[0] == threshold[0]
            with gc_paused():
                pass
            assert gc.get_threshold()[0] == threshold[0]
    finally:
        gc.set_threshold(*before)


def test_threads_that_pause_it_at_once(collector: bool) -> None:
    def paused(begun: threading.Event, end: threading.Event) -> None:
        with gc_paused():
            begun.set()
            assert end.wait(30)

    with collections() as seen, ThreadPoolExecutor(2) as pool:
        events = [(threading.Event(), threading.Event()) for _ in range(2)]
        threads = [pool.submit(paused, *of_thread) for of_thread in events]
        assert all(begun.wait(30) for begun, _ in events)
        with gc_paused(), gc_paused():
            pass
        events[0][1].set()
        threads[0].result()
        seen.clear()
        make_objects()
        assert seen == []  # the other has not ended
        events[1][1].set()
        threads[1].result()
        make_objects()
        assert bool(seen) == collector


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_child_does_not_stay_paused() -> None:
    """The thread that would end the pause is not in it."""
    begun, end = threading.Event(), threading.Event()

    def paused() -> None:
        with gc_paused():
            begun.set()
            end.wait(30)

    before = gc.get_threshold()
    thread = threading.Thread(target=paused)
    thread.start()
    assert begun.wait(30)
    assert gc.get_threshold() != before
    child = os.fork()
    if child == 0:
        os._exit(0 if gc.get_threshold() == before else 1)
    end.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert gc.get_threshold() == before


def test_result_is_handed_over_once(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    save_file({str(i): torch.zeros(1) for i in range(1000)}, path)
    arguments = str(path), torch.device("cpu"), "auto", None, None, False, True
    names, tensors, many = torch.ops.safetensors._load_file(*arguments)
    assert (names, tensors) == ([], [])
    assert len(many.take()[2]) == 1000
    assert many.take()[2] == []


CONTROLS = [chr(i) for i in range(32)]


@pytest.mark.parametrize("odd", ["", "\n", "\n\0", "a\nb", "".join(CONTROLS), "\x1c", "\u2028", "\ud7ff"])
@pytest.mark.parametrize("count", [1, 16, 17, 2000])
def test_names_with_any_character(tmp_path: Path, odd: str, count: int) -> None:
    path = tmp_path / "many.safetensors"
    names = [odd, *(f"{odd}{i}{odd}" for i in range(count - 1))]
    save_file({name: torch.zeros(1) for name in names}, path)
    assert list(load_file(path)) == sorted(names)
    file = safe_open(path)
    assert file.keys() == file.offset_keys() == list(file) == sorted(names)
    assert len(file) == count
