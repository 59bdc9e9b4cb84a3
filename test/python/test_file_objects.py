"""load_file and load from objects that are read like files."""

from __future__ import annotations

import bz2
import errno
import functools
import gzip
import io
import lzma
import mmap
import os
import random
import socket
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from helpers import assert_same, descriptors, entry, make_file, random_tensors
from test_malformed import ACCEPTED, DEVIATIONS, RULES, params

from torch_safetensors import SafetensorError, load, load_file, load_tensor, save, save_file
from torch_safetensors._remote import load_remote, open_remote

PIECE = 8 << 20


class Unseekable(io.RawIOBase):
    """Gives a few bytes at a time, and cannot go back."""

    def __init__(self, content: bytes, most: int = 7) -> None:
        self._content = io.BytesIO(content)
        self._most = most

    def readable(self) -> bool:
        return True

    def readinto(self, memory: Any) -> int:
        return self._content.readinto(memoryview(memory)[: self._most])


class OnlyRead:
    """The least that can be called a file."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._content.read(min(size, 11))


def through(kind: Callable[[BinaryIO], None], path: Path) -> Path:
    with path.open("wb") as file:
        kind(file)
    return path


def opened_zip(content: bytes, compression: int) -> BinaryIO:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive:
        archive.writestr("member", content)
    return zipfile.ZipFile(memory).open("member")  # type: ignore[return-value]


def compressed(content: bytes, folder: Path, module: Any) -> BinaryIO:
    path = folder / "compressed"
    path.write_bytes(module.compress(content))
    return module.open(path)  # type: ignore[no-any-return]


def written(content: bytes, kind: Callable[[], Any]) -> Any:
    file = kind()
    file.write(content)
    file.seek(0)
    return file


def plain(content: bytes, folder: Path, **options: Any) -> BinaryIO:
    (folder / "x.safetensors").write_bytes(content)
    return (folder / "x.safetensors").open(**options)  # type: ignore[return-value]


def from_pipe(content: bytes) -> BinaryIO:
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    threading.Thread(target=write, daemon=True).start()
    return os.fdopen(reading, "rb")


def from_socket(content: bytes) -> BinaryIO:
    here, there = socket.socketpair()

    def write() -> None:
        with there:
            there.sendall(content)

    threading.Thread(target=write, daemon=True).start()
    with here:
        return here.makefile("rb")


#: How to have a file object of some bytes.
FORMS: dict[str, Callable[[bytes, Path], Any]] = {
    "open": lambda content, folder: plain(content, folder, mode="rb"),
    "open, unbuffered": lambda content, folder: plain(content, folder, mode="rb", buffering=0),
    "open, to update": lambda content, folder: plain(content, folder, mode="r+b"),
    "BytesIO": lambda content, _: io.BytesIO(content),
    "TemporaryFile": lambda content, _: written(content, tempfile.TemporaryFile),
    "NamedTemporaryFile": lambda content, _: written(content, tempfile.NamedTemporaryFile),
    "SpooledTemporaryFile": lambda content, _: written(content, tempfile.SpooledTemporaryFile),
    "gzip": lambda content, folder: compressed(content, folder, gzip),
    "bz2": lambda content, folder: compressed(content, folder, bz2),
    "lzma": lambda content, folder: compressed(content, folder, lzma),
    "zip, stored": lambda content, _: opened_zip(content, zipfile.ZIP_STORED),
    "zip, deflated": lambda content, _: opened_zip(content, zipfile.ZIP_DEFLATED),
    "pipe": lambda content, _: from_pipe(content),
    "socket": lambda content, _: from_socket(content),
    "a few bytes at a time": lambda content, _: Unseekable(content),
    "buffered": lambda content, _: io.BufferedReader(Unseekable(content)),
    "only read": lambda content, _: OnlyRead(content),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[bytes], Any]]:
    """Makes file objects of one kind, and closes them."""
    made: list[Any] = []

    def make(content: bytes) -> Any:
        made.append(FORMS[request.param](content, tmp_path))
        return made[-1]

    yield make
    for file in made:
        if hasattr(file, "close"):
            file.close()


def test_every_form(form: Callable[[bytes], Any]) -> None:
    tensors = random_tensors(1, 40)
    content = save(tensors, {"k": "v"}, checksum=True)
    for verify in False, True:
        file = form(content)
        loaded = load_file(file, verify=verify)
        assert_same(loaded, tensors)
        assert list(loaded) == list(load(content))
        assert file.read(1) == b""
    assert_same(load(form(content)), tensors)


def test_on_meta(form: Callable[[bytes], Any]) -> None:
    tensors = random_tensors(2, 20)
    for verify in False, True:
        loaded = load_file(form(save(tensors, checksum=True)), "meta", verify=verify)
        assert {name: (t.dtype, t.shape, t.is_meta) for name, t in loaded.items()} == {
            name: (t.dtype, t.shape, True) for name, t in tensors.items()
        }


def test_some_of_the_tensors(form: Callable[[bytes], Any]) -> None:
    tensors = {str(i): torch.full((i,), i) for i in range(20)}
    content = save(tensors)
    for chosen in ["7"], ["13", "2", "3", "2"], [], ["0"], ["19"]:
        loaded = load_file(form(content), names=chosen)
        assert_same(loaded, {name: tensors[name] for name in chosen})
        assert list(loaded) == [name for name in load(content) if name in chosen]


class Counting(io.BytesIO):
    count = 0

    def readinto(self, memory: Any) -> int:
        count = super().readinto(memory)
        self.count += count
        return count


def test_only_the_bytes_of_some() -> None:
    """What can be moved forwards is."""
    file = Counting(save({"a": torch.ones(1000), "b": torch.ones(10), "c": torch.ones(1000)}))
    header = 8 + int.from_bytes(file.getvalue()[:8], "little")
    assert_same(load_file(file, names="b"), {"b": torch.ones(10)})
    assert file.count == header + 40


def test_a_name_that_is_not_there(form: Callable[[bytes], Any]) -> None:
    with pytest.raises(SafetensorError, match="no tensor has the name 'b' or matches it, among 1 tensors"):
        load_file(form(save({"a": torch.ones(1)})), names=["a", "b"])


def test_names_dtype_rename_and_devices(form: Callable[[bytes], Any]) -> None:
    tensors = {
        "m.a": torch.ones(3),
        "m.b": torch.arange(4),
        "n": torch.ones(2, dtype=torch.float64),
        "o": torch.ones(1),
    }
    loaded = load_file(
        form(save(tensors)),
        {"m": "meta", "": "cpu"},
        names=["m.*", "n"],
        dtype=torch.float16,
        rename=lambda name: name.removeprefix("m."),
    )
    assert {name: (t.dtype, t.device.type) for name, t in loaded.items()} == {
        "a": (torch.float16, "meta"),
        "b": (torch.int64, "meta"),
        "n": (torch.float16, "cpu"),
    }
    assert loaded["n"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="dtype: expected a floating-point dtype"):
        load_file(form(save(tensors)), dtype=torch.int8)


def test_every_storage_is_its_own(form: Callable[[bytes], Any]) -> None:
    loaded = load_file(form(save({"a": torch.arange(3), "b": torch.ones(5), "c": torch.empty(0)})))
    for tensor in loaded.values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert not tensor.untyped_storage().resizable()
        tensor.zero_()
    assert len({t.data_ptr() for t in loaded.values() if t.numel()}) == 2


def test_truncated(form: Callable[[bytes], Any]) -> None:
    content = save({"a": torch.arange(100), "b": torch.ones(5)})
    begin = 8 + int.from_bytes(content[:8], "little")
    whole = len(content) - begin
    sizes = [0, 3, 8, begin - 1, begin, begin + 1, len(content) - 1]
    for size in sizes:
        with pytest.raises(SafetensorError) as expected:
            load(content[:size])
        message = str(expected.value).removeprefix("bytes: ")
        for device in "cpu", "meta":
            with pytest.raises(SafetensorError) as error:
                load_file(form(content[:size]), device)
            assert str(error.value).endswith(f": {message}"), size
    assert f"the tensors end at byte {whole} but the file has {whole - 1} bytes of data" in message


def test_bytes_behind_the_tensors(form: Callable[[bytes], Any]) -> None:
    content = save({"a": torch.arange(3)})
    for device in "cpu", "meta":
        with pytest.raises(
            SafetensorError, match="not fully covered: the tensors end at byte 24 but the file has 25 bytes of data"
        ):
            load_file(form(content + b"x"), device)


def unlike_paths(raw: bytes) -> list[Any]:
    """A file object of each reader's kind, with its name in messages."""
    temporary = written(raw, tempfile.TemporaryFile)
    return [(io.BytesIO(raw), "<BytesIO>"), (Unseekable(raw, 1 << 20), "<Unseekable>"), (temporary, "<BufferedRandom>")]


