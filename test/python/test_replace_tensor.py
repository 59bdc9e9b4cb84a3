from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TORTURE, Worker
from faults import KILL, failed_call, failing_call, faults
from helpers import assert_same, descriptors, listing, make_file, random_tensor, random_tensors

from torch_safetensors import SafetensorError, load_file, recover, replace_tensor, safe_open, save, save_file

OLD = {"v": torch.ones(3, dtype=torch.int64), "w": torch.arange(300.0)}
NEW = {"v": OLD["v"], "w": -OLD["w"]}
KILLS = 500 if TORTURE else 30
checksums = pytest.mark.parametrize("checksum", [False, True], ids=["plain", "checksums"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def undo_of(path: Path) -> Path:
    return path.with_name(path.name + ".undo")


# --- what it does --------------------------------------------------------------------------------------------------


@checksums
@pytest.mark.parametrize("seed", range(8))
def test_the_file_is_as_if_saved_with_the_new_tensor(path: Path, seed: int, checksum: bool) -> None:
    rng = random.Random(seed)
    tensors = random_tensors(seed)
    save_file(tensors, path, {"a": "b"}, checksum=checksum)
    for name in rng.sample(sorted(tensors), 5):
        tensors[name] = random_tensor(rng, tensors[name].dtype, tuple(tensors[name].shape))
        replace_tensor(path, name, tensors[name])
        assert path.read_bytes() == as_saved(tensors, path.with_name("y"), checksum)
    assert listing(path.parent) == [path.name, "y"]


def as_saved(tensors: dict[str, torch.Tensor], path: Path, checksum: bool) -> bytes:
    save_file(tensors, path, {"a": "b"}, checksum=checksum)
    return path.read_bytes()


def test_it_is_the_same_file(path: Path) -> None:
    save_file(OLD, path)
    path.chmod(0o640)
    link, hard_link = path.with_name("link"), path.with_name("hard")
    link.symlink_to(path.name)
    hard_link.hardlink_to(path)
    before = path.stat()
    replace_tensor(link, "w", NEW["w"])
    assert link.is_symlink()
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert hard_link.read_bytes() == save(NEW)
    assert listing(path.parent) == ["hard", "link", path.name]


def test_tensors_that_have_to_be_packed_first(path: Path) -> None:
    base = torch.randn(6, 8, dtype=torch.complex64)
    save_file({"w": torch.zeros(8, 6, dtype=torch.complex64)}, path, checksum=True)
    for tensor in (base.t(), base.t().conj(), torch.nn.Parameter(base.view(8, 6)), base[:1, :1].expand(8, 6)):
        replace_tensor(path, "w", tensor)
        assert_same(load_file(path, verify=True), {"w": tensor.detach().resolve_conj().contiguous()})


def replaces_from_device(path: Path, device: str) -> None:
    large = torch.randn(300_000)
    save_file({"w": large}, path)
    moved = load_file(path, device)["w"]
    save_file({"w": torch.zeros_like(large)}, path, checksum=True)
    replace_tensor(path, "w", moved)
    assert_same(load_file(path, verify=True), {"w": large})


@checksums
def test_tensors_mapped_from_the_file_itself(path: Path, checksum: bool) -> None:
    old = {"a": torch.randn(200_000), "b": torch.randn(200_000)}
    save_file(old, path, checksum=checksum)
    mapped = load_file(path, backend="mmap")
    replace_tensor(path, "a", mapped["b"])
    assert torch.equal(mapped["a"], old["b"])  # sees the change
    replace_tensor(path, "b", mapped["b"].flip(0))
    mapped["a"][::2] = 7  # some pages are its own now
    replace_tensor(path, "a", mapped["a"])
    expected = old["b"].clone()
    expected[::2] = 7
    assert_same(load_file(path, verify=checksum), {"a": expected, "b": old["b"].flip(0)})


def shifted(path: Path) -> None:
    """Memory of the file itself, mapped by others, that begins elsewhere than where it is written."""
    size = 3 << 20
    save_file({"w": torch.arange(size, dtype=torch.int32)}, path)
    begin = path.stat().st_size - 4 * size
    whole = torch.from_file(str(path), shared=True, size=path.stat().st_size, dtype=torch.uint8)
    source = torch.cat([whole[begin:], whole[:0]]).view(torch.int32)
    assert torch.equal(source, torch.arange(size, dtype=torch.int32))
    backwards = whole[: 4 * size].view(torch.int32)
    expected = backwards.clone()
    replace_tensor(path, "w", backwards)
    assert_same(load_file(path, backend="pread"), {"w": expected})


def test_memory_of_the_file_that_others_mapped(path: Path) -> None:
    shifted(path)


def test_readers_with_an_open_file_see_it(path: Path) -> None:
    save_file(OLD, path)
    for backend in ("mmap", "pread"):
        with safe_open(path, backend=backend) as file:
            replace_tensor(path, "w", NEW["w"])
            assert torch.equal(file.get_tensor("w"), NEW["w"])
            replace_tensor(path, "w", OLD["w"])
            assert torch.equal(file.get_tensor("w"), OLD["w"])


def test_tensors_without_bytes(path: Path) -> None:
    save_file({"e": torch.empty(0, 3)}, path, checksum=True)
    before = path.read_bytes()
    replace_tensor(path, "e", torch.empty(0, 3))
    assert path.read_bytes() == before


def replace_again_and_again(path: Path, value: float) -> None:
    for _ in range(20):
        replace_tensor(path, "w", torch.full((50_000,), value))


def test_those_who_replace_wait_for_each_other(path: Path) -> None:
    save_file({"w": torch.zeros(50_000)}, path, checksum=True)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(replace_again_and_again, path, float(value)) for value in range(4)]:
            done.result()
    tensor = load_file(path, verify=True)["w"]
    assert (tensor == tensor[0]).all()
    assert listing(path.parent) == [path.name]


def test_a_save_that_comes_meanwhile_wins(path: Path) -> None:
    save_file({"w": torch.zeros(50_000)}, path)
    stop = threading.Event()

    def save_them() -> None:
        while not stop.is_set():
            save_file({"w": torch.full((50_000,), 9.0)}, path)

    thread = threading.Thread(target=save_them)
    thread.start()
    try:
        for _ in range(50):
            try:
                replace_tensor(path, "w", torch.full((50_000,), 1.0))
            except SafetensorError as error:
                assert "another file was put in its place meanwhile" in str(error)  # noqa: PT017 (one of two outcomes)
    finally:
        stop.set()
        thread.join()
    tensor = load_file(path)["w"]
    assert (tensor == tensor[0]).all()
    assert listing(path.parent) == [path.name]


# --- refused -------------------------------------------------------------------------------------------------------


def test_what_is_refused_changes_nothing(path: Path) -> None:
    save_file(OLD, path)
    w = NEW["w"]
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        ("x", w, SafetensorError, f"{path}: tensor 'x': not in this file, which holds 2 tensors"),
        (
            "w",
            w.double(),
            ValueError,
            f"{path}: tensor 'w': the file holds Float [300] but the tensor",
        ),
        ("w", w[1:], ValueError, "the file holds Float [300] but the tensor to replace it is Float [299]"),
        ("w", w.view(3, 100), ValueError, "but the tensor to replace it is Float [3, 100]"),
        ("w", w.to_sparse(), ValueError, "tensor 'w': is Sparse"),
        ("w", w.to("meta"), NotImplementedError, "tensor 'w': is on the meta device"),
        ("w", [1.0], TypeError, "tensor 'w': expected torch.Tensor, not list"),
        (b"w", w, TypeError, "name: expected str, not bytes"),
    ]
    for name, tensor, error, text in cases:
        with pytest.raises(error) as caught:
            replace_tensor(path, name, tensor)
        assert text in str(caught.value)
    assert path.read_bytes() == save(OLD)
    assert listing(path.parent) == [path.name]


