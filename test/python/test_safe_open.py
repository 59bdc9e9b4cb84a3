"""safe_open: names, tensors, and slices by torch's own rules that read no more than they need."""

from __future__ import annotations

import gc
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from faults import bytes_read, faults
from helpers import BACKENDS, DTYPES, assert_same, bits, entry, listing, make_file, random_shape, random_tensor
from torch import Tensor

from torch_safetensors import SafetensorError, safe_open, save_file

TENSORS = {
    "b": torch.arange(24.0).reshape(2, 3, 4),
    "a": torch.arange(5, dtype=torch.int64),
    "é": torch.tensor(7, dtype=torch.int16),
    "": torch.empty(0, 3),
}

each_backend = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "x.safetensors", {"k": "v", "j": "w"})
    return tmp_path / "x.safetensors"


@each_backend
def test_names(path: Path, backend: str) -> None:
    with safe_open(path, "pt", backend=backend) as file:
        assert file.keys() == ["", "a", "b", "é"] == sorted(TENSORS)
        assert file.offset_keys() == ["a", "", "b", "é"]
        assert list(file) == file.keys()
        assert len(file) == 4
        assert all(name in file for name in TENSORS)
        assert "c" not in file
        assert {file: 1}[file] == 1
        assert file != safe_open(path, backend=backend)
    with safetensors.safe_open(path, "pt") as reference:
        assert (reference.keys(), reference.offset_keys()) == (["", "a", "b", "é"], ["a", "", "b", "é"])


def test_names_are_sorted_by_their_bytes(path: Path) -> None:
    names = ["\uffff", "🦙", "Z", "a", "é", "\0", "", "aa"]
    save_file({name: torch.ones(1) for name in names}, path)
    assert safe_open(path).keys() == sorted(names, key=str.encode) == safetensors.safe_open(path, "pt").keys()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, None),
        ({"__metadata__": {}}, {}),
        ({"__metadata__": None}, None),
        ({"__metadata__": {"b": "", "a": "é"}}, {"a": "é", "b": ""}),
    ],
    ids=["none", "empty", "null", "two"],
)
def test_metadata(path: Path, header: Any, expected: Any) -> None:
    path.write_bytes(make_file(header))
    metadata = safe_open(path).metadata()
    assert metadata == expected == safetensors.safe_open(path, "pt").metadata()
    assert metadata is None or list(metadata) == sorted(metadata)


@each_backend
def test_tensors(path: Path, backend: str) -> None:
    file = safe_open(path, backend=backend)
    assert_same({name: file.get_tensor(name) for name in file}, TENSORS)
    assert list(file.get_tensors()) == file.offset_keys()
    assert_same(file.get_tensors(), TENSORS)
    assert list(file.get_tensors(["é", "a"])) == ["é", "a"]
    assert_same(file.get_tensors(("é", "a")), {"é": TENSORS["é"], "a": TENSORS["a"]})
    assert file.get_tensors([]) == {}


@each_backend
def test_tensor_meta(path: Path, backend: str) -> None:
    file = safe_open(path, backend=backend)
    meta = file.get_tensor_meta("b")
    assert (meta.dtype, meta.shape, meta.data_offsets) == ("F32", [2, 3, 4], (40, 136)) == meta
    assert file.get_tensor_meta("é") == ("I16", [], (136, 138))
    assert file.get_tensor_meta("") == ("F32", [0, 3], (40, 40))
    data = path.read_bytes()[-138:]
    assert data[40:136] == bits(TENSORS["b"])


@each_backend
def test_a_closed_file(path: Path, backend: str) -> None:
    with safe_open(path, backend=backend) as file:
        pass
    for call in (
        file.keys,
        file.offset_keys,
        file.metadata,
        file.get_tensors,
        lambda: file.get_tensor("b"),
        lambda: file.get_tensor_meta("b"),
        lambda: file.get_slice("b"),
        lambda: len(file),
        lambda: list(file),
        lambda: "b" in file,
    ):
        with pytest.raises(SafetensorError) as error:
            call()
        assert str(error.value) == f"{path}: File is closed"
    assert repr(file) == f"<safe_open {str(path)!r}: closed>"
    hash(file)


