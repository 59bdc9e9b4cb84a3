"""How a file gets onto the disk: whole or not at all, with the mode it should have, whatever fails."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import KILL, calls, faults
from helpers import assert_same, listing
from torch import Tensor

from torch_safetensors import load_file, save, save_file

OLD = {"w": torch.arange(100.0)}
NEW = {"w": -torch.arange(200.0), "v": torch.ones(3, dtype=torch.int64)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


@pytest.fixture
def old(path: Path) -> Path:
    save_file(OLD, path)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_new_file_has_the_mode_that_the_umask_leaves(path: Path, mask: int) -> None:
    with umask(mask):
        save_file(NEW, path)
    assert mode(path) == 0o666 & ~mask


@pytest.mark.parametrize("before", [0o600, 0o640, 0o644, 0o666, 0o755, 0o444, 0o2664])
def test_existing_mode_is_kept(old: Path, before: int) -> None:
    old.chmod(before)
    with umask(0o077):
        save_file(NEW, old)
    assert mode(old) == before
    assert_same(load_file(old), NEW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_existing_owner_is_kept(old: Path) -> None:
    os.chown(old, 1234, 5678)
    save_file(NEW, old)
    assert (old.stat().st_uid, old.stat().st_gid) == (1234, 5678)


@pytest.mark.parametrize("link", ["elsewhere/x", "absolute", "chain", "dangling"])
def test_link_is_kept_and_written_through(tmp_path: Path, link: str) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target = folder / "x"
    if link != "dangling":
        save_file(OLD, target)
        target.chmod(0o640)
    path = tmp_path / "link"
    path.symlink_to(target if link == "absolute" else "elsewhere/x")
    if link == "chain":
        (folder / "second").symlink_to("../link")
        path = folder / "second"
    links = {p: p.readlink() for p in tmp_path.rglob("*") if p.is_symlink()}
    save_file(NEW, path)
    assert {p: p.readlink() for p in tmp_path.rglob("*") if p.is_symlink()} == links
    assert not target.is_symlink()
    assert_same(load_file(target), NEW)
    assert link == "dangling" or mode(target) == 0o640
    assert listing(folder) == (["second", "x"] if link == "chain" else ["x"])


def test_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as error:
        save_file(NEW, tmp_path / "a")
    assert (error.value.errno, error.value.filename) == (errno.ELOOP, str(tmp_path / "a"))


def test_hard_link_is_broken(old: Path) -> None:
    other = old.with_name("other")
    os.link(old, other)
    save_file(NEW, old)
    assert_same(load_file(other), OLD)
    assert_same(load_file(old), NEW)


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_save_over_the_file_just_loaded(old: Path, backend: str) -> None:
    loaded = load_file(old, backend=backend)
    for step in range(3):
        save_file({"first": loaded["w"], "w": loaded["w"] + step}, old)
        assert_same(loaded, OLD)
        assert_same(load_file(old), {"first": OLD["w"], "w": OLD["w"] + step})
    save_file({}, old)
    assert_same(loaded, OLD)


def test_save_what_was_loaded_and_changed_in_place(old: Path) -> None:
    loaded = load_file(old, backend="mmap")
    loaded["w"].mul_(2)
    save_file(loaded, old)
    assert_same(load_file(old), {"w": OLD["w"] * 2})


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127 + "x", "🦙" * 63])
def test_longest_name(tmp_path: Path, name: str) -> None:
    for tensors in (OLD, NEW):
        save_file(tensors, tmp_path / name)
        assert listing(tmp_path) == [name]
        assert_same(load_file(tmp_path / name), tensors)


def test_relative_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.chdir(path.parent)
        save_file(NEW, "x.safetensors")
        save_file(OLD, "./x.safetensors")
    assert_same(load_file(path), OLD)
    assert listing(path.parent) == ["x.safetensors"]


def save_error(path: Any) -> OSError:
    with pytest.raises(OSError) as error:  # noqa: PT011 (what it is, the caller compares)
        save_file(NEW, path)
    assert error.value.filename == os.fspath(path)
    return error.value


def test_fifo_is_refused(tmp_path: Path, worker: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    error = worker(save_error, tmp_path / "fifo")
    assert (error.errno, error.strerror) == (errno.EINVAL, "not a regular file")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert listing(tmp_path) == ["fifo"]


@pytest.mark.parametrize("name", ["/dev/null", "/dev/full"])
def test_device_is_refused(name: str) -> None:
    before = os.lstat(name)
    assert save_error(name).errno == errno.EINVAL
    assert os.lstat(name).st_ino == before.st_ino


@pytest.mark.parametrize("suffix", ["", "/", "/.", "/new/"])
def test_directory_is_refused(tmp_path: Path, suffix: str) -> None:
    error = save_error(f"{tmp_path}{suffix}")
    assert type(error) is IsADirectoryError
    assert listing(tmp_path) == []


def test_missing_directory(tmp_path: Path) -> None:
    assert type(save_error(tmp_path / "none" / "x")) is FileNotFoundError


def test_file_as_directory(old: Path) -> None:
    assert type(save_error(old / "x")) is NotADirectoryError


def save_as_nobody(path: Path) -> OSError:
    if os.geteuid() != 0:
        return save_error(path)
    os.seteuid(65534)
    try:
        return save_error(path)
    finally:
        os.seteuid(0)


def test_directory_that_is_read_only(worker: Any) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        folder = Path(name)
        save_file(OLD, folder / "x")
        folder.chmod(0o555)
        assert type(worker(save_as_nobody, folder / "x")) is PermissionError
        assert listing(folder) == ["x"]
        assert_same(load_file(folder / "x"), OLD)


def save_with(
    path: Path, tensors: dict[str, Tensor], errors: dict[str, int], fsync: bool = False
) -> tuple[list[str], list[str]]:
    """Warnings and calls of a save during which system calls fail."""
    gc.collect()  # mapped tensors of earlier calls
    with warnings.catch_warnings(record=True) as caught, faults(**errors):
        warnings.simplefilter("always")
        save_file(tensors, path, fsync=fsync)
        done = calls()
    return [str(warning.message) for warning in caught], done


# Many FUSE mounts refuse these calls in one of these ways.
REFUSALS = pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM], ids=errno.errorcode.get)


@REFUSALS
@pytest.mark.parametrize("call", ["fchmod", "fchown", "flock", "ftruncate", "fallocate"])
def test_refused_extras_are_survived(old: Path, worker: Any, call: str, error: int) -> None:
    old.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(old, 1234, 5678)
    messages, _ = worker(save_with, old, NEW, {call: error})
    assert messages == []
    assert_same(load_file(old), NEW)
    assert listing(old.parent) == [old.name]


@REFUSALS
@pytest.mark.parametrize("exists", [True, False], ids=["existing", "new"])
def test_without_rename_the_file_is_written_in_place(path: Path, worker: Any, error: int, exists: bool) -> None:
    if exists:
        save_file(OLD, path)
        path.chmod(0o640)
    inode = path.stat().st_ino if exists else None
    messages, _ = worker(save_with, path, NEW, {"rename": error})
    text = f"{path}: the file system cannot rename, so this save was not atomic: it was written in place"
    assert messages == [text]
    assert path.read_bytes() == save(NEW)
    assert inode in (None, path.stat().st_ino)
    assert mode(path) == (0o640 if exists else 0o666 & ~current_umask())
    assert listing(path.parent) == [path.name]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_rename_and_chmod_and_flock_refused_together(old: Path, worker: Any) -> None:
    messages, _ = worker(save_with, old, NEW, dict.fromkeys(("rename", "fchmod", "flock"), errno.ENOSYS))
    assert len(messages) == 1
    assert_same(load_file(old), NEW)


def save_what_is_mapped(path: Path) -> tuple[str, dict[str, Tensor]]:
    loaded = load_file(path, backend="mmap")
    with faults(rename=errno.ENOSYS), pytest.raises(OSError, match="while this process has it mapped") as error:
        save_file({"w": loaded["w"]}, path)
    assert error.value.errno == errno.ENOSYS
    assert error.value.filename == str(path)
    return str(error.value), {name: tensor.clone() for name, tensor in loaded.items()}


def test_a_file_is_not_overwritten_in_place_while_it_is_mapped(old: Path, worker: Any) -> None:
    before = old.read_bytes()
    _, loaded = worker(save_what_is_mapped, old)
    assert_same(loaded, OLD)
    assert old.read_bytes() == before
    assert listing(old.parent) == [old.name]
    worker(save_with, old, NEW, {"rename": errno.ENOSYS})  # its tensors are gone
    assert_same(load_file(old), NEW)


def save_after_pread(path: Path) -> None:
    loaded = load_file(path, backend="pread")
    save_with(path, {"v": loaded["w"] + 1}, {"rename": errno.ENOSYS})
    assert_same(loaded, OLD)


def test_a_file_that_was_read_is_overwritten_in_place(old: Path, worker: Any) -> None:
    worker(save_after_pread, old)
    assert_same(load_file(old), {"v": OLD["w"] + 1})


def failing_save(path: Path, errors: dict[str, int], fsync: bool) -> OSError:
    with faults(**errors), pytest.raises(OSError) as error:  # noqa: PT011 (what it is, the caller compares)
        save_file(NEW, path, fsync=fsync)
    return error.value


FAILURES = {
    "full disk": ({"writev": errno.ENOSPC}, False),
    "quota": ({"writev": errno.EDQUOT}, False),
    "input/output error": ({"writev": errno.EIO}, False),
    "rename": ({"rename": errno.EIO}, False),
    "rename across devices": ({"rename": errno.EXDEV}, False),
    "fsync": ({"fsync": errno.EIO}, True),
}


@pytest.mark.parametrize("exists", [True, False], ids=["existing", "new"])
@pytest.mark.parametrize(("errors", "fsync"), FAILURES.values(), ids=FAILURES)
def test_failure_leaves_the_old_file(
    path: Path, worker: Any, errors: dict[str, int], fsync: bool, exists: bool
) -> None:
    if exists:
        save_file(OLD, path)
    error = worker(failing_save, path, errors, fsync)
    assert error.errno == next(iter(errors.values()))
    assert error.filename == str(path)
    assert listing(path.parent) == ([path.name] if exists else [])
    assert not exists or path.read_bytes() == save(OLD)


def killed_save(path: Path, call: str) -> int:
    child = os.fork()
    if child == 0:
        with faults(**{call: KILL}):
            save_file(NEW, path, fsync=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status)


@pytest.mark.parametrize("call", ["writev", "fchmod", "fsync", "rename"])
def test_what_a_killed_save_left_is_gone_after_the_next_one(old: Path, worker: Any, call: str) -> None:
    old.chmod(0o666)  # not what a new file gets, so that its mode has to be set
    for _ in range(3):
        assert worker(killed_save, old, call) == signal.SIGKILL
    assert old.read_bytes() == save(OLD)
    assert len(listing(old.parent)) > 1
    save_file(NEW, old)
    assert listing(old.parent) == [old.name]
    assert_same(load_file(old), NEW)


def test_what_others_have_there_is_left_alone(old: Path, worker: Any) -> None:
    other = old.with_name("other.safetensors")
    worker(killed_save, other, "rename")
    left = set(listing(old.parent))
    old.with_name(".st-not-ours").write_text("")
    save_file(NEW, old)
    assert set(listing(old.parent)) == {*left, ".st-not-ours"}


def test_fsync_flushes_the_file_before_it_has_its_name_and_the_directory_after(old: Path, worker: Any) -> None:
    _, done = worker(save_with, old, NEW, {}, True)
    wanted = [call for call in done if call.startswith(("writev", "fsync", "rename"))]
    assert wanted == ["writev", "fsync file", "rename", "fsync directory"]


def test_fsync_in_place(old: Path, worker: Any) -> None:
    _, done = worker(save_with, old, NEW, {"rename": errno.ENOSYS}, True)
    last_write = len(done) - done[::-1].index("writev")
    assert "fsync file" in done[last_write:]


def test_without_fsync_nothing_is_flushed(old: Path, worker: Any) -> None:
    _, done = worker(save_with, old, NEW, {})
    assert not [call for call in done if call.startswith("fsync")]


def test_umask_is_never_touched(path: Path, worker: Any) -> None:
    for _ in range(2):
        _, done = worker(save_with, path, NEW, {})
        assert "umask" not in done
        assert "rename" in done


def many() -> dict[str, Tensor]:
    return {str(i): torch.arange(100.0) + i for i in range(3000)}  # more than one system call takes


def save_many(path: Path) -> None:
    save_with(path, many(), {"nothing": errno.EIO})  # with any fault set, half of the writes are short


def test_short_writes(path: Path, worker: Any) -> None:
    worker(save_many, path)
    assert path.read_bytes() == save(many())