def test_what_is_no_file(path: Path) -> None:
    for call in (lambda target: replace_tensor(target, "w", NEW["w"]), recover):
        with pytest.raises(FileNotFoundError) as caught:
            call(path)
        assert caught.value.filename == str(path)
        with pytest.raises(IsADirectoryError):
            call(path.parent)
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"Invalid argument|not a regular file"):
        replace_tensor(path, "w", NEW["w"])


def test_a_malformed_file(path: Path) -> None:
    path.write_bytes(save(OLD)[:-1])
    with pytest.raises(SafetensorError, match=r"x\.safetensors: "):
        replace_tensor(path, "w", NEW["w"])


def test_checksums_that_another_program_wrote_in_another_way(path: Path) -> None:
    save_file({"w": torch.zeros(2)}, path, checksum=True)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].decode().replace('128":"', '128" : "')
    path.write_bytes(make_file(header, content[8 + size :]))
    before = path.read_bytes()
    load_file(path, verify=True)
    with pytest.raises(SafetensorError, match=r"'torch_safetensors.xxh3_128': not written as save_file writes it"):
        replace_tensor(path, "w", torch.ones(2))
    assert path.read_bytes() == before
    assert listing(path.parent) == [path.name]


# --- the undo file -------------------------------------------------------------------------------------------------


