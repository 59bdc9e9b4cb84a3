"""``bench``: a row for each way to load; which are faster is nothing for a test."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from command_line import Cli, lines_of

from torch_safetensors import save_file, save_sharded

TENSORS = {
    "w": torch.zeros(1000),
    "empty": torch.zeros(0),
    "f4": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
}


def ways(lines: list[str]) -> list[str]:
    assert re.fullmatch(r"way +median ms +fastest ms +slowest ms +MB/s", lines[1])
    return [re.split(r"\s{2,}", line)[0] for line in lines[2:]]


def test_all_ways(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    lines = lines_of(cli("bench", path, "--runs", "2"))
    assert lines[0] == "3 tensors, 4.0 kB, 2 runs of each, from the page cache"
    assert ways(lines) == ["mmap", "mmap, touched", "pread", "reference, touched"]
    for line in lines[2:]:
        median, fastest, slowest = map(float, re.findall(r"\d+\.\d\d", line))
        assert fastest <= median <= slowest


def test_without_the_reference(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert "reference, touched" not in ways(lines_of(cli("bench", path, "--runs", "1")))


def test_several_files(cli: Cli, tmp_path: Path) -> None:
    save_sharded(TENSORS, tmp_path, max_shard_size=1000)
    assert ways(lines_of(cli("bench", tmp_path, "--runs", "1"))) == ["mmap", "mmap, touched", "pread"]


def test_no_runs(cli: Cli, tmp_path: Path) -> None:
    message = "torch-safetensors: --runs: 0 is not positive\n"
    assert cli("bench", tmp_path, "--runs", "0") == (2, "", message)