@each_backend
def test_slices_and_tensors_outlive_their_handle(path: Path, backend: str) -> None:
    with safe_open(path, backend=backend) as file:
        part = file.get_slice("b")
        tensor = file.get_tensor("b")
    del file
    path.unlink()
    gc.collect()
    assert torch.equal(part[0], TENSORS["b"][0])
    assert part.get_shape() == [2, 3, 4]
    assert torch.equal(tensor, TENSORS["b"])


def test_exceptions_pass_through(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), safe_open(path):
        raise ZeroDivisionError


def test_without_with_no_descriptor_is_left(path: Path) -> None:
    gc.collect()
    before = len(listing(Path("/proc/self/fd")))
    for _ in range(10):
        for backend in BACKENDS:
            safe_open(path, backend=backend).get_tensor("a")
    gc.collect()
    assert len(listing(Path("/proc/self/fd"))) == before


@pytest.mark.parametrize("framework", ["pt", "torch", "pytorch"])
def test_framework(path: Path, framework: str) -> None:
    assert torch.equal(safe_open(path, framework).get_tensor("a"), TENSORS["a"])


@each_backend
def test_many_tensors_of_one_handle_are_independent(path: Path, backend: str) -> None:
    file = safe_open(path, backend=backend)
    first = file.get_tensor("a")
    first.zero_()
    part = file.get_slice("a")[:]
    assert torch.equal(part, TENSORS["a"])  # small, so it is read and not mapped
    assert path.read_bytes()[-138:-98] == bits(TENSORS["a"])
    assert first.tolist() == [0] * 5


def test_large_parts_are_mapped_and_small_ones_read(path: Path) -> None:
    save_file({"large": torch.arange(300_000)}, path)
    file = safe_open(path, backend="mmap")
    whole = file.get_tensor("large")
    part = file.get_slice("large")
    large, small = part[1000:200_000], part[1000:60_000]
    assert is_mapped_from(path, large)
    assert not is_mapped_from(path, small)
    assert torch.equal(large, whole[1000:200_000])
    assert large.data_ptr() != whole[1000:].data_ptr()
    assert torch.equal(small, whole[1000:60_000])
    assert small.untyped_storage().nbytes() == small.nbytes
    whole.zero_()
    assert torch.equal(small, torch.arange(1000, 60_000))
    assert torch.equal(large, torch.arange(1000, 200_000))


def is_mapped_from(path: Path, tensor: Tensor) -> bool:
    """Whether the tensor is pages of the file."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(address, 16) for address in line.split()[0].split("-"))
        if begin <= tensor.data_ptr() < end:
            return line.endswith(f" {path}")
    raise AssertionError("at an address that is not mapped")


def outcome(call: Callable[[], Tensor]) -> Any:
    """The tensor, or the exception's type."""
    try:
        return call()
    except Exception as error:
        return type(error)


def check_index(part: Any, tensor: Tensor, index: Any) -> None:
    expected = outcome(lambda: tensor[index])
    actual = outcome(lambda: part[index])
    if isinstance(expected, type):
        assert actual is expected, index
        return
    if actual is IndexError and expected.numel() == 0:
        return  # torch does not look at the indices of what has no elements
    assert isinstance(actual, Tensor), (index, actual)
    assert actual.dtype == tensor.dtype
    assert actual.shape == expected.shape, index
    assert bits(actual) == bits(expected), index
    assert actual.untyped_storage().nbytes() == actual.numel() * actual.element_size()


def random_basic(rng: random.Random, size: int) -> Any:
    bound = [None, *range(-size - 2, size + 3)]
    return rng.choice(
        [
            rng.randint(-size - 1, size),
            rng.randint(-size, max(size - 1, 0)),
            slice(rng.choice(bound), rng.choice(bound), rng.choice([None, 1, 1, 2, 3, 100])),
            slice(None),
            None,
        ]
    )