@pytest.mark.parametrize(("raw", "message"), [*RULES, *params(DEVIATIONS, "stricter")])
def test_rules_of_the_format(raw: bytes, message: str) -> None:
    for file, name in unlike_paths(raw):
        with file, pytest.raises(SafetensorError) as error:
            load_file(file)
        assert str(error.value) == f"{name}: {message}"


@pytest.mark.parametrize(("raw", "expected"), params(ACCEPTED, "accepted"))
def test_accepted(raw: bytes, expected: dict[str, torch.Tensor]) -> None:
    for file, _ in unlike_paths(raw):
        with file:
            assert_same(load_file(file), expected)


def test_from_the_position_to_the_end(form: Callable[[bytes], Any]) -> None:
    tensors = random_tensors(3)
    for _ in range(2):
        file = form(b"before" + save(tensors))
        assert file.read(6) == b"before"
        assert_same(load_file(file), tensors)


def test_a_failed_load_leaves_the_position(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"ab" + save({"a": torch.ones(2)})[:-1])
    with path.open("rb") as file:
        file.seek(2)
        with pytest.raises(SafetensorError):
            load_file(file)
        assert file.tell() == 2


def test_what_is_not_written_yet(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w+b") as file:
        file.write(save({"a": torch.ones(2)}))
        file.seek(0)
        file.write(save({"a": torch.zeros(2)}))
        file.seek(0)
        assert load_file(file)["a"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("form", "threads"),
    [("open", None), ("open", 1), ("open", 3), ("BytesIO", None), ("gzip", 3), ("pipe", None), ("zip, stored", 2)],
    indirect=["form"],
)
def test_large_tensors_in_pieces(form: Callable[[bytes], Any], threads: int | None) -> None:
    """Those of several pieces, with small ones between them."""
    sizes = [1, 3 * PIECE + 5, 7, 0, PIECE - 20, 300, PIECE // 2]
    tensors = {str(i): torch.arange(size).to(torch.uint8) for i, size in enumerate(sizes)}
    assert_same(load_file(form(save(tensors, checksum=True)), threads=threads, verify=True), tensors)


def test_many_small_tensors(tmp_path: Path) -> None:
    tensors = {f"{i}": torch.full((i % 5,), i) for i in range(20_000)}
    save_file(tensors, tmp_path / "x")
    with (tmp_path / "x").open("rb") as file:
        loaded = load_file(file)
    assert_same(loaded, tensors)


def test_damaged(form: Callable[[bytes], Any]) -> None:
    content = bytearray(save({"a": torch.arange(3), "b": torch.ones(2)}, checksum=True))
    content[-1] ^= 1
    load_file(form(bytes(content)))
    for device in "cpu", "meta":
        with pytest.raises(SafetensorError, match=r"tensor 'b': damaged: its checksum is [0-9a-f]{32} but .* saved$"):
            load_file(form(bytes(content)), device, verify=True)
        with pytest.raises(SafetensorError, match="no checksums to verify"):
            load_file(form(save({"a": torch.ones(1)})), device, verify=True)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    size = path.stat().st_size
    with path.open("rb") as file, open_remote(file) as opened:
        for left, count in (size - 100, 3900), (10, 0):
            os.truncate(path, left)
            with pytest.raises(OSError, match="gave") as error:
                load_remote(opened)  # type: ignore[arg-type]
            assert str(error.value) == (
                f"{path}: gave {count} of the 4000 bytes from byte {size - 4000} on, though it had {size} bytes "
                "when it was opened"
            )


def test_threads_do_not_outlive_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(10 * PIECE, dtype=torch.uint8)}, path)
    before = threading.active_count(), descriptors()
    with path.open("rb") as file, open_remote(file) as opened:
        os.truncate(path, 3 * PIECE)
        with pytest.raises(OSError, match=r"gave \d+ of the"):
            load_remote(opened)  # type: ignore[arg-type]
    assert (threading.active_count(), descriptors()) == before


