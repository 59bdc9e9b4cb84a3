from __future__ import annotations

import builtins
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from helpers import assert_same, descriptors, listing

from torch_safetensors import Writer, load_file, load_model, load_tensor, save, save_file, save_model, save_sharded

#: Several of the pieces that are moved at a time, and small ones.
TENSORS = {"large": torch.arange(8 << 20, dtype=torch.float32), **{f"s{i}": torch.ones(i) for i in range(200)}}
NBYTES = sum(tensor.nbytes for tensor in TENSORS.values())


class Calls:
    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))
        self.threads.add(threading.get_ident())

    def check(self, total: int, at_least: int) -> None:
        """From 0 to all, upwards, on this thread."""
        assert {all_ for _, all_ in self.calls} == {total}
        done = [done for done, _ in self.calls]
        assert done[0] == 0
        assert done[-1] == total
        assert done == sorted(done)
        assert done.count(total) == 1
        assert len(done) >= at_least
        assert self.threads == {threading.get_ident()}


class StoppedError(Exception):
    pass


def stop(done: int, _total: int) -> None:
    """Halfway, where there is a half."""
    if done > 0:
        raise StoppedError


class Layer(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.large = torch.nn.Parameter(torch.full((8 << 20,), value))
        self.small = torch.nn.Parameter(torch.full((5,), value))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


# --- what is told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fsync", [False, True], ids=["plain", "fsync"])
def test_a_save(path: Path, fsync: bool) -> None:
    calls = Calls()
    save_file(TENSORS, path, fsync=fsync, progress=calls)
    calls.check(path.stat().st_size, at_least=2 if fsync else 4)  # by several threads, of which this one may do little
    assert_same(load_file(path), TENSORS)


def test_a_load(path: Path) -> None:
    save_file(TENSORS, path)
    calls = Calls()
    assert_same(load_file(path, backend="pread", progress=calls), TENSORS)
    calls.check(NBYTES, at_least=2)


def test_a_load_that_is_verified_counts_twice(path: Path) -> None:
    save_file(TENSORS, path, checksum=True)
    for backend in ("mmap", "pread"):
        calls = Calls()
        load_file(path, backend=backend, verify=True, progress=calls)
        calls.check(2 * NBYTES, at_least=2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_where_nothing_is_read_it_is_done_at_once(path: Path, device: str) -> None:
    save_file(TENSORS, path)
    calls = Calls()
    load_file(path, device, backend="mmap", progress=calls)
    assert calls.calls == [(0, NBYTES), (NBYTES, NBYTES)]


def test_a_file_without_bytes(path: Path) -> None:
    save_file({"empty": torch.empty(0, 3)}, path)
    calls = Calls()
    load_file(path, progress=calls)
    assert calls.calls == [(0, 0)]


def loads_and_saves_with_progress(path: Path, device: str) -> None:
    save_file(TENSORS, path)
    calls = Calls()
    load_file(path, device, progress=calls)
    calls.check(NBYTES, at_least=2)
    with pytest.raises(StoppedError):
        load_file(path, device, progress=stop)
    assert_same({name: tensor.cpu() for name, tensor in load_file(path, device).items()}, TENSORS)
    calls = Calls()
    save_file(load_file(path, device), path, progress=calls)
    calls.check(path.stat().st_size, at_least=3)


@pytest.mark.parametrize("assign", [False, True], ids=["in place", "assign"])
def test_models(path: Path, assign: bool) -> None:
    calls = Calls()
    save_model(Layer(1.0), path, progress=calls)
    calls.check(path.stat().st_size, at_least=4)
    model = Layer(2.0)
    calls = Calls()
    load_model(model, path, backend="pread", assign=assign, progress=calls)
    calls.check(sum(parameter.nbytes for parameter in model.parameters()), at_least=2)
    assert (model.large == 1.0).all()


def test_a_model_with_a_say_in_loading(path: Path) -> None:
    save_model(Layer(1.0), path)
    model = Layer(2.0)
    model._register_load_state_dict_pre_hook(lambda *_: None)
    calls = Calls()
    load_model(model, path, backend="pread", progress=calls)
    calls.check(sum(parameter.nbytes for parameter in model.parameters()), at_least=2)


def test_a_writer_counts_all_its_tensors(path: Path) -> None:
    calls = Calls()
    with Writer(path, TENSORS, progress=calls) as writer:
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)
    done = [done for done, _ in calls.calls]
    assert {total for _, total in calls.calls} == {NBYTES}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, NBYTES)
    assert len(set(done)) > 4


