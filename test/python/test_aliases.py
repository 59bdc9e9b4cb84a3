"""No two results share memory: what is written to one shows in no other, nor in what is read later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import BACKENDS
from torch import Tensor

import torch_safetensors as ts

ops = torch.ops.safetensors

#: Elements of rows of 4: of a file that is mapped, a small part is copied and a large one mapped.
SIZES = {"small": 1000, "large": 1 << 20}


@pytest.fixture(params=SIZES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    rows = torch.arange(SIZES[request.param], dtype=torch.float32).view(-1, 4)
    ts.save_file({"w": rows, "v": -rows}, tmp_path / "x")
    return str(tmp_path / "x")


def expected(path: str) -> Tensor:
    with open(path, "rb") as file:  # noqa: PTH123
        return ts.load(file.read())["w"]


def check_apart(results: list[Tensor], whole: Tensor) -> None:
    """Each is ``whole``, and stays so when the others are written to."""
    for i, tensor in enumerate(results):
        assert torch.equal(tensor, whole), i
        tensor.fill_(-7)
    for tensor in results:
        assert (tensor == -7).all()
        tensor.zero_()
    storages = [tensor.untyped_storage() for tensor in results]
    assert len({storage.data_ptr() for storage in storages}) == len(results)
    assert all(storage.nbytes() == whole.nbytes for storage in storages)


@torch.jit.script
def scripted(path: str, backend: str) -> list[Tensor]:
    file = torch.classes.safetensors.SafeOpen(path, backend=backend)
    return (
        torch.ops.safetensors.load_tensors(path, ["w", "w"], backend=backend)
        + file.get_tensors(["w", "w"])
        + [file.get_tensor("w"), file.get_slice("w"), file.get_slice("w", 0, 0, None)]
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_of_operators(path: str, backend: str) -> None:
    check_apart(ops.load_tensors(path, ["w", "w", "w"], backend=backend), expected(path))
    check_apart(scripted(path, backend), expected(path))


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_of_a_handle(path: str, backend: str) -> None:
    whole = expected(path)
    file = ts.safe_open(path, backend=backend)
    part = file.get_slice("w")
    results = [
        file.get_tensor("w"),
        file.get_tensor("w"),
        file.get_tensors()["w"],
        file.get_tensors(["v", "w"])["w"],
        part[...],
        part[:],
        part[:],
        part[: len(whole)],
        part[:, :],
        part[torch.arange(len(whole))],
        file._call("get_tensors", ["w", "v", "w"])[2],
    ]
    check_apart(results, whole)
    assert torch.equal(file.get_tensor("w"), whole)
    assert torch.equal(file.get_slice("w")[:, 1], whole[:, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_of_a_tensor(path: str, backend: str) -> None:
    whole = expected(path)
    half = len(whole) // 2
    file = ts.safe_open(path, backend=backend)
    part = file.get_slice("w")
    for index in (slice(half), slice(half, None), (slice(None), slice(1, 3)), slice(None, None, 2), 5):
        check_apart([part[index], part[index], file.get_tensor("w")[index].clone()], whole[index].clone())


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_several_files(tmp_path: Path, backend: str) -> None:
    whole = torch.arange(1 << 20, dtype=torch.float32)
    ts.save_sharded({"a": whole, "b": whole + 1}, tmp_path, max_shard_size=1 << 22)
    check_apart(ops.load_tensors(str(tmp_path), ["b", "b"], backend=backend), whole + 1)
    file = ts.safe_open(tmp_path, backend=backend)
    check_apart([file.get_tensor("a"), file.get_slice("a")[:], file.get_tensors()["a"]], whole)


def load_twice(path: str) -> list[Tensor]:
    first, second = ops.load_tensors(path, ["w", "w"])
    first.zero_()
    return [first, second]


@pytest.mark.parametrize("compiler", [None, "eager", "aot_eager", "inductor"])
def test_compiled_code_says_the_same(path: str, compiler: str | None) -> None:
    function: Callable[[str], list[Tensor]] = load_twice
    if compiler is not None:
        function = torch.compile(load_twice, backend=compiler, fullgraph=True)
    first, second = function(path)
    assert (first == 0).all()
    assert torch.equal(second, expected(path))


def test_many_small_results_of_one_tensor(path: str) -> None:
    """More than a process may have mappings, which is 65,530 on Linux, were each one of its own."""
    with ts.safe_open(path, backend="mmap") as file:
        part = file.get_slice("w")
        results = [part[:10] for _ in range(1000)]
        results += ops.load_tensors(path, ["w"] * 20)
        assert len(Path("/proc/self/maps").read_text().splitlines()) < 60_000
    assert len({result.data_ptr() for result in results}) == len(results)
