"""``verify``: headers completely, checksums where there are any, every file whatever is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Cli

from torch_safetensors import save_file, save_sharded

TENSORS = {"w": torch.arange(300.0), "b": torch.ones(3)}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file(TENSORS, path, checksum=True)
    return path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_good_file(cli: Cli, good: Path) -> None:
    assert cli("verify", good) == (0, f"ok   {good}: 2 tensors, header and checksums checked\n", "")


def test_a_file_without_checksums(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path)
    assert cli("verify", path) == (0, f"ok   {path}: 2 tensors, header checked; no checksums are recorded\n", "")
    status, out, _ = cli("verify", "--require-checksums", path)
    assert status == 1
    assert out.startswith(f"BAD  {path}: no checksums to verify")


def test_every_file_is_checked(cli: Cli, good: Path, tmp_path: Path) -> None:
    damaged, malformed = tmp_path / "damaged.safetensors", tmp_path / "malformed.safetensors"
    save_file(TENSORS, damaged, checksum=True)
    damage(damaged)
    malformed.write_bytes(good.read_bytes()[:-1])
    missing = tmp_path / "missing.safetensors"
    status, out, err = cli("verify", missing, damaged, malformed, good)
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == f"BAD  {missing}: No such file or directory"
    assert lines[1].startswith(f"BAD  {damaged}: tensor 'w': damaged: its checksum is ")
    assert lines[2].startswith(f"BAD  {malformed}: ")
    assert lines[3].startswith(f"ok   {good}: ")
    assert len(lines) == 4


def test_a_checkpoint_in_several_files(cli: Cli, tmp_path: Path) -> None:
    save_sharded(TENSORS, tmp_path, max_shard_size=1200, checksum=True)
    assert cli("verify", tmp_path).out == f"ok   {tmp_path}: 2 tensors, header and checksums checked\n"
    damage(tmp_path / "model-00002-of-00002.safetensors")
    status, out, _ = cli("verify", tmp_path)
    assert status == 1
    assert "model-00002-of-00002.safetensors: tensor 'b': damaged" in out
    save_sharded(TENSORS, tmp_path, max_shard_size=1200)
    assert "no checksums are recorded" in cli("verify", tmp_path).out