def test_a_writer_with_threads_is_told_of_one_at_a_time(path: Path) -> None:
    tensors = {str(index): torch.ones(100_000) for index in range(50)}
    done: list[int] = []
    busy = threading.Lock()

    def report(bytes_done: int, _total: int) -> None:
        assert busy.acquire(blocking=False)
        done.append(bytes_done)
        busy.release()

    with Writer(path, tensors, progress=report) as writer, ThreadPoolExecutor(8) as pool:
        for written in [pool.submit(writer.write, name, tensor) for name, tensor in tensors.items()]:
            written.result()
    assert done == sorted(done)
    assert done[-1] == 50 * 400_000


# --- who is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("verify", [False, True])
def test_a_load_of_some_tensors(path: Path, dtype: torch.dtype | None, verify: bool) -> None:
    save_file(TENSORS, path, checksum=True)
    calls = Calls()
    loaded = load_file(path, names=["large", "s1*"], dtype=dtype, verify=verify, backend="pread", progress=calls)
    nbytes = sum(TENSORS[name].nbytes for name in loaded)
    calls.check(nbytes * (1 + verify), at_least=3)


def test_a_checkpoint_in_several_files(tmp_path: Path) -> None:
    saved = Calls()
    save_sharded(TENSORS, tmp_path, max_shard_size=1000, progress=saved)
    saved.check(NBYTES, at_least=20)
    for options in ({}, {"rename": {"large": "l"}}):
        calls = Calls()
        load_file(tmp_path, backend="pread", progress=calls, **options)
        calls.check(NBYTES, at_least=20)
    model = Calls()
    save_sharded(Layer(1.0), tmp_path, max_shard_size=1000, progress=model)
    model.check(sum(parameter.nbytes for parameter in Layer(1.0).parameters()), at_least=2)


def test_a_save_of_several_files_that_is_stopped_leaves_the_old_ones(tmp_path: Path) -> None:
    save_sharded({"a": torch.ones(4)}, tmp_path)
    with pytest.raises(StoppedError):
        save_sharded(TENSORS, tmp_path, max_shard_size=1000, progress=stop)
    assert listing(tmp_path) == ["model.safetensors"]
    assert_same(load_file(tmp_path), {"a": torch.ones(4)})


def test_a_url(path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/progress.safetensors", save(TENSORS))
    calls = Calls()
    try:
        assert_same(load_file("memory://progress.safetensors", progress=calls), TENSORS)
        calls.check(NBYTES, at_least=5)
        some = Calls()
        load_file("memory://progress.safetensors", names="s*", progress=some)
        some.check(NBYTES - TENSORS["large"].nbytes, at_least=2)
        with pytest.raises(StoppedError):
            load_file("memory://progress.safetensors", progress=stop)
    finally:
        fs.rm("/progress.safetensors")


def test_nobody_by_default(path: Path) -> None:
    calls = Calls()
    save_file(TENSORS, path, progress=calls)
    told = len(calls.calls)
    save_file(TENSORS, path, progress=None)
    load_file(path, backend="pread", progress=False)
    load_tensor(path, "large", backend="pread")
    assert len(calls.calls) == told


def test_other_threads_are_not_told_of(path: Path) -> None:
    save_file(TENSORS, path)
    inner: list[int] = []

    def report(done: int, _total: int) -> None:
        if not inner:
            with ThreadPoolExecutor(1) as pool:
                inner.append(len(pool.submit(load_file, path, backend="pread").result()))

    calls = Calls()
    load_file(path, backend="pread", progress=lambda *arguments: (report(*arguments), calls(*arguments)))
    assert inner == [len(TENSORS)]
    calls.check(NBYTES, at_least=2)


def test_a_report_may_load_and_save_itself(path: Path) -> None:
    save_file(TENSORS, path)
    outer, inner = Calls(), Calls()

    def report(done: int, total: int) -> None:
        outer(done, total)
        if done == 0:
            load_file(path, backend="pread")
            save_file({"a": torch.ones(3)}, path.with_name("y"), progress=inner)

    load_file(path, backend="pread", progress=report)
    outer.check(NBYTES, at_least=2)
    inner.check(path.with_name("y").stat().st_size, at_least=2)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    calls = Calls()
    save_file(TENSORS, path, progress=calls)
    calls.check(path.stat().st_size, at_least=4)
    load_file(path, progress=True)


@pytest.mark.parametrize("progress", [1, "yes", []], ids=str)
def test_what_is_neither_bool_nor_callable(path: Path, progress: Any) -> None:
    with pytest.raises(TypeError, match=f"progress: expected a bool or a callable, not {type(progress).__name__}"):
        save_file(TENSORS, path, progress=progress)
    with pytest.raises(TypeError, match="progress: expected a bool or a callable"):
        Writer(path, TENSORS, progress=progress)
    assert listing(path.parent) == []


# --- stopped -------------------------------------------------------------------------------------------------------


def write(path: Path, progress: Callable[[int, int], object]) -> None:
    with Writer(path, TENSORS, progress=progress) as writer:
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)