def replace_and_die(path: Path, call: str, checksum: bool) -> None:
    """In a child that is killed by the system call of that name."""
    save_file(OLD, path, checksum=checksum)
    child = os.fork()
    if child == 0:
        with faults(**{call: KILL}):
            replace_tensor(path, "w", NEW["w"])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@checksums
def test_what_it_holds(path: Path, worker: Worker, checksum: bool) -> None:
    worker(replace_and_die, path, "unlink", checksum)
    path.chmod(0o600)
    assert load_file(path)["w"].equal(NEW["w"])
    assert_same(load_file(undo_of(path), verify=True), {"w": OLD["w"]})
    metadata = safe_open(undo_of(path)).metadata()
    assert metadata["torch_safetensors.undo"].startswith("what replace_tensor was overwriting")
    assert str(path.stat().st_ino) in metadata["torch_safetensors.undo.file"]


@checksums
def test_recover(path: Path, worker: Worker, checksum: bool) -> None:
    worker(replace_and_die, path, "unlink", checksum)
    assert recover(path)
    assert path.read_bytes() == save(OLD, checksum=checksum)
    assert listing(path.parent) == [path.name]
    assert not recover(path)


@checksums
def test_the_next_one_recovers_first(path: Path, worker: Worker, checksum: bool) -> None:
    worker(replace_and_die, path, "unlink", checksum)
    replace_tensor(path, "v", -OLD["v"])
    assert path.read_bytes() == save({"v": -OLD["v"], "w": OLD["w"]}, checksum=checksum)
    assert listing(path.parent) == [path.name]


def test_it_is_no_more_open_than_the_file(path: Path, worker: Worker) -> None:
    save_file(OLD, path)
    path.chmod(0o600)
    child_mode = worker(mode_of_undo_file, path)
    assert child_mode == 0o600


def mode_of_undo_file(path: Path) -> int:
    child = os.fork()
    if child == 0:
        with faults(unlink=KILL):
            replace_tensor(path, "w", NEW["w"])
    os.waitpid(child, 0)
    return stat.S_IMODE(undo_of(path).stat().st_mode)


@pytest.mark.parametrize("how", ["replaced", "copied"])
def test_that_of_another_file(path: Path, worker: Worker, how: str) -> None:
    worker(replace_and_die, path, "unlink", False)
    if how == "replaced":
        save_file(NEW, path)
    else:
        path = Path(shutil.copytree(path.parent, path.parent / "copy")) / path.name
    for call in (lambda: recover(path), lambda: replace_tensor(path, "w", NEW["w"])):
        with pytest.raises(SafetensorError) as caught:
            call()
        assert str(caught.value) == (
            f"{path}: its undo file '{undo_of(path)}' is of another file: one that was replaced or copied since; "
            "if this one is whole, remove the undo file"
        )
    assert path.read_bytes() == save(NEW)
    undo_of(path).unlink()
    replace_tensor(path, "w", OLD["w"])


def test_one_that_is_damaged(path: Path, worker: Worker) -> None:
    worker(replace_and_die, path, "unlink", False)
    undo = bytearray(undo_of(path).read_bytes())
    undo[-1] ^= 1
    undo_of(path).write_bytes(undo)
    with pytest.raises(SafetensorError, match=r"x\.safetensors: its undo file: .*tensor 'w': damaged"):
        recover(path)
    undo_of(path).write_bytes(undo[:-1])
    with pytest.raises(SafetensorError, match=r"x\.safetensors: its undo file: "):
        recover(path)
    assert path.read_bytes() == save(NEW)


# --- system calls that fail ----------------------------------------------------------------------------------------


def replace_while_calls_fail(path: Path, error: int, checksum: bool) -> list[str]:
    """Each call fails once; their names."""
    seen: list[str] = []
    old, new = save(OLD, checksum=checksum), save(NEW, checksum=checksum)
    while True:
        path.write_bytes(old)
        outcome: OSError | None = None
        before = descriptors()
        with failing_call(len(seen), error):
            try:
                replace_tensor(path, "w", NEW["w"])
            except OSError as caught:
                outcome = caught.with_traceback(None)
            call = failed_call()
        assert descriptors() == before, call
        if call is None:
            assert path.read_bytes() == new
            return seen
        seen.append(call)
        if outcome is None:
            assert path.read_bytes() == new, call
        else:
            assert (outcome.errno, outcome.filename) == (error, str(path)), call
            assert path.read_bytes() == old or is_durable_but_for_its_directory(path, new), call
        assert listing(path.parent) == [path.name], call


