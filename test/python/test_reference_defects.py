"""Where the reference is wrong, and this package is right (shared/REFERENCE.md lists them; models are elsewhere)."""

from __future__ import annotations

import gc
import mmap
import random
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BACKENDS, DTYPES, LOADERS, assert_same, bits, random_tensor
from torch import Tensor

from torch_safetensors import load, load_file, load_tensor, safe_open, save, save_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


Z = torch.complex(torch.arange(6.0), -torch.arange(6.0) - 1).reshape(2, 3)
X = torch.arange(6.0).reshape(2, 3)

LAZY = {
    "conjugate": Z.conj(),
    "imaginary part of a conjugate": Z.conj().imag,
    "negative": torch._neg_view(X),
    "negative half": torch._neg_view(X.half()),
    "twice": torch._neg_view(Z.conj()),
    "conjugate of one value": Z[1, 2].conj(),
}


@pytest.mark.parametrize("view", LAZY.values(), ids=LAZY)
def test_lazy_views_are_saved_with_the_values_they_show(path: Path, view: Tensor) -> None:
    assert view.is_conj() or view.is_neg()
    expected = {"x": view.clone().resolve_conj().resolve_neg().contiguous()}
    save_file({"x": view}, path)
    assert_same(load_file(path), expected)
    assert_same(load(save({"x": view})), expected)
    assert view.is_conj() or view.is_neg()


def test_a_tensor_and_its_conjugate_do_not_share_bytes_of_the_file() -> None:
    assert_same(load(save({"z": Z, "conj": Z.conj()})), {"z": Z, "conj": Z.conj().resolve_conj()})


@pytest.mark.parametrize("dtype", ["F4", "F8_E8M0"])
def test_small_floats_in_every_way_to_load(path: Path, dtype: str) -> None:
    tensors = {
        "x": random_tensor(random.Random(0), DTYPES[dtype], (4, 6)),
        "empty": torch.empty(0, 2, dtype=DTYPES[dtype]),
    }
    save_file(tensors, path)
    for loader in LOADERS.values():
        assert_same(loader(path), tensors)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["F4", "F8_E8M0"])
def test_slices_of_small_floats(path: Path, dtype: str, backend: str) -> None:
    tensor = random_tensor(random.Random(0), DTYPES[dtype], (4, 6))
    save_file({"x": tensor}, path)
    part = safe_open(path, backend=backend).get_slice("x")
    assert part.get_dtype() == dtype
    assert part.get_shape() == [4, 12 if dtype == "F4" else 6]
    raw = tensor.view(torch.uint8)
    for index in (slice(1, 3), 2, (slice(None), slice(1, None, 2)), [3, 0], (..., 1)):
        assert part[index].dtype == tensor.dtype
        assert part[index].view(torch.uint8).tolist() == raw[index].tolist()


def test_metadata_is_not_mutated(path: Path) -> None:
    metadata = {"b": "1", "a": "2"}
    save_file({"x": X}, path, metadata)
    save({"x": X}, metadata)
    assert list(metadata.items()) == [("b", "1"), ("a", "2")]


def test_output_is_deterministic(path: Path) -> None:
    keys = [f"key {i}" for i in range(20)]
    names = [f"name {i}" for i in range(20)]
    files = set()
    for seed in range(10):
        rng = random.Random(seed)
        rng.shuffle(keys)
        rng.shuffle(names)
        tensors = {name: torch.full((2,), float(name[5:])) for name in names}
        save_file(tensors, path, dict.fromkeys(keys, "value"))
        files |= {path.read_bytes(), save(tensors, dict.fromkeys(keys, "value"))}
    assert len(files) == 1


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_default_device_does_not_leak_in(path: Path, loader: Any) -> None:
    tensors = {"x": X, "empty": torch.empty(0), "unaligned": torch.ones(3, dtype=torch.uint8)}
    save_file(tensors, path)
    with torch.device("meta"):
        loaded = loader(path)
        assert save(tensors) == path.read_bytes()
    assert {tensor.device.type for tensor in loaded.values()} == {"cpu"}
    assert_same(loaded, tensors)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_under_a_default_device(path: Path, backend: str) -> None:
    save_file({"x": X}, path)
    with torch.device("meta"):
        part = safe_open(path, backend=backend).get_slice("x")
        parts = [part[1:], part[:, 1], part[[1, 0]], part[torch.tensor([True, False], device="cpu")]]
    for got, expected in zip(parts, (X[1:], X[:, 1], X[[1, 0]], X[:1]), strict=True):
        assert torch.equal(got, expected)


def test_default_dtype_does_not_matter(path: Path) -> None:
    save_file({"x": X}, path)
    torch.set_default_dtype(torch.float64)
    try:
        assert load_file(path)["x"].dtype is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