def test_files_of_text(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path)
    for make in (
        path.open,
        functools.partial(io.StringIO, "text"),
        functools.partial(tempfile.NamedTemporaryFile, "w+"),
        functools.partial(tempfile.SpooledTemporaryFile, mode="w+"),
    ):
        for load_ in load_file, load:
            with (
                make() as file,  # type: ignore[operator]
                pytest.raises(TypeError, match="a file of text has no bytes to load from; open it with mode 'rb'"),
            ):
                load_(file)


class SaysText:
    def read(self, _size: int) -> str:
        return "text"


class SaysTooMuch:
    def read(self, size: int) -> bytes:
        return bytes(size + 1)


class SaysNothingYet:
    def read(self, _size: int) -> None:
        return None


def test_objects_that_are_no_files() -> None:
    with pytest.raises(TypeError, match="<SaysText>: a file of text has no bytes to load from"):
        load_file(SaysText())  # type: ignore[arg-type]
    with pytest.raises(OSError, match="<SaysTooMuch>: gave 9 bytes at byte 0 where 8 were asked"):
        load_file(SaysTooMuch())  # type: ignore[arg-type]
    with pytest.raises(BlockingIOError, match="<SaysNothingYet>: has no bytes yet at byte 0"):
        load_file(SaysNothingYet())  # type: ignore[arg-type]
    for wrong in 5, None, object():
        with pytest.raises(TypeError, match=r"filename: expected str or os\.PathLike"):
            load_file(wrong)  # type: ignore[arg-type]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file, pytest.raises(io.UnsupportedOperation, match=f"^{path}: not open for reading"):
        load_file(file)
    with pytest.raises(ValueError, match="closed file"):
        load_file(file)
    cut = gzip.compress(save({"a": torch.ones(100)}))[:-20]
    with pytest.raises(OSError, match=r"^<GzipFile>: cannot be read at byte \d+: EOFError"):
        load_file(gzip.GzipFile(fileobj=io.BytesIO(cut)))


