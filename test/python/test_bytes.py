"""The bytes of a file: what the reference writes, and what comes back."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch as reference
import torch
from helpers import (
    BACKENDS,
    DTYPES,
    LOADERS,
    assert_same,
    bits,
    entry,
    make_file,
    random_shape,
    random_tensor,
    random_tensors,
)
from torch import Tensor

from torch_safetensors import load, load_file, safe_open, save, save_file

each_loader = pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def check_both_ways(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Equal bytes from both sides; each side reads the other's file."""
    other = path.with_name("reference.safetensors")
    reference.save_file(tensors, other, metadata)
    save_file(tensors, path, metadata)
    expected = reference.save(tensors, metadata)
    assert save(tensors, metadata) == expected
    assert path.read_bytes() == expected == other.read_bytes()
    assert_same(reference.load_file(path), tensors)
    for loader in LOADERS.values():
        assert_same(loader(other), tensors)


@pytest.mark.parametrize("seed", range(25))
def test_random_tensors(path: Path, seed: int) -> None:
    metadata = [None, {}, {'"\\\b\t\n\f\r\0\x1f\x7f/é🦙': "\u2028\udbff".encode("utf-8", "ignore").decode()}][seed % 3]
    check_both_ways(random_tensors(seed), path, metadata)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype(path: Path, dtype: str) -> None:
    rng = random.Random(dtype)
    shapes = [(), (0,), (3,), (2, 0, 3), (1, 2, 3, 1, 2), *(random_shape(rng) for _ in range(5))]
    shapes = shapes[dtype == "F4" :]  # a single F4 does not fill a byte
    shapes = [shape for shape in shapes if shape or dtype != "F4"]
    tensors = {str(i): random_tensor(rng, DTYPES[dtype], shape) for i, shape in enumerate(shapes)}
    check_both_ways(tensors, path)
    assert {safe_open(path).get_tensor_meta(name).dtype for name in tensors} == {dtype}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        '"',
        "'",
        "\\",
        "/",
        "\b\t\n\f\r",
        "\0",
        "\x1f",
        "\x7f",
        "\x80",
        "é",
        "漢字",
        "🦙",
        "\uffff",
        "n" * 100_000,
    ],
    ids=lambda name: ascii(name[:10]),
)
def test_name(path: Path, name: str) -> None:
    check_both_ways({name: torch.tensor([1]), name + "x": torch.tensor([2])}, path)


def test_order_is_dtype_descending_then_name(path: Path) -> None:
    rng = random.Random(0)
    names = ["é", "a", "🦙", "Z", "\uffff", "aa", ""]
    tensors = {
        f"{name}{i}": random_tensor(rng, dtype, (2,)) for i, dtype in enumerate(DTYPES.values()) for name in names
    }
    check_both_ways(tensors, path)
    dtypes = list(DTYPES)[::-1]
    expected = sorted(
        tensors, key=lambda name: (dtypes.index(safe_open(path).get_tensor_meta(name).dtype), name.encode())
    )
    assert list(load_file(path)) == expected == safe_open(path).offset_keys()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(10.0)[2:5],
        lambda: torch.ones(3, 1).t(),
        lambda: torch.ones(1, 4).expand(1, 4)[:, :0],
        lambda: torch.nn.Parameter(torch.ones(2)),
        lambda: torch.ones(2, requires_grad=True) * 2,
        lambda: torch.empty_strided((2, 1, 3), (3, 77, 1)).fill_(1),
    ],
    ids=["slice", "one column", "empty", "parameter", "result", "stride of one element"],
)
def test_tensors_of_other_kinds(path: Path, make: Callable[[], Tensor]) -> None:
    check_both_ways({"x": make().detach()}, path)
    assert save({"x": make()}) == path.read_bytes()


def test_disjoint_views_of_one_storage(path: Path) -> None:
    whole = torch.arange(10.0)
    check_both_ways({"b": whole[:5], "a": whole[5:]}, path)


