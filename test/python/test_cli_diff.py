"""``diff``: names, shapes, dtypes and values, with diff's exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from command_line import Cli
from helpers import DTYPES, random_tensors
from torch import Tensor

from torch_safetensors import save_file, save_sharded
from torch_safetensors._cli import _compare
from torch_safetensors._cli._compare import Difference, compare

NAN = float("nan")
INF = float("inf")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "a.safetensors", tmp_path / "b.safetensors"


def diff(
    cli: Cli, files: tuple[Path, Path], a: dict[str, Tensor], b: dict[str, Tensor], *options: str
) -> list[list[str]]:
    """The rows of the table; the exit status and the last line fit to them."""
    save_file(a, files[0])
    save_file(b, files[1])
    status, out, err = cli("diff", *files, *options)
    assert err == ""
    lines = out.splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines[1:-1]]
    assert status == bool(rows)
    assert re.search(r" differ: \d+ differences?$" if rows else r" (are|have) the same", lines[-1])
    return rows


def test_equal_files_of_any_tensors(cli: Cli, files: tuple[Path, Path]) -> None:
    tensors = random_tensors(1, count=200)
    assert {tensor.dtype for tensor in tensors.values()} == set(DTYPES.values())
    assert diff(cli, files, tensors, dict(reversed(tensors.items()))) == []


def test_names_shapes_and_dtypes(cli: Cli, files: tuple[Path, Path]) -> None:
    a = {"gone": torch.zeros(2), "shape": torch.zeros(2, 3), "dtype": torch.ones(2), "same": torch.ones(1)}
    b = {"new": torch.zeros(()), "shape": torch.zeros(3, 2), "dtype": torch.ones(2).half(), "same": torch.ones(1)}
    expected = [
        ["dtype", "dtype", "F32[2]", "F16[2]", "0", "0"],
        ["gone", "only in A", "F32[2]"],
        ["shape", "shape", "F32[2,3]", "F32[3,2]"],
        ["new", "only in B", "", "F32[]"],
    ]
    assert diff(cli, files, a, b)[:3] == expected[:3]
    assert diff(cli, files, a, b)[3][:2] == ["new", "only in B"]
    assert len(diff(cli, files, a, b, "--ignore-dtype")) == 3


def test_values(cli: Cli, files: tuple[Path, Path]) -> None:
    a = {"w": torch.tensor([1.0, 2.0, 3.0, NAN])}
    b = {"w": torch.tensor([1.0, 2.5, 3.25, NAN])}
    assert diff(cli, files, a, b) == [["w", "values", "F32[4]", "F32[4]", "2", "0.5"]]
    assert diff(cli, files, a, b, "--atol", "0.3") == [["w", "values", "F32[4]", "F32[4]", "1", "0.5"]]
    assert diff(cli, files, a, b, "--rtol", "0.2") == []
    assert diff(cli, files, a, b, "--names-only") == []
    assert diff(cli, files, a, {"w": torch.tensor([1.0, 2, NAN, NAN])})[0][4:] == ["1 (1 NaN)", "0"]


def test_metadata_where_asked(cli: Cli, files: tuple[Path, Path]) -> None:
    save_file({}, files[0], {"a": "1", "b": "1", "c": "1"})
    save_file({}, files[1], {"b": "2", "c": "1"})
    assert cli("diff", *files).status == 0
    status, out, _ = cli("diff", *files, "--metadata")
    assert status == 1
    assert "__metadata__ a  metadata    there  missing" in out
    assert "__metadata__ b" in out
    assert "__metadata__ c" not in out


def test_quiet(cli: Cli, files: tuple[Path, Path]) -> None:
    save_file({}, files[0])
    save_file({"w": torch.zeros(1)}, files[1])
    assert cli("diff", *files, "--quiet") == (1, "", "")


def test_trouble_is_2(cli: Cli, files: tuple[Path, Path]) -> None:
    save_file({}, files[0])
    assert cli("diff", *files) == (2, "", f"torch-safetensors: {files[1]}: No such file or directory\n")


def test_a_file_and_the_same_in_several(cli: Cli, tmp_path: Path) -> None:
    tensors = {f"w.{i}": torch.full((10,), float(i)) for i in range(5)}
    save_file(tensors, tmp_path / "one.safetensors")
    save_sharded(tensors, tmp_path / "several", max_shard_size=80)
    assert cli("diff", tmp_path / "one.safetensors", tmp_path / "several").status == 0


# --- values, one dtype after the other -----------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype(dtype: torch.dtype) -> None:
    a, b = (torch.tensor([first, 1, 0, 1], dtype=torch.uint8) for first in (0, 1))
    a, b = (bytes_.repeat_interleave(dtype.itemsize).view(dtype) for bytes_ in (a, b))
    assert compare(a, a.clone()) == Difference()
    assert compare(a, b).elements == 1
    assert compare(a, b).largest > 0


def test_float4_compares_both_elements_of_a_byte() -> None:
    a, b = (torch.tensor([byte], dtype=torch.uint8).view(torch.float4_e2m1fn_x2) for byte in (0x72, 0x5A))
    assert compare(a, b) == Difference(2, 3.0)  # 1 and 6 against -1 and 3
    assert compare(a, torch.tensor([1.0, 6.5])) == Difference(1, 0.5)


def test_nans_are_equal_by_their_bits() -> None:
    nan, other = (torch.tensor([bits], dtype=torch.int32).view(torch.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert compare(nan, nan.clone()) == Difference()
    assert compare(nan, other) == Difference(1, 0, 1)
    assert compare(nan, nan.half()) == Difference()
    assert compare(torch.tensor([NAN, 1.0]), torch.tensor([0.0, 2.0])) == Difference(2, 1.0, 1)


def test_infinities_and_zeros() -> None:
    assert compare(torch.tensor([INF, -0.0, 1.0]), torch.tensor([INF, 0.0, 2.0])) == Difference(1, 1.0)
    assert compare(torch.tensor([INF]), torch.tensor([-INF]), rtol=1) == Difference(1, INF)
    assert compare(torch.tensor([1.0]), torch.tensor([INF]), rtol=1) == Difference(1, INF)


def test_complex_numbers() -> None:
    a, b = torch.tensor([3 + 4j, 1j]), torch.tensor([0j, 1j])
    assert compare(a, b) == Difference(1, 5.0)
    nan = torch.tensor([complex(NAN, 1), 1])
    assert compare(nan, torch.tensor([complex(NAN, 1), 2])) == Difference(1, 1.0)


@pytest.mark.parametrize(
    ("dtype", "a", "b", "largest"),
    [
        (torch.int64, 2**63 - 1, -(2**63), 2**64 - 1),
        (torch.int64, 2**60, 2**60 + 1, 1),
        (torch.uint64, 2**64 - 1, 0, 2**64 - 1),
        (torch.uint64, 2**63 + 5, 2**63 - 5, 10),
        (torch.int8, -128, 127, 255),
        (torch.bool, True, False, 1),
    ],
)
def test_integers_are_compared_exactly(dtype: torch.dtype, a: int, b: int, largest: int) -> None:
    left, right = torch.tensor([a, 0], dtype=dtype), torch.tensor([b, 0], dtype=dtype)
    assert compare(left, right) == compare(right, left) == Difference(1, largest)
    assert compare(left, right, atol=largest) == Difference(0, largest)


def test_large_tensors_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compare, "_PIECE", 64)
    a = torch.zeros(7, 11)
    b = a.clone()
    b[3, 4], b[6, 10] = 1.0, NAN
    assert compare(a, b) == Difference(2, 1.0, 1)
