"""Checksums: recorded on request, ignored by others, and every bit that changes is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch as reference
import torch
from helpers import BACKENDS, assert_same, random_tensors
from torch import Tensor

from torch_safetensors import (
    SafetensorError,
    load,
    load_file,
    load_model,
    load_tensor,
    safe_open,
    save,
    save_file,
    save_model,
)

KEY = "torch_safetensors.xxh3_128"
TENSORS = {"w": torch.arange(300.0), "b": torch.ones(3, dtype=torch.int64), "empty": torch.empty(0, 2)}
ops = torch.ops.safetensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def data_begin(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def flip_bit(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(300))
        self.b = torch.nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)
        self.register_buffer("empty", torch.empty(0, 2))


LOADS: dict[str, Callable[[Path], Any]] = {
    "load_file, mmap": lambda path: load_file(path, backend="mmap", verify=True),
    "load_file, pread": lambda path: load_file(path, backend="pread", verify=True),
    "load_file, meta": lambda path: load_file(path, "meta", verify=True),
    "load": lambda path: load(path.read_bytes(), verify=True),
    "load, alias": lambda path: load(bytearray(path.read_bytes()), copy=False, verify=True),
    "load_tensor": lambda path: load_tensor(path, "w", verify=True),
    "load_model": lambda path: load_model(Model(), path, verify=True),
    "load_model, assign": lambda path: load_model(Model(), path, assign=True, verify=True),
    "ops.load_file": lambda path: ops.load_file(str(path), verify=True),
    "ops.load": lambda path: ops.load(torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8), verify=True),
    "ops.load_tensor": lambda path: ops.load_tensor(str(path), "w", verify=True),
    "ops.load_tensors": lambda path: ops.load_tensors(str(path), ["w"], verify=True),
}
each_load = pytest.mark.parametrize("load_", LOADS.values(), ids=LOADS)


@each_load
def test_a_whole_file_is_verified(path: Path, load_: Callable[[Path], Any]) -> None:
    save_file(TENSORS, path, checksum=True)
    load_(path)


@each_load
@pytest.mark.parametrize("place", [0, 600, 1199])
def test_a_bit_that_changed_is_found(path: Path, load_: Callable[[Path], Any], place: int) -> None:
    save_file(TENSORS, path, checksum=True)
    begin = data_begin(path) + safe_open(path).get_tensor_meta("w").data_offsets[0]
    flip_bit(path, begin + place)
    load_file(path)
    with pytest.raises(
        RuntimeError, match=r"^(\S*x\.safetensors|bytes): tensor 'w': damaged: its checksum is [0-9a-f]{32} but"
    ):
        load_(path)


@each_load
def test_a_file_without_checksums_is_refused(path: Path, load_: Callable[[Path], Any]) -> None:
    save_file(TENSORS, path)
    with pytest.raises(RuntimeError, match=r"no checksums to verify: save it with checksum=True"):
        load_(path)


def test_the_message(path: Path) -> None:
    save_file(TENSORS, path, checksum=True)
    for name in "w", "b":
        flip_bit(path, data_begin(path) + safe_open(path).get_tensor_meta(name).data_offsets[0])
    with pytest.raises(SafetensorError) as error:
        load_file(path, verify=True)
    recorded = safe_open(path).metadata()[KEY]
    assert len(recorded) == 3 * 32
    assert f"{path}: tensor 'b': damaged: " in str(error.value)
    assert str(error.value).endswith(f" but {recorded[:32]} was saved; 2 tensors of 3 differ")
    assert torch.equal(load_tensor(path, "empty", verify=True), TENSORS["empty"])


def test_damage_in_the_header_is_found(path: Path) -> None:
    """Where it still is a valid one: another dtype of the same size, another name."""
    save_file({"w": torch.ones(4)}, path, checksum=True)
    raw = path.read_bytes()
    for old, new in ((b'"F32"', b'"I32"'), (b'"w"', b'"v"')):
        path.write_bytes(raw.replace(old, new, 1))
        load_file(path)
        with pytest.raises(SafetensorError, match="damaged"):
            load_file(path, verify=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_every_dtype_and_any_byte(path: Path, backend: str, seed: int) -> None:
    tensors = random_tensors(seed, 30)
    save_file(tensors, path, checksum=True)
    assert path.read_bytes() == save(tensors, checksum=True)
    assert_same(load_file(path, backend=backend, verify=True), tensors)
    begin, end = data_begin(path), path.stat().st_size
    rng = random.Random(seed)
    for _ in range(20):
        place = rng.randrange(begin, end)
        flip_bit(path, place)
        with pytest.raises(SafetensorError, match="damaged"):
            load_file(path, backend=backend, verify=True)
        flip_bit(path, place)


def test_large_tensors_in_parallel(path: Path) -> None:
    tensors = {str(i): torch.full(((1 << 18) * (i % 4),), float(i)) for i in range(40)}
    save_file(tensors, path, checksum=True)
    for backend in BACKENDS:
        assert_same(load_file(path, backend=backend, verify=True), tensors)
    flip_bit(path, path.stat().st_size - 1)
    with pytest.raises(SafetensorError, match="damaged"):
        load_file(path, verify=True)


def test_others_read_such_a_file(path: Path) -> None:
    save_file(TENSORS, path, {"a": "b"}, checksum=True)
    assert_same(reference.load_file(path), TENSORS)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"a": "b", KEY: safe_open(path).metadata()[KEY]}


def test_checksums_of_another_file_are_left_out(path: Path) -> None:
    save_file(TENSORS, path, {"a": "b"}, checksum=True)
    metadata = safe_open(path).metadata()
    changed = {**TENSORS, "w": TENSORS["w"] + 1}
    for checksum in False, True:
        save_file(changed, path, metadata, checksum=checksum)
        assert set(safe_open(path).metadata()) == ({"a", KEY} if checksum else {"a"})
    load_file(path, verify=True)


def test_lazy_views_have_the_checksum_of_what_they_show(path: Path) -> None:
    z = torch.complex(torch.arange(6.0), torch.ones(6))
    save_file({"z": z.conj(), "n": torch._neg_view(torch.arange(6.0))}, path, checksum=True)
    assert torch.equal(load_file(path, verify=True)["z"], z.conj())


def test_models(path: Path) -> None:
    model = torch.nn.Linear(3, 4)
    save_model(model, path, checksum=True)
    other = torch.nn.Linear(3, 4)
    load_model(other, path, verify=True)
    assert torch.equal(other.weight, model.weight)
    before = other.weight.clone()
    flip_bit(path, path.stat().st_size - 1)
    with pytest.raises(SafetensorError, match="tensor 'weight': damaged"):
        load_model(other, path, verify=True)
    assert torch.equal(other.weight, before)


def test_script(path: Path) -> None:
    @torch.jit.script
    def round_trip(x: Tensor, path: str) -> Tensor:
        torch.ops.safetensors.save_file({"x": x}, path, checksum=True)
        torch.ops.safetensors.save_tensors(path + "2", ["x"], [x], checksum=True)
        torch.ops.safetensors.load_tensor(path + "2", "x", verify=True)
        return torch.ops.safetensors.load_file(path, verify=True)["x"]

    assert torch.equal(round_trip(torch.arange(3.0), str(path)), torch.arange(3.0))


def test_graph(path: Path) -> None:
    name = str(path)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def round_trip(x: Tensor) -> Tensor:
        loaded = load_file(name, verify=True)["x"] + x
        save_file({"x": loaded}, name, checksum=True)
        return loaded

    save_file({"x": torch.ones(3)}, path, checksum=True)
    assert round_trip(torch.ones(3)).tolist() == [2, 2, 2]
    assert load_tensor(path, "x", verify=True).tolist() == [2, 2, 2]
    flip_bit(path, path.stat().st_size - 1)
    with pytest.raises(RuntimeError, match="tensor 'x': damaged"):
        round_trip(torch.ones(3))


def test_fake_tensors(path: Path) -> None:
    with torch._subclasses.FakeTensorMode():
        fake = ops.save({"x": torch.ones(3)}, checksum=True)
    assert fake.shape == ops.save({"x": torch.ones(3)}, checksum=True).shape