METADATA = {"none": None, "empty": {}, "format": {"format": "pt"}, "empty strings": {"": ""}, "NUL": {"\0": "a\0b"}}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
@pytest.mark.parametrize("tensors", [{}, {"x": torch.ones(2)}], ids=["no tensors", "a tensor"])
def test_metadata(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> None:
    save_file(tensors, path, metadata)
    data = path.read_bytes()
    assert data == save(tensors, metadata)
    if tensors or metadata != {}:  # of which the reference writes what nobody can read
        assert data == reference.save(tensors, metadata)
    assert safe_open(path).metadata() == metadata
    assert safetensors.safe_open(path, "pt").metadata() == metadata
    assert_same(load(data), tensors)
    assert len(data) % 8 == 0


def test_empty_metadata_without_tensors() -> None:
    assert save({}, metadata={}) == make_file('{"__metadata__":{}}     ')
    assert save({}) == make_file("{}      ")


def test_metadata_is_sorted(path: Path) -> None:
    metadata = {
        key: key * 2 for key in random.Random(0).sample(["b", "a", "é", "", "\0", "🦙", "aa", "B", "\uffff"], 9)
    }
    expected = sorted(metadata, key=str.encode)
    save_file({}, path, metadata)
    assert list(safe_open(path).metadata()) == expected
    assert safetensors.safe_open(path, "pt").metadata() == metadata
    positions = [path.read_bytes().index(f':"{key * 2}"'.encode()) for key in expected if key not in ("", "\0")]
    assert positions == sorted(positions)


@pytest.fixture
def many(path: Path) -> dict[str, Tensor]:
    rng = random.Random(0)
    tensors = {name: random_tensor(rng, dtype, (2, 4)) for name, dtype in DTYPES.items()}
    tensors["empty"] = torch.empty(0, 3)
    save_file(tensors, path)
    return tensors


@each_loader
def test_storages(path: Path, many: dict[str, Tensor], loader: Any) -> None:
    loaded = loader(path)
    assert_same(loaded, many)
    for tensor in loaded.values():
        storage = tensor.untyped_storage()
        assert tensor.is_contiguous()
        assert tensor.storage_offset() == 0
        assert storage.nbytes() == tensor.numel() * tensor.element_size()
        assert not tensor.requires_grad
        assert not storage.resizable()
        with pytest.raises(RuntimeError, match="not resizable"):
            tensor.resize_(1000)


@each_loader
def test_writing_changes_nothing_else(path: Path, many: dict[str, Tensor], loader: Any) -> None:
    data = path.read_bytes()
    loaded, again = loader(path), loader(path)
    for name, tensor in loaded.items():
        expected = bytes(255 - byte for byte in bits(tensor))
        if tensor.numel() > 0:
            raw = tensor.view(-1).view(torch.uint8)
            raw.bitwise_not_()
        assert bits(tensor) == expected, name
    assert path.read_bytes() == data
    assert_same(again, many)
    for name, tensor in loaded.items():
        assert bits(tensor) == bytes(255 - byte for byte in bits(many[name]))


@pytest.mark.parametrize("source", [bytes, bytearray], ids=lambda kind: kind.__name__)
def test_writing_never_changes_the_bytes(many: dict[str, Tensor], source: Any) -> None:
    data = save(many)
    given = source(data)
    for tensor in load(given).values():
        tensor.view(-1).view(torch.uint8).fill_(7) if tensor.numel() else None
    assert given == data
    given = bytearray(data)
    kept = load(given)
    given[:] = bytes(len(given))
    assert_same(kept, many)


def test_pread_is_immune_to_later_changes(path: Path, many: dict[str, Tensor]) -> None:
    loaded = load_file(path, backend="pread")
    path.write_bytes(bytes(path.stat().st_size))
    assert_same(loaded, many)


@each_loader
def test_dict_is_in_the_order_of_the_data(path: Path, loader: Any) -> None:
    names = ["x", "a", "", "é", "b", "0"]
    order = random.Random(0).sample(names, 6)
    header = {name: entry("U8", [1], order.index(name), order.index(name) + 1) for name in names}
    path.write_bytes(make_file(header, bytes(6)))
    assert list(loader(path)) == order


def test_large_tensors_are_read_by_several_threads(path: Path) -> None:
    rng = random.Random(1)
    shapes = [(3_000_001,), (0,), (5,), (2_500_000,), (1,), (4_000_003,)]
    tensors = {str(i): random_tensor(rng, torch.uint8, shape) for i, shape in enumerate(shapes)}
    check_both_ways(tensors, path)
    reverse = list(tensors)[::-1]
    assert_same(safe_open(path, backend="pread").get_tensors(reverse), tensors)


def test_large_tensors_in_fresh_memory(path: Path) -> None:
    rng = random.Random(1)
    tensors = {str(size): random_tensor(rng, torch.uint8, (size,)) for size in (24_000_000, 5, 9_000_001, 11_111_111)}
    check_both_ways(tensors, path)
    assert_same(load(path.read_bytes()), tensors)
    assert_same(load_file(path, backend="pread"), tensors)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_tensors(path: Path, backend: str) -> None:
    tensors = {f"layer.{i}": torch.tensor(i) for i in range(3000)}
    save_file(tensors, path)
    assert path.read_bytes() == reference.save(tensors)
    assert_same(load_file(path, backend=backend), tensors)


def test_small_and_large_saves_give_the_bytes_of_a_file(path: Path) -> None:
    for size in (0, 1, (1 << 16) - 200, (1 << 16) - 72, (1 << 16) - 64, 1 << 16, 5 << 20, 40_000_001):
        tensors = {"a": torch.arange(size, dtype=torch.int64).to(torch.uint8)}
        save_file(tensors, path)
        assert save(tensors) == path.read_bytes()
    many = {f"t{i}": torch.full((3,), i) for i in range(101)}
    save_file(many, path)
    assert save(many) == path.read_bytes()