def is_durable_but_for_its_directory(path: Path, new: bytes) -> bool:
    """The last call: whether the undo file is gone after a crash is not known then."""
    return path.read_bytes() == new and not undo_of(path).exists()


@checksums
@pytest.mark.parametrize("error", [errno.EIO, errno.EINTR], ids=errno.errorcode.get)
def test_each_call_fails(path: Path, worker: Worker, error: int, checksum: bool) -> None:
    seen = worker(replace_while_calls_fail, path, error, checksum)
    assert {"stat", "open", "flock", "lstat", "writev", "rename", "pwrite", "fsync", "unlink", "close"} <= set(seen)


def all_writes_fail(path: Path) -> None:
    save_file(OLD, path)
    with faults(pwrite=errno.EIO), pytest.raises(OSError, match="neither the old nor the new") as caught:
        replace_tensor(path, "w", NEW["w"])
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    assert str(undo_of(path)) in str(caught.value)
    assert recover(path)
    assert path.read_bytes() == save(OLD)


def test_where_the_old_bytes_cannot_be_put_back_the_undo_file_stays(path: Path, worker: Worker) -> None:
    worker(all_writes_fail, path)


def without_locks(path: Path) -> None:
    save_file(OLD, path)
    with faults(flock=errno.ENOLCK), pytest.raises(OSError, match="No locks available") as caught:
        replace_tensor(path, "w", NEW["w"])
    assert caught.value.filename == str(path)
    assert path.read_bytes() == save(OLD)


def test_a_file_system_without_locks(path: Path, worker: Worker) -> None:
    worker(without_locks, path)


def kill_each_call(path: Path, checksum: bool) -> list[int]:
    """The exit statuses of replacements of which each is killed one call later than the one before."""
    old, new = save(OLD, checksum=checksum), save(NEW, checksum=checksum)
    statuses: list[int] = []
    while not statuses or statuses[-1] != 0:
        path.write_bytes(old)
        child = os.fork()
        if child == 0:
            with failing_call(len(statuses), KILL):
                replace_tensor(path, "w", NEW["w"])
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        recover(path)
        assert path.read_bytes() in (old, new)
        replace_tensor(path, "w", OLD["w"])
        assert path.read_bytes() == old
        assert listing(path.parent) == [path.name]
    return statuses


@checksums
def test_each_call_is_the_last(path: Path, worker: Worker, checksum: bool) -> None:
    *killed, last = worker(kill_each_call, path, checksum)
    assert last == 0
    assert len(killed) > 25
    assert set(killed) == {-signal.SIGKILL}


def kill_at_any_time(path: Path, kills: int, seed: int) -> Counter[str]:
    """Kills replacements at moments that are spread over all their time; counts what there was afterwards."""
    rng = random.Random(seed)
    old, new = torch.full((1 << 20,), 1.0), torch.full((1 << 20,), 2.0)
    save_file({"w": old, "v": torch.ones(3)}, path, checksum=True)
    start = time.perf_counter()
    replace_tensor(path, "w", old)
    duration = time.perf_counter() - start
    seen: Counter[str] = Counter()
    for _ in range(kills):
        started, starts = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(starts, b"x")
            replace_tensor(path, "w", new)
            os._exit(0)
        os.read(started, 1)
        time.sleep(rng.uniform(0, 1.5 * duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(started)
        os.close(starts)
        seen["undone"] += recover(path)
        found = load_file(path, verify=True)
        assert found["v"].equal(torch.ones(3))
        assert found["w"].equal(old) or found["w"].equal(new)
        seen["old" if found["w"].equal(old) else "new"] += 1
        del found
        replace_tensor(path, "w", old)
        assert listing(path.parent) == [path.name]
    return seen


def test_killed_at_any_time(path: Path, worker: Worker) -> None:
    seed = random.SystemRandom().randrange(2**32)
    seen = worker(kill_at_any_time, path, KILLS, seed, timeout=600)
    print(f"seed {seed}: {dict(seen)}")
    assert seen["old"] + seen["new"] == KILLS
