"""How a file gets onto the disk: whole or not at all, with the mode it should have, whatever fails."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import signal
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as reference
import torch
from faults import KILL, calls, faults
from helpers import BACKENDS, assert_aligned, assert_same, listing, positions, random_tensor, random_tensors
from torch import Tensor

from torch_safetensors import SafetensorError, load_file, safe_open, save, save_file

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


# --- alignment --------------------------------------------------------------------------------------

ALIGNMENTS = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
BAD_ALIGNMENTS = [-4096, -8, -1, 1, 2, 4, 7, 12, 63, 4095, 4097, 8192, 1 << 62, True]
each_bad_alignment = pytest.mark.parametrize("alignment", BAD_ALIGNMENTS)


def bad_alignment(alignment: int) -> str:
    return f"alignment must be 0 or a power of two from 8 to 4096, not {int(alignment)}$"


def mixture(seed: int = 0) -> dict[str, Tensor]:
    """Sizes with all powers of two in them, and none, in no order."""
    rng = random.Random(seed)
    sizes = [0, 1, 6, 8, 24, 56, 64, 100, 192, 1000, 2048, 4096, 4104, 12288, 100_001, 1 << 18]
    rng.shuffle(sizes)
    tensors = {f"{i}": random_tensor(rng, torch.uint8, (size,)) for i, size in enumerate(sizes)}
    return tensors | random_tensors(seed, 30)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_alignment(path: Path, alignment: int, seed: int) -> None:
    tensors = mixture(seed)
    save_file(tensors, path, {"key": "value"}, alignment=alignment)
    assert_aligned(path, alignment)
    for backend in BACKENDS:
        assert_same(load_file(path, backend=backend), tensors)
    assert_same(reference.load_file(path), tensors)
    assert safe_open(path).metadata() == {"key": "value"}


@pytest.mark.parametrize("alignment", [64, 4096])
def test_mapped_tensors_of_whole_cache_lines_or_pages_begin_at_one(path: Path, alignment: int) -> None:
    tensors = {f"{i}": torch.full((alignment * i,), i, dtype=torch.uint8) for i in range(1, 20)}
    tensors["odd"] = torch.ones(3, dtype=torch.float64)  # of a dtype that comes first without the option
    save_file(tensors, path)
    assert all(tensor.data_ptr() % alignment for name, tensor in load_file(path).items() if name != "odd")
    save_file(tensors, path, alignment=alignment)
    loaded = load_file(path, backend="mmap")
    assert [name for name, tensor in loaded.items() if tensor.data_ptr() % alignment] == []
    assert list(loaded)[-1] == "odd"


def test_tensors_of_one_power_of_two_are_ordered_as_ever(path: Path) -> None:
    tensors = {
        "d": torch.zeros(64, dtype=torch.uint8),
        "c": torch.zeros(32),
        "b": torch.zeros(16),
        "a": torch.zeros(3, dtype=torch.int64),
        "none": torch.zeros(0, dtype=torch.int16),
        "e": torch.zeros(3),
    }
    save_file(tensors, path, alignment=64)
    assert list(positions(path)) == ["b", "c", "none", "d", "a", "e"]
    save_file(tensors, path, alignment=128)
    assert list(positions(path)) == ["c", "none", "b", "d", "a", "e"]


def test_without_alignment_the_file_is_the_reference_s(path: Path) -> None:
    tensors = mixture()
    expected = reference.save(tensors)
    for options in {}, {"alignment": 0}, {"alignment": False}:
        save_file(tensors, path, **options)
        assert path.read_bytes() == expected
    for alignment in 0, None:
        torch.ops.safetensors.save_file(tensors, str(path), alignment=alignment)
        assert path.read_bytes() == expected


def test_alignment_of_no_tensors(path: Path) -> None:
    save_file({}, path, alignment=4096)
    assert path.stat().st_size == 4096
    assert load_file(path) == reference.load_file(path) == {}


@pytest.mark.parametrize("operator", ["save_file", "save_tensors"])
def test_operators_align(path: Path, operator: str) -> None:
    tensors = mixture()
    lists = {"save_file": (tensors, str(path)), "save_tensors": (str(path), list(tensors), list(tensors.values()))}
    getattr(torch.ops.safetensors, operator)(*lists[operator], alignment=64)
    by_operator = path.read_bytes()
    save_file(tensors, path, alignment=64)
    assert path.read_bytes() == by_operator
    with pytest.raises(ValueError, match=bad_alignment(65)):
        getattr(torch.ops.safetensors, operator)(*lists[operator], alignment=65)


@each_bad_alignment
def test_other_alignments_are_refused(old: Path, alignment: int) -> None:
    before = old.read_bytes()
    for target in old, old.with_name("new"):
        with pytest.raises(ValueError, match=bad_alignment(alignment)):
            save_file(NEW, target, alignment=alignment)
    assert old.read_bytes() == before
    assert listing(old.parent) == [old.name]


@pytest.mark.parametrize("alignment", ["64", 64.0, None, [64]], ids=lambda value: type(value).__name__)
def test_alignment_that_is_no_int(path: Path, alignment: Any) -> None:
    with pytest.raises(TypeError, match=f"^alignment: expected int, not {type(alignment).__name__}$"):
        save_file(NEW, path, alignment=alignment)
    assert not path.exists()


def test_padding_counts_for_the_limit_of_the_header(path: Path) -> None:
    tensors = {"w": torch.zeros(0)}
    text = "x" * (100_000_000 - 100)
    save_file(tensors, path, {"k": text})
    with pytest.raises(ValueError, match="header too large: 100003832 bytes, the limit is 100000000"):
        save_file(tensors, path, {"k": text}, alignment=4096)
    save_file(tensors, path, {"k": text[:99_999_600]}, alignment=4096)
    assert_same(load_file(path), tensors)


def test_alignment_and_checksums(path: Path) -> None:
    tensors = mixture()
    save_file(tensors, path, checksum=True)
    plain = safe_open(path).metadata()
    save_file(tensors, path, checksum=True, alignment=64)
    assert safe_open(path).metadata() == plain
    assert_aligned(path, 64)
    assert_same(load_file(path, verify=True), tensors)
    raw = bytearray(path.read_bytes())
    name, (position, _) = next(item for item in positions(path).items() if item[1][1] == 12288)
    raw[position + 5000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(SafetensorError, match=f"tensor '{name}': damaged"):
        load_file(path, verify=True)


@pytest.mark.parametrize("operator", [False, True], ids=["function", "operator"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_alignment_in_a_graph(path: Path, backend: str, operator: bool) -> None:
    save = torch.ops.safetensors.save_file if operator else save_file
    name = str(path)

    @torch.compile(backend=backend, fullgraph=True)
    def function(x: Tensor) -> Tensor:
        save({"first": x[:3].to(torch.int64), "x": x * 2}, name, alignment=64)
        return x + 1

    x = torch.arange(128.0)
    function(x)
    assert_aligned(path, 64)
    assert list(positions(path)) == ["x", "first"]
    assert_same(load_file(path), {"first": x[:3].to(torch.int64), "x": x * 2})


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_another_alignment_in_a_graph_is_refused(path: Path, backend: str) -> None:
    name = str(path)

    @torch.compile(backend=backend, fullgraph=True)
    def function(x: Tensor) -> Tensor:
        save_file({"x": x}, name, alignment=12)
        return x + 1

    with pytest.raises(ValueError, match=bad_alignment(12)):
        function(torch.ones(3))
    assert not path.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
def test_alignment_in_a_package(tmp_path: Path) -> None:
    """Given, or left out, as torch calls operators in two ways."""
    plain, aligned = str(tmp_path / "plain"), str(tmp_path / "aligned")

    class Saves(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.ops.safetensors.save_tensors(plain, ["first", "x"], [x[:3].to(torch.int64), x])
            save_file({"first": x[:3].to(torch.int64), "x": x}, aligned, alignment=64)
            return x + 1

    x = torch.arange(128.0)
    package = str(tmp_path / "saves.pt2")
    exported = torch.export.export(Saves(), (x,))
    run = torch._inductor.aoti_load_package(torch._inductor.aoti_compile_and_package(exported, package_path=package))
    assert torch.equal(run(x), x + 1)
    tensors = {"first": x[:3].to(torch.int64), "x": x}
    assert Path(plain).read_bytes() == save(tensors)
    assert_aligned(Path(aligned), 64)
    assert_same(load_file(aligned), tensors)


@torch.jit.script
def save_by_script(x: Tensor, path: str, alignment: int) -> None:
    torch.ops.safetensors.save_file({"first": x[:3].long(), "x": x}, path, alignment=alignment)
    torch.ops.safetensors.save_tensors(path + ".lists", ["first", "x"], [x[:3].long(), x], alignment=alignment)


def test_alignment_in_torchscript(path: Path) -> None:
    x = torch.arange(128.0)
    save_by_script(x, str(path), 64)
    for saved in path, path.with_name(path.name + ".lists"):
        assert_aligned(saved, 64)
        assert list(positions(saved)) == ["x", "first"]
        assert_same(load_file(saved), {"first": x[:3].long(), "x": x})