SAVES: dict[str, Callable[[Path, Callable[[int, int], object]], object]] = {
    "save_file": lambda path, progress: save_file(TENSORS, path, progress=progress),
    "save_file, fsync": lambda path, progress: save_file(TENSORS, path, fsync=True, progress=progress),
    "save_model": lambda path, progress: save_model(Layer(1.0), path, progress=progress),
    "Writer": write,
}


@pytest.mark.parametrize("name", SAVES)
def test_a_save_that_is_stopped_leaves_the_old_file(path: Path, name: str) -> None:
    old = save({"w": torch.ones(3)})
    path.write_bytes(old)
    before = descriptors()
    for report in (stop, raise_at_once):
        with pytest.raises(StoppedError):
            SAVES[name](path, report)
        assert path.read_bytes() == old
        assert listing(path.parent) == [path.name]
    assert descriptors() == before
    SAVES[name](path, lambda *_: None)  # nothing of it stays
    assert path.read_bytes() != old


def raise_at_once(_done: int, _total: int) -> None:
    raise StoppedError


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt, RuntimeError("my own"), OSError(5, "mine", "mine")])
def test_a_load_that_is_stopped_raises_what_stopped_it(path: Path, error: Any) -> None:
    save_file(TENSORS, path)
    before = descriptors()

    def report(done: int, _total: int) -> None:
        if done > 0:
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
        load_file(path, backend="pread", progress=report)
    assert isinstance(error, type) or caught.value is error
    assert any(entry.name == "report" for entry in caught.traceback)
    assert descriptors() == before
    calls = Calls()
    load_file(path, backend="pread", progress=calls)
    calls.check(NBYTES, at_least=2)


@pytest.mark.parametrize("text", ["{}: my own", "[Errno 5] mine: '{}'", "{}/x: my own"])
def test_what_reads_like_an_error_of_the_file_is_the_caller_s_own(path: Path, text: str) -> None:
    save_file(TENSORS, path)
    error, cause = RuntimeError(text.format(path)), KeyError("mine")

    def report(_done: int, _total: int) -> None:
        raise error from cause

    model = Layer(1.0)
    for function in (
        lambda: load_file(path, progress=report),
        lambda: load_model(model, path, False, progress=report),
        lambda: save_file(TENSORS, path, progress=report),
        lambda: save_model(model, path, progress=report),
    ):
        with pytest.raises(RuntimeError) as caught:
            function()
        assert caught.value is error
        assert error.__cause__ is cause


def test_a_model_is_loaded_again_after_it_was_stopped(path: Path) -> None:
    save_model(Layer(1.0), path)
    model = Layer(2.0)
    with pytest.raises(StoppedError):
        load_model(model, path, progress=stop)
    load_model(model, path)
    assert (model.large == 1.0).all()


# --- the bar -------------------------------------------------------------------------------------------------------


def test_a_bar_shows_nothing_of_what_is_quick(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    save_file({"w": torch.ones(3)}, path, progress=True)
    load_file(path, progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_bar_of_what_takes_longer(
    path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tqdm = pytest.importorskip("tqdm.auto")
    made: list[dict[str, Any]] = []
    real = tqdm.tqdm

    def without_delay(*arguments: Any, **keywords: Any) -> Any:
        made.append(dict(keywords))
        return real(*arguments, **{**keywords, "delay": 0, "mininterval": 0})

    monkeypatch.setattr(tqdm, "tqdm", without_delay)
    save_file(TENSORS, path, progress=True)
    with Writer(path, TENSORS, progress=True) as writer:
        for name, tensor in TENSORS.items():
            writer.write(name, tensor)
    out, err = capfd.readouterr()
    assert out == ""
    assert "x.safetensors: 100%" in err
    assert "32.1M/32.1M" in err
    assert [keywords["delay"] for keywords in made] == [1, 1]


def test_no_tqdm(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.split(".")[0] == "tqdm":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.split(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    text = "progress=True shows a bar with tqdm: pip install tqdm, or pass a callable"
    for save_it in (lambda: save_file(TENSORS, path, progress=True), lambda: Writer(path, TENSORS, progress=True)):
        with pytest.raises(ImportError, match=text):
            save_it()
    assert listing(path.parent) == []