CPU_DEVICES = [None, "cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)]
META_DEVICES = ["meta", "meta:0", torch.device("meta")]
WAYS = {
    "load_file": lambda path, device: load_file(path, device)["x"],
    "load_file-pread": lambda path, device: load_file(path, device, backend="pread")["x"],
    "load_tensor": lambda path, device: load_tensor(path, "x", device),
    "safe_open": lambda path, device: safe_open(path, device=device).get_tensor("x"),
    "slice": lambda path, device: safe_open(path, device=device).get_slice("x")[:],
    "load": lambda path, device: load(path.read_bytes(), device)["x"],
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@each_way
@pytest.mark.parametrize("device", CPU_DEVICES, ids=repr)
def test_cpu_in_every_form(path: Path, way: Any, device: Any) -> None:
    save_file({"x": X}, path)
    assert torch.equal(way(path, device), X)


@each_way
@pytest.mark.parametrize("device", META_DEVICES, ids=repr)
def test_meta_in_every_form(path: Path, way: Any, device: Any) -> None:
    save_file({"x": X}, path)
    loaded = way(path, device)
    assert loaded.is_meta
    assert (loaded.shape, loaded.dtype) == (X.shape, X.dtype)


def test_int_is_a_device_as_in_torch(path: Path) -> None:
    save_file({"x": X}, path)
    if not torch.accelerator.is_available():
        with pytest.raises((ValueError, RuntimeError), match=r"accelerator|NVIDIA"):  # a CUDA build without a GPU
            load_file(path, 0)
        return
    assert load_file(path, 0)["x"].device == torch.device(0)


@pytest.mark.gpu
@each_way
def test_accelerator(path: Path, way: Any) -> None:
    if not torch.accelerator.is_available():
        pytest.skip("no accelerator")
    save_file({"x": X}, path)
    device = torch.accelerator.current_accelerator()
    for form in (device, str(device), 0):
        loaded = way(path, form)
        assert loaded.device.type == device.type
        assert torch.equal(loaded.cpu(), X)
    save_file({"x": X.to(device)}, path.with_name("y"))
    assert path.with_name("y").read_bytes() == path.read_bytes() == save({"x": X.to(device)})


def in_memory_file(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


SOURCES = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview of bytes": memoryview,
    "memoryview": lambda data: memoryview(bytearray(data)),
    "part of a memoryview": lambda data: memoryview(bytearray(b"12345678" + data))[8:],
    "mmap": in_memory_file,
    "numpy": lambda data: np.frombuffer(bytearray(data), dtype=np.uint8),
    "numpy of int64": lambda data: np.frombuffer(bytearray(data), dtype=np.int64),
    "tensor": lambda data: torch.frombuffer(bytearray(data), dtype=torch.uint8),
    "part of a tensor": lambda data: torch.frombuffer(bytearray(b"12345678" + data), dtype=torch.uint8)[8:],
}
READ_ONLY = ("bytes", "memoryview of bytes")


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "alias"])
@pytest.mark.parametrize("source", SOURCES)
def test_load_takes_any_buffer(source: str, copy: bool) -> None:
    if source in READ_ONLY and not copy:
        return  # refused: see test_arguments.py
    tensors = {"x": torch.arange(6, dtype=torch.int64), "y": torch.ones(2), "z": torch.empty(0, 2)}
    given = SOURCES[source](save(tensors))
    loaded = load(given, copy=copy)
    assert_same(loaded, tensors)
    loaded["x"].fill_(7)
    assert_same(load(given), tensors if copy else {**tensors, "x": torch.full((6,), 7)})
    del loaded  # before what exports a buffer is closed


@pytest.mark.parametrize("source", ["bytearray", "memoryview", "numpy", "tensor"])
def test_alias_sees_what_others_write_and_keeps_the_source_alive(source: str) -> None:
    given = SOURCES[source](save({"x": torch.arange(6, dtype=torch.uint8)}))
    x = load(given, copy=False)["x"]
    given[-6] = 9
    assert x.tolist() == [9, 1, 2, 3, 4, 5]
    if source == "bytearray":
        with pytest.raises(BufferError):
            given.clear()
    assert x.untyped_storage().nbytes() == 6
    if source in ("numpy", "tensor"):
        alive = weakref.ref(given)
        del given
        gc.collect()
        assert source == "tensor" or alive() is not None  # a tensor's memory outlives its Python object
    else:
        del given
        gc.collect()
    torch.empty(1000).fill_(1)
    assert x.tolist() == [9, 1, 2, 3, 4, 5]
    del x


def test_copy_does_not_hold_the_source() -> None:
    given = bytearray(save({"x": X}))
    x = load(given)["x"]
    given.clear()
    assert torch.equal(x, X)


def test_load_of_no_bytes_says_so() -> None:
    for data in (b"", bytearray(), memoryview(b""), torch.empty(0, dtype=torch.uint8)):
        with pytest.raises(RuntimeError, match="bytes: header too small: 0 bytes"):
            load(data)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_as_in_torch_whatever_the_backend(path: Path, backend: str) -> None:
    x = torch.arange(50.0).reshape(10, 5)
    save_file({"x": x}, path)
    part = safe_open(path, backend=backend).get_slice("x")
    for index in (slice(5, 2), slice(-3, None), slice(10, None), slice(0, 20), slice(None, None, 3), (slice(None), -1)):
        assert bits(part[index]) == bits(x[index])
        assert part[index].shape == x[index].shape


def test_no_two_storages_of_overlapping_memory_are_saved_unseen() -> None:
    data = bytearray(16)
    a, b = (torch.frombuffer(data, dtype=torch.float32, offset=offset) for offset in (0, 8))
    with pytest.raises(RuntimeError, match="Some tensors share memory"):
        save({"a": a, "b": b})
    assert_same(load(save({"a": a[:2], "b": b})), {"a": a[:2], "b": b})
