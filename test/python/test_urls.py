"""load_file and load from URLs: fsspec's memory file system and real HTTP servers."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.asyn import AsyncFileSystem
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFile
from helpers import assert_same, random_tensors
from http_server import Site, serving

import torch_safetensors
from torch_safetensors import SafetensorError, _remote_index, load, load_file, save, save_file, save_sharded
from torch_safetensors._remote import load_remote, open_remote
from torch_safetensors._urls import is_url

FIRST = 1 << 18
PIECE = 8 << 20
GAP = 1 << 16
NAME = "/model.safetensors"


def bytes_of(size: int) -> torch.Tensor:
    return torch.randint(256, (size,), dtype=torch.uint8)


@pytest.fixture(scope="module")
def large() -> dict[str, torch.Tensor]:
    """Small tensors between large ones; in the order of the file."""
    sizes = {"a": FIRST, "b": 3 * PIECE + 5, "c": 300, "d": 0, "e": PIECE // 2, "f": 7, "g": 2 * PIECE}
    return {name: bytes_of(size) for name, size in sizes.items()}


@pytest.fixture(scope="module")
def content(large: dict[str, torch.Tensor]) -> bytes:
    return save(large, checksum=True)


@pytest.fixture
def site(content: bytes) -> Iterator[Site]:
    with serving({NAME: content}) as site:
        yield site


def test_http(site: Site, large: dict[str, torch.Tensor], content: bytes) -> None:
    loaded = load_file(site.url + NAME, verify=True)
    assert_same(loaded, large)
    assert list(loaded) == list(load(content))
    assert_same(load(site.url + NAME), large)


def test_ranges_are_requested_each_byte_once(site: Site, content: bytes) -> None:
    load_file(site.url + NAME)
    assert [(method, range_) for method, _, range_ in site.requests][:2] == [("HEAD", None), ("GET", (0, FIRST))]
    probe = (FIRST, FIRST + 1)
    ranges = sorted(set(site.asked()) - {probe})
    assert len(ranges) == len(site.asked()) - 1
    assert [begin for begin, _ in ranges[1:]] == [end for _, end in ranges[:-1]]
    assert ranges[-1][1] == len(content)
    assert max(end - begin for begin, end in ranges) == PIECE


@pytest.mark.parametrize(("threads", "least", "most"), [(1, 1, 1), (3, 2, 3), (None, 4, 8)])
def test_ranges_are_requested_in_parallel(
    site: Site, large: dict[str, torch.Tensor], threads: int | None, least: int, most: int
) -> None:
    site.delay = 0.1
    assert_same(load_file(site.url + NAME, threads=threads), large)
    assert least <= site.most_at_once <= most


def test_a_small_file_takes_two_requests() -> None:
    tensors = random_tensors(1, 30)
    with serving({NAME: save(tensors)}) as site:
        assert_same(load_file(site.url + NAME), tensors)
        assert [method for method, _, _ in site.requests] == ["HEAD", "GET"]


def test_only_the_bytes_of_some(site: Site, large: dict[str, torch.Tensor], content: bytes) -> None:
    for chosen in ["g"], ["f"], ["c", "f"], ["b"], ["d"], []:
        site.requests.clear()
        assert_same(load_file(site.url + NAME, names=chosen), {name: large[name] for name in chosen})
        beyond_first = [range_ for range_ in site.asked() if range_[1] > FIRST + 1]
        wanted = sum(large[name].numel() for name in chosen)
        assert wanted - FIRST <= sum(end - begin for begin, end in beyond_first) <= wanted + GAP


def test_neighbours_are_requested_together() -> None:
    tensors = {f"{i:04}": bytes_of(1000) for i in range(3000)}
    with serving({NAME: save(tensors)}) as site:
        assert_same(load_file(site.url + NAME), tensors)
        assert len(site.requests) == 4
        site.requests.clear()
        every_tenth = list(tensors)[::10]
        assert_same(load_file(site.url + NAME, names=every_tenth), {name: tensors[name] for name in every_tenth})
        assert len(site.requests) == 4
        site.requests.clear()
        ends = ["1000", "2999"]
        assert_same(load_file(site.url + NAME, names=ends), {name: tensors[name] for name in ends})
        assert sorted(end - begin for begin, end in site.asked()) == [1, 1000, 1000, FIRST]


def test_a_header_longer_than_the_first_request() -> None:
    tensors = {"x" * 300 + str(i): torch.full((3,), i) for i in range(2000)}
    with serving({NAME: save(tensors)}) as site:
        assert_same(load_file(site.url + NAME), tensors)
        assert set(load_file(site.url + NAME, "meta")) == set(tensors)


def test_meta_reads_the_header_alone(site: Site, large: dict[str, torch.Tensor]) -> None:
    loaded = load_file(site.url + NAME, "meta")
    assert {name: tensor.shape for name, tensor in loaded.items()} == {name: t.shape for name, t in large.items()}
    assert all(tensor.is_meta for tensor in loaded.values())
    assert sorted(site.asked()) == [(0, FIRST), (FIRST, FIRST + 1)]


@pytest.mark.parametrize("sizes", [True, False])
def test_a_server_without_ranges(content: bytes, large: dict[str, torch.Tensor], sizes: bool) -> None:
    with serving({NAME: content}, ranges=False, sizes=sizes) as site:
        assert_same(load_file(site.url + NAME, verify=True), large)
        assert_same(load_file(site.url + NAME, names=["c", "g"]), {name: large[name] for name in ("c", "g")})
        assert load_file(site.url + NAME, "meta")["g"].shape == large["g"].shape


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("place", [4, 100_000, 2 * PIECE])
def test_a_server_that_breaks_off(content: bytes, ranges: bool, place: int) -> None:
    with (
        serving({NAME: content}, ranges=ranges, breaks_at=place) as site,
        pytest.raises(OSError, match=site.url) as error,
    ):
        load_file(site.url + NAME)
    assert not isinstance(error.value, FileNotFoundError)


def test_what_servers_refuse(site: Site) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        load_file(site.url + "/missing.safetensors")
    assert missing.value.filename == site.url + "/missing.safetensors"
    site.statuses = {"/secret": 403, "/broken": 500}
    with pytest.raises(PermissionError, match=r"Permission denied: .*/secret"):
        load_file(site.url + "/secret")
    with pytest.raises(OSError, match=rf"^{site.url}/broken: 500"):
        load_file(site.url + "/broken")


def test_a_server_that_says_zero(content: bytes, large: dict[str, torch.Tensor]) -> None:
    """In its answer to HEAD."""
    with serving({NAME: content}, says_zero=True) as site:
        assert_same(load_file(site.url + NAME), large)


def test_no_server(site: Site) -> None:
    with serving({}) as other:
        url = other.url
    with pytest.raises(ConnectionRefusedError) as error:
        load_file(url + NAME)
    assert error.value.filename == url + NAME


def test_a_server_that_forgets_ranges_later(site: Site, content: bytes) -> None:
    with open_remote(site.url + NAME) as opened:
        site.ranges = False
        with pytest.raises(OSError, match=rf"gave {len(content)} bytes for the \d+ bytes \["):
            load_remote(opened, threads=1)  # type: ignore[arg-type]


def test_a_file_that_shrinks(site: Site, content: bytes) -> None:
    with open_remote(site.url + NAME) as opened:
        site.files[NAME] = content[:-1000]
        with pytest.raises(
            OSError,
            match=rf"^{site.url}{NAME}: gave \d+ of the \d+ bytes from byte \d+ on, though it had {len(content)} bytes",
        ):
            load_remote(opened)  # type: ignore[arg-type]


def test_malformed_files() -> None:
    whole = save({"w": torch.arange(3)})
    files = {"/short": whole[:5], "/cut": whole[:-1], "/long": whole + b"x", "/empty": b"", "/text": b"<html>" * 9}
    for ranges in True, False:
        with serving(files, ranges=ranges) as site:
            for path, raw in files.items():
                with pytest.raises(SafetensorError) as expected:
                    load(raw)
                with pytest.raises(SafetensorError) as error:
                    load_file(site.url + path)
                assert str(error.value) == str(expected.value).replace("bytes", site.url + path, 1)


def test_damaged(content: bytes) -> None:
    with (
        serving({NAME: content[:-1] + bytes([content[-1] ^ 1])}) as site,
        pytest.raises(SafetensorError, match=rf"^{site.url}{NAME}: tensor '\w': damaged: "),
    ):
        load_file(site.url + NAME, verify=True)


def test_secrets_are_not_in_messages(site: Site) -> None:
    address = site.url.removeprefix("http://")
    with pytest.raises(FileNotFoundError) as error:
        load_file(f"http://user:pass@{address}/missing?signature=abc")
    assert error.value.filename == f"{site.url}/missing?..."
    assert site.requests[-1][1] == "/missing?signature=abc"


def test_storage_options(site: Site) -> None:
    load_file(site.url + NAME, "meta", storage_options={"headers": {"X-Token": "t"}})
    assert {headers.get("X-Token") for headers in site.headers} == {"t"}
    with pytest.raises(TypeError):
        load_file(site.url + NAME, storage_options={"no_such_option": 1})


def test_redirects_and_queries(site: Site, large: dict[str, torch.Tensor]) -> None:
    assert_same(load_file(site.url + NAME + "?download=true"), large)


INDEX = "/folder/model.safetensors.index.json"


@pytest.fixture(scope="module")
def checkpoint(large: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a checkpoint, by their paths on a server."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_sharded(large, folder, max_shard_size=2 * PIECE)
    assert len(list(folder.iterdir())) > 3
    return {f"/folder/{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_checkpoint_in_several_files(
    checkpoint: dict[str, bytes], large: dict[str, torch.Tensor], ranges: bool
) -> None:
    with serving(checkpoint, ranges=ranges) as site:
        for query in "", "?download=true":
            assert_same(load_file(site.url + INDEX + query), large)
        assert {path for _, path, _ in site.requests} >= {f"{path}?download=true" for path in checkpoint}
        chosen = load_file(site.url + INDEX, {"b": "meta", "": "cpu"}, names=["b", "c"], rename={"c": "x"})
    assert_same({"x": chosen["x"]}, {"x": large["c"]})
    assert (chosen["b"].device.type, chosen["b"].shape) == ("meta", large["b"].shape)


def test_a_checkpoint_elsewhere(
    checkpoint: dict[str, bytes], large: dict[str, torch.Tensor], memory: Callable[[str, bytes], str], tmp_path: Path
) -> None:
    urls = {path: memory(path, content) for path, content in checkpoint.items()}
    assert_same(load_file(urls[INDEX]), large)
    with serving(checkpoint) as site:
        options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
        assert_same(load_file(f"simplecache::{site.url}{INDEX}", storage_options=options), large)
    for path, content in checkpoint.items():
        (tmp_path / Path(path).name).write_bytes(content)
    assert_same(load_file(f"file://{tmp_path}/{Path(INDEX).name}"), large)
    assert_same(load_file(f"file://{tmp_path}", names="c"), {"c": large["c"]})


def test_a_checkpoint_whose_index_is_wrong(tmp_path: Path) -> None:
    """As by path, where the same messages name paths."""
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    files = {one: save({"a": torch.ones(1), "b": torch.ones(1)}), two: save({"c": torch.ones(1)})}
    wrong = [
        ({"a": one, "b": one, "c": one}, files),
        ({"a": one, "c": two}, files),
        ({"a": one, "b": one, "c": two}, {**files, two: files[one]}),
        ({"a": one, "b": one, "c": "../x"}, files),
        ({"a": one, "b": one, "c": two}, {one: files[one]}),
        ({"a": one, "b": one, "c": two}, {**files, two: files[two][:-1]}),
    ]
    for i, (weight_map, there) in enumerate(wrong):
        folder = tmp_path / str(i)
        folder.mkdir()
        index = json.dumps({"weight_map": weight_map}).encode()
        for name, content in {**there, "m.safetensors.index.json": index}.items():
            (folder / name).write_bytes(content)
        with pytest.raises((SafetensorError, OSError)) as by_path:
            load_file(folder / "m.safetensors.index.json")
        with serving({f"/{path.name}": path.read_bytes() for path in folder.iterdir()}) as site:
            with pytest.raises(type(by_path.value)) as error:
                load_file(site.url + "/m.safetensors.index.json")
            assert str(error.value) == str(by_path.value).replace(str(folder), site.url)


def test_one_tensor_of_a_url_needs_its_own_file_alone(checkpoint: dict[str, bytes], large: dict[str, Any]) -> None:
    weight_map = json.loads(checkpoint[INDEX])["weight_map"]
    shard = f"/folder/{weight_map['c']}"
    there = {path: content for path, content in checkpoint.items() if path in (INDEX, shard)}
    with serving(there) as site:
        assert_same(load_file(site.url + INDEX, names=(name for name in ["c"])), {"c": large["c"]})
        assert {path for _, path, _ in site.requests} == {INDEX, shard}
        missing = next(name for name, file in weight_map.items() if file != weight_map["c"])
        with pytest.raises(FileNotFoundError):
            load_file(site.url + INDEX, names=missing)
        with pytest.raises(FileNotFoundError):
            load_file(site.url + INDEX)
        with pytest.raises(SafetensorError, match=f"among {len(large)} tensors"):
            load_file(site.url + INDEX, names="none")


def test_the_index_of_a_url_decides(memory: Callable[[str, bytes], str]) -> None:
    memory("f/1", save({"a": torch.ones(1), "x": torch.ones(1)}))
    memory("f/2", save({"a": torch.zeros(1), "b": torch.ones(1)}))
    index = memory("f/i.json", json.dumps({"weight_map": {"a": "1", "b": "2"}}).encode())
    with pytest.raises(SafetensorError, match="the index and its 2 files differ; 1 tensor is not in the index: 'x'"):
        load_file(index)
    assert_same(load_file(index, strict_index=False), {"a": torch.ones(1), "b": torch.ones(1)})
    index = memory("f/i.json", json.dumps({"weight_map": {"a": "1", "c": "2"}}).encode())
    for options in {}, {"strict_index": False}:
        with pytest.raises(SafetensorError, match="'c'"):
            load_file(index, **options)
    with pytest.raises(SafetensorError, match=r"tensor 'c': the index says that it is in .*/2, which does not have it"):
        load_file(index, names="c")
    assert_same(load_file(index, names="a"), {"a": torch.ones(1)})


@pytest.mark.parametrize("removes", [True, False])
def test_a_checkpoint_that_is_replaced_while_it_is_loaded(
    memory: Callable[[str, bytes], str], monkeypatch: pytest.MonkeyPatch, removes: bool
) -> None:
    """Three times; the index of each is the same to the byte."""
    file_system = fsspec.filesystem("memory")

    def write(number: int) -> str:
        for name in "ab":
            memory(f"f/{name}", save({name: torch.full((3,), float(number))}))
        return memory("f/i.json", json.dumps({"weight_map": {"a": "a", "b": "b"}}).encode())

    opened: list[str] = []
    open_as_before = _remote_index.open_url

    def open_and_replace(url: str, *arguments: Any) -> Any:
        opened.append(url)
        reader = open_as_before(url, *arguments)
        if url.endswith("f/a") and len(opened) < 20:
            write(len(opened))
            if removes:
                file_system.rm("/torch_safetensors/f/b")
        elif url.endswith("i.json") and not file_system.exists("/torch_safetensors/f/b"):
            write(len(opened))
        return reader

    index = write(0)
    monkeypatch.setattr(_remote_index, "open_url", open_and_replace)
    monkeypatch.setattr(_remote_index, "_OPENERS", 1)
    loaded = load_file(index)
    assert len({tensor[0].item() for tensor in loaded.values()}) == 1
    assert len(opened) > 15
    monkeypatch.setattr(_remote_index, "_ATTEMPTS", 2)
    opened.clear()
    with pytest.raises(OSError, match="another save replaced the checkpoint each of the 2 times it was read") as error:
        load_file(index)
    assert error.value.errno == errno.ESTALE


def test_an_index_that_cannot_be_read(checkpoint: dict[str, bytes]) -> None:
    with serving({INDEX: b"{"}) as site, pytest.raises(SafetensorError, match=rf"^{site.url}{INDEX}: "):
        load_file(site.url + INDEX)
    with serving(checkpoint, sizes=False) as site, pytest.raises(OSError, match="does not say how long it is"):
        load_file(site.url + INDEX)


@pytest.fixture
def memory() -> Iterator[Callable[[str, bytes], str]]:
    file_system = fsspec.filesystem("memory")

    def write(name: str, content: bytes) -> str:
        file_system.pipe_file(f"/torch_safetensors/{name}", content)
        return f"memory://torch_safetensors/{name}"

    yield write
    file_system.rm("/torch_safetensors", recursive=True)


def test_memory(
    memory: Callable[[str, bytes], str],
    large: dict[str, torch.Tensor],
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = memory("x.safetensors", content)
    for _ in range(2):
        assert_same(load_file(url, verify=True), large)
    assert_same(load(url), large)
    read: list[int] = []
    monkeypatch.setattr(
        MemoryFile, "readinto", lambda self, memory: read.append(len(memory)) or io.BytesIO.readinto(self, memory)
    )
    assert_same(load_file(url, names="f"), {"f": large["f"]})
    assert sum(read) < 2000
    with pytest.raises(FileNotFoundError) as error:
        load_file("memory://torch_safetensors/missing")
    assert error.value.filename == "memory://torch_safetensors/missing"
    with pytest.raises(IsADirectoryError):
        load_file("memory://torch_safetensors")
    with pytest.raises(SafetensorError, match=r"^memory://torch_safetensors/cut: incomplete metadata, file not fully"):
        load_file(memory("cut", content[:-1]))


class Shelf(AsyncFileSystem):  # type: ignore[misc]
    """An asynchronous file system, as those of clouds are."""

    protocol = "shelf"
    cachable = False
    files: ClassVar[dict[str, bytes]] = {}
    ranges: ClassVar[list[tuple[int, int]]] = []
    error: ClassVar[Exception | None] = None

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        if path not in self.files:
            raise FileNotFoundError(path)
        return {"name": path, "type": "file", "size": len(self.files[path])}

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        assert start is not None
        assert end is not None
        self.ranges.append((start, end))
        if start > 0 and self.error is not None:
            raise self.error
        return self.files[path][start:end]


@pytest.fixture
def shelf(content: bytes, monkeypatch: pytest.MonkeyPatch) -> type[Shelf]:
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    monkeypatch.setattr(Shelf, "files", {"x": content, "empty": b""})
    monkeypatch.setattr(Shelf, "ranges", [])
    return Shelf


def test_asynchronous_file_systems(shelf: type[Shelf], large: dict[str, torch.Tensor], content: bytes) -> None:
    assert_same(load_file("shelf://x", verify=True), large)
    ranges = sorted(shelf.ranges)
    assert ranges[0] == (0, FIRST)
    assert [begin for begin, _ in ranges[1:]] == [end for _, end in ranges[:-1]]
    assert ranges[-1][1] == len(content)
    with pytest.raises(SafetensorError, match=r"^shelf://empty: header too small: 0 bytes"):
        load_file("shelf://empty")
    with pytest.raises(FileNotFoundError, match="'shelf://missing'"):
        load_file("shelf://missing")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (PermissionError("Access Denied"), PermissionError, "shelf://x: bytes [{}): Access Denied"),
        (OSError(errno.EIO, "what it says"), OSError, "[Errno 5] Input/output error: 'shelf://x'"),
        (FSTimeoutError(), TimeoutError, "shelf://x: bytes [{}): FSTimeoutError()"),
        (RuntimeError("of its own"), OSError, "shelf://x: bytes [{}): of its own"),
    ],
    ids=["PermissionError", "OSError", "timeout", "RuntimeError"],
)
def test_what_file_systems_raise(
    shelf: type[Shelf], monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[OSError], text: str
) -> None:
    monkeypatch.setattr(shelf, "error", error)
    with pytest.raises(kind) as raised:
        load_file("shelf://x", names="b", threads=1)
    begin, end = shelf.ranges[-1]
    assert str(raised.value) == text.replace("{}", f"{begin}, {end}")
    assert isinstance(raised.value.__cause__, type(error))


def caused(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


@pytest.mark.parametrize(
    ("error", "kind", "chain"),
    [
        (ValueError("mine"), ValueError, []),
        (TypeError("mine"), TypeError, []),
        (caused(ValueError("mine"), KeyError("why")), ValueError, [KeyError]),
        (caused(FileNotFoundError("x"), ValueError("mine")), ValueError, []),
        (caused(FileNotFoundError("x"), caused(FileNotFoundError("y"), TypeError("mine"))), TypeError, []),
        (caused(FileNotFoundError("x"), OSError(5, "mine")), OSError, [FileNotFoundError, OSError]),
        (RuntimeError("mine"), OSError, [RuntimeError]),
    ],
)
def test_no_error_is_its_own_cause(
    shelf: type[Shelf], monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], chain: list[type]
) -> None:
    async def fail(*_arguments: object, **_options: object) -> None:
        raise error

    links = [(error, error.__cause__)] + ([(error.__cause__, error.__cause__.__cause__)] if error.__cause__ else [])
    for name, value in ("error", error), ("_info", fail):
        with monkeypatch.context() as patch:
            patch.setattr(shelf, name, value)
            with pytest.raises(kind) as raised:
                load_file("shelf://x", names="b", threads=1)
        causes: list[type] = []
        cause = raised.value.__cause__
        while cause is not None and len(causes) < 10:
            causes.append(type(cause))
            cause = cause.__cause__
        assert causes == chain
        for outer, inner in links:  # for the next one
            outer.__cause__ = inner


def test_local_files(tmp_path: Path) -> None:
    tensors = random_tensors(4)
    path = tmp_path / "x y.safetensors"
    save_file(tensors, path)
    for url in f"file://{path}", f"local://{path}":
        assert_same(load_file(url), tensors)
        assert_same(load(url), tensors)
    with pytest.raises(FileNotFoundError):
        load_file(f"file://{path}.missing")


def test_mapped_like_a_path(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1 << 20)}, path)
    mapped = load_file(f"file://{path}", backend="mmap")
    with Path("/proc/self/maps").open() as maps:
        assert str(path) in maps.read()
    assert mapped["a"].sum() == 0


def test_chained(site: Site, large: dict[str, torch.Tensor], tmp_path: Path) -> None:
    url = f"simplecache::{site.url}{NAME}"
    options = {"simplecache": {"cache_storage": str(tmp_path)}}
    assert_same(load_file(url, storage_options=options), large)
    gets = len(site.requests)
    assert_same(load_file(url, storage_options=options), large)
    assert len(site.requests) <= gets + 1


def test_a_member_of_an_archive(tmp_path: Path, memory: Callable[[str, bytes], str]) -> None:
    import zipfile

    tensors = random_tensors(6)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/x.safetensors", save(tensors))
    url = memory("x.zip", (tmp_path / "x.zip").read_bytes())
    assert_same(load_file(f"zip://inner/x.safetensors::{url}"), tensors)


def test_what_is_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_url("http://a/b")
    assert is_url("memory://a")
    assert is_url("simplecache::https://a/b")
    for path in "a", "a:b", "nosuch://a", "./http://a", "http:/a", Path("http://a"), b"http://a", 5:
        assert not is_url(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nosuch:").mkdir()
    save_file({"a": torch.ones(1)}, "nosuch://a")
    assert load_file("nosuch://a")["a"].tolist() == [1]


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys
sys.modules["aiohttp"] = None
import torch_safetensors
for url in "http://127.0.0.1:1/x", "simplecache::http://127.0.0.1:1/x":
    try:
        torch_safetensors.load_file(url)
    except ImportError as error:
        print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    message = "fsspec needs another package for such a URL: pip install aiohttp"
    assert printed.splitlines() == [
        f"http://127.0.0.1:1/x: {message}",
        f"simplecache::http://127.0.0.1:1/x: {message}",
    ]


def test_fsspec_is_imported_only_for_urls() -> None:
    code = """
import sys, torch_safetensors
before = set(sys.modules)
torch_safetensors.load(torch_safetensors.save({}))
try:
    torch_safetensors.load_file("missing")
except FileNotFoundError:
    print(sorted(name for name in set(sys.modules) - before if "fsspec" in name or "aiohttp" in name))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_compiled_code(memory: Callable[[str, bytes], str]) -> None:
    url = memory("x.safetensors", save({"a": torch.ones(3)}))

    def forward(x: torch.Tensor) -> torch.Tensor:
        return x + torch_safetensors.load_file(url)["a"]

    with pytest.raises(Exception, match="file objects and URLs cannot be loaded in a graph"):
        torch.compile(forward, backend="aot_eager", fullgraph=True)(torch.ones(3))
    assert torch.compile(forward, backend="aot_eager")(torch.ones(3)).tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="file objects and URLs cannot be loaded in a graph"):
        torch.export.export(Adds(url), (torch.ones(3),), strict=False)


class Adds(torch.nn.Module):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + load_file(self.url)["a"]