def random_advanced(rng: random.Random, shape: torch.Size) -> Any:
    size = shape[0] if shape else 0
    low, high = (-size, size - 1) if size else (0, 0)
    ints = [rng.randint(low, high) for _ in range(rng.randint(0, 4))]
    return rng.choice(
        [
            ints,
            torch.tensor(ints, dtype=torch.int64),
            torch.tensor([ints, ints], dtype=torch.int32),
            torch.tensor(ints[:1], dtype=torch.uint8).bool() if size == 1 else torch.rand(size) < 0.5,
            [rng.random() < 0.5 for _ in range(size)],
            torch.rand(shape[: rng.randint(1, 3)]) < 0.5,
            torch.tensor(rng.randint(low, high)),
            True,
            torch.tensor(False),
            [size + 1],
        ]
    )


@each_backend
@pytest.mark.parametrize("seed", range(30))
def test_slices_as_in_torch(tmp_path: Path, backend: str, seed: int) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    dtype = rng.choice([torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.complex64, torch.uint8])
    tensor = random_tensor(rng, dtype, random_shape(rng))
    save_file({"pad": torch.ones(3, dtype=torch.uint8), "x": tensor}, tmp_path / "x")
    part = safe_open(tmp_path / "x", backend=backend).get_slice("x")
    for _ in range(60):
        sizes = rng.choices(tensor.shape or [0], k=rng.randint(0, tensor.dim() + 1))
        index = tuple(random_basic(rng, size) for size in sizes)
        if rng.random() < 0.3:
            at = rng.randint(0, len(index))
            index = (*index[:at], ..., *index[at:])
        check_index(part, tensor, index[0] if len(index) == 1 else index)
        place = rng.randint(0, len(index))
        check_index(part, tensor, (*index[:place], random_advanced(rng, tensor.shape[place:]), *index[place:]))


@each_backend
@pytest.mark.parametrize(
    "index",
    [
        np.int64(1),
        (np.int32(-1), slice(np.int64(1), None)),
        np.array([1, 0]),
        np.array([True, False]),
        [[0, 1], [1, 0]],
        ([0, 1], [2, 0]),
        ([0, 1], slice(None), [3, 0]),
        (slice(None), [2, 0, 2]),
        (..., [1, 1]),
        (None, [0], None),
        (torch.tensor([[0], [1]]), torch.tensor([0, 2])),
        torch.rand(2, 3, 4) < 0.5,
        (),
        ...,
        None,
    ],
    ids=repr,
)
def test_slice_in_every_form(path: Path, backend: str, index: Any) -> None:
    check_index(safe_open(path, backend=backend).get_slice("b"), TENSORS["b"], index)


@each_backend
@pytest.mark.parametrize(
    "index",
    [
        2,
        -3,
        (0, 3),
        (0, 0, 0, 0),
        slice(None, None, -1),
        slice(None, None, 0),
        (..., 4),
        1.5,
        "a",
        slice(0.5, None),
        object(),
    ],
    ids=str,
)
def test_basic_errors_are_torchs_own(path: Path, backend: str, index: Any) -> None:
    with pytest.raises((IndexError, ValueError, TypeError)) as expected:
        TENSORS["b"][index]
    with pytest.raises((IndexError, ValueError, TypeError)) as actual:
        safe_open(path, backend=backend).get_slice("b")[index]
    assert actual.type is expected.type
    if not isinstance(index, str):
        assert str(actual.value).partition(" (type")[0] == str(expected.value).partition(" (type")[0]


@each_backend
@pytest.mark.parametrize(
    "index", [[0, 2], torch.tensor([5]), torch.ones(3, dtype=torch.bool), torch.tensor([0.5])], ids=repr
)
def test_advanced_errors_have_torchs_types(path: Path, backend: str, index: Any) -> None:
    check_index(safe_open(path, backend=backend).get_slice("b"), TENSORS["b"], index)