def test_what_the_system_reports(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "x")
    with (tmp_path / "x").open("rb", buffering=0) as file, open_remote(file) as opened:
        file.close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as error:
            load_remote(opened)  # type: ignore[arg-type]
    assert (error.value.errno, error.value.filename) == (errno.EBADF, str(tmp_path / "x"))


def test_memory_stays_memory(tmp_path: Path) -> None:
    """Some memory has a method read, too."""
    save_file({"a": torch.ones(3)}, tmp_path / "x")
    with (tmp_path / "x").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped.seek(5)
        assert_same(load(mapped), {"a": torch.ones(3)})
        alias = load(mapped, copy=False)
        assert alias["a"].tolist() == [1, 1, 1]
        del alias
    with pytest.raises(ValueError, match="copy=False needs memory to alias, and not a BytesIO"):
        load(io.BytesIO(save({})), copy=False)
    with pytest.raises(TypeError, match="data: expected bytes"):
        load("x.safetensors")


class PathWithRead(os.PathLike[str]):
    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)

    def read(self, size: int) -> bytes:
        raise AssertionError("it is a path")


def test_paths_stay_paths(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "x")
    assert_same(load_file(PathWithRead(tmp_path / "x")), {"a": torch.ones(3)})


def test_headers_that_claim_any_size() -> None:
    """Nothing is allocated, or read, for tensors that nobody asks for."""
    huge = make_file({"a": entry("U8", [4], 0, 4), "b": entry("U8", [2**60], 4, 4 + 2**60)}, bytes(4))
    with open_remote(Unseekable(huge)) as opened, pytest.raises(SafetensorError, match="the file has 4 bytes of data"):
        load_remote(opened, names=["a"])  # type: ignore[arg-type]
    many = {str(i): entry("U8", [2**60], i * 2**60, (i + 1) * 2**60) for i in range(8)}
    with pytest.raises(SafetensorError, match="the tensors end at byte 9223372036854775808 of the data, and no file"):
        load_file(Unseekable(make_file(many)))


def test_threads_is_checked(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "x")
    with (tmp_path / "x").open("rb") as file, pytest.raises(ValueError, match="threads must be positive, not 0"):
        load_file(file, threads=0)


def test_compiled_code() -> None:
    file = io.BytesIO(save({"a": torch.ones(3)}))

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + load_file(file)["a"]

    with pytest.raises(Exception, match="file objects and URLs cannot be loaded in a graph"):
        torch.compile(forward, backend="aot_eager", fullgraph=True)(torch.ones(3))
    assert torch.compile(forward, backend="aot_eager")(torch.ones(3)).tolist() == [2, 2, 2]


def test_the_file_is_the_same_as_by_path(tmp_path: Path) -> None:
    rng = random.Random(5)
    tensors = random_tensors(rng.randrange(100), 100)
    save_file(tensors, tmp_path / "x")
    with (tmp_path / "x").open("rb") as file:
        assert_same(load_file(file), load_file(tmp_path / "x"))
    assert_same({"a": load_tensor(tmp_path / "x", next(iter(tensors)))}, {"a": next(iter(tensors.values()))})