@each_backend
@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_of_every_dtype(tmp_path: Path, backend: str, dtype: str) -> None:
    tensor = random_tensor(random.Random(dtype), DTYPES[dtype], (4, 6))
    raw = tensor.view(torch.uint8).reshape(4, 6, -1)
    save_file({"x": tensor}, tmp_path / "x")
    part = safe_open(tmp_path / "x", backend=backend).get_slice("x")
    for index in (1, slice(1, 3), (slice(None), slice(1, None, 2)), [3, 0, 3], (slice(None), -1), raw[:, 0, 0] > 127):
        assert part[index].dtype is tensor.dtype
        assert bits(part[index]) == bits(raw[index])
    assert part.get_dtype() == dtype
    assert part.get_shape() == [4, 12 if dtype == "F4" else 6]


@each_backend
def test_slices_of_unaligned_tensors(path: Path, backend: str) -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    path.write_bytes(make_file({"a": entry("U8", [1], 0, 1), "x": entry("F32", [3, 4], 1, 49)}, b"\0" + bits(tensor)))
    part = safe_open(path, backend=backend).get_slice("x")
    for index in (slice(None), 1, (slice(None), 2), (slice(None, None, 2), slice(1, 3))):
        check_index(part, tensor, index)
        assert part[index].data_ptr() % 4 == 0


@each_backend
def test_slices_are_writable_and_own_their_storage(path: Path, backend: str) -> None:
    data = path.read_bytes()
    part = safe_open(path, backend=backend).get_slice("b")
    for index in (slice(None), 0, (slice(None), 1), [0], slice(0, 0)):
        rows = part[index]
        rows.fill_(-1)
        assert rows.is_contiguous()
    assert path.read_bytes() == data


ROW = 4096 * 4  # bytes
MATRIX = (256, 4096)
# How many bytes these need, the pages between neighbouring runs included.
READS = {
    "row": (100, ROW),
    "rows": (slice(10, 20), 10 * ROW),
    "every 50th row": (slice(None, None, 50), 6 * ROW),
    "part of a row": ((3, slice(100, 200)), 400),
    "part of each row": ((slice(None), slice(0, 10)), 256 * 40),
    "one value": ((7, 7), 4),
    "nothing": (slice(5, 5), 0),
    "list of rows": ([200, 3, 200], 2 * ROW),
    "mask of rows": (torch.arange(256) % 100 == 0, 3 * ROW),
    "columns of a row": ((5, [1, 2, 3]), ROW),
}


def count_read(path: Path, index: Any) -> int:
    with faults():
        part = safe_open(path, backend="pread").get_slice("x")
        before = bytes_read()
        part[index]
        return bytes_read() - before


@pytest.mark.parametrize(("index", "needed"), READS.values(), ids=READS)
def test_slices_read_what_they_need(tmp_path: Path, worker: Any, index: Any, needed: int) -> None:
    save_file({"x": torch.zeros(MATRIX)}, tmp_path / "x")
    assert worker(count_read, tmp_path / "x", index) == needed


def count_opening(path: Path) -> int:
    with faults():
        file = safe_open(path, backend="pread")
        file.get_tensor_meta("x")
        file.get_slice("x").get_shape()
        return bytes_read()


def test_opening_reads_the_header_alone(tmp_path: Path, worker: Any) -> None:
    save_file({"x": torch.zeros(MATRIX)}, tmp_path / "x")
    assert worker(count_opening, tmp_path / "x") <= 16 * 1024


def test_mapped_tensors_are_lazy(tmp_path: Path) -> None:
    size = 1 << 30
    path = tmp_path / "sparse"
    path.write_bytes(make_file({"x": entry("U8", [1024, size // 1024], 0, size)}))
    os.truncate(path, path.stat().st_size + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = safe_open(path, backend="mmap")
    assert file.get_tensor("x").shape == (1024, size // 1024)
    assert int(file.get_slice("x")[1000].sum()) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
