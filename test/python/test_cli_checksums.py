"""Checksums on their way through commands: kept where there are some, made on request, and never for damaged data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Cli
from helpers import assert_same

from torch_safetensors import load_file, safe_open, save_file, save_sharded

KEY = "torch_safetensors.xxh3_128"
TENSORS = {"a.w": torch.arange(6.0), "a.b": torch.ones(3, dtype=torch.int64), "c": torch.empty(0)}

#: What writes tensors of a safetensors file to others.
COMMANDS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "convert": lambda source, target: ("convert", source, target),
    "convert to another dtype": lambda source, target: ("convert", source, target, "--dtype", "f16"),
    "extract": lambda source, target: ("extract", source, "a.*", "-o", target),
    "rename": lambda source, target: ("rename", source, target, "--strip-prefix", "a."),
    "merge": lambda source, target: ("merge", source, target),
    "split": lambda source, target: ("split", source, target, "--max-shard-size", "25B"),
    "split into one": lambda source, target: ("split", source, target),
}
each_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "in.safetensors", {"format": "pt"}, checksum=True)
    return tmp_path / "in.safetensors"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def damage(path: Path, name: str) -> None:
    """Another bit in a tensor."""
    content = bytearray(path.read_bytes())
    begin = safe_open(path).get_tensor_meta(name).data_offsets[0]
    content[8 + int.from_bytes(content[:8], "little") + begin] ^= 1
    path.write_bytes(content)


@each_command
def test_checksums_that_are_recorded_are_recorded_again(
    cli: Cli, source: Path, target: Path, command: Callable
) -> None:
    done = cli(*command(source, target))
    assert (done.status, done.err) == (0, "")
    assert len(load_file(target, verify=True)) in (2, 3)
    assert cli("verify", "--require-checksums", target).status == 0
    if target.is_dir() and (index := target / "model.safetensors.index.json").exists():
        assert KEY not in index.read_text()


@each_command
def test_a_file_without_checksums_gives_one_without(cli: Cli, source: Path, target: Path, command: Callable) -> None:
    save_file(TENSORS, source)
    assert cli(*command(source, target)).status == 0
    assert "no checksums are recorded" in cli("verify", target).out


@each_command
def test_checksums_on_request(cli: Cli, source: Path, target: Path, command: Callable) -> None:
    save_file(TENSORS, source)
    assert cli(*command(source, target), "--checksum").status == 0
    load_file(target, verify=True)


@each_command
@pytest.mark.parametrize("options", [[], ["--checksum"]], ids=["", "checksum"])
def test_damaged_data_gets_no_new_checksum(
    cli: Cli, source: Path, target: Path, command: Callable, options: list[str]
) -> None:
    damage(source, "a.w")
    status, out, err = cli(*command(source, target), *options)
    assert (status, out) == (2, "")
    assert err.startswith(f"torch-safetensors: {source}: tensor 'a.w': damaged: its checksum is ")
    assert not target.exists()


def test_only_what_is_copied_has_to_be_whole(cli: Cli, source: Path, target: Path) -> None:
    damage(source, "a.b")
    assert cli("extract", source, "a.w", "-o", target).status == 0
    assert_same(load_file(target, verify=True), {"a.w": TENSORS["a.w"]})


def test_files_of_which_some_record_checksums(cli: Cli, tmp_path: Path, target: Path) -> None:
    folder = tmp_path / "shards"
    save_sharded(TENSORS, folder, max_shard_size=24, checksum=True)
    first, second = sorted(folder.glob("*.safetensors"))
    save_file(load_file(second), second, {"format": "pt"})
    shown = "headers checked, checksums of 1 of 2 files; the others record none"
    assert cli("verify", folder).out == f"ok   {folder}: 3 tensors, {shown}\n"
    status, out, _ = cli("verify", "--require-checksums", folder)
    assert (status, out) == (1, f"BAD  {second}: no checksums to verify: save it with checksum=True\n")
    assert cli("merge", folder, target).status == 0
    assert_same(load_file(target, verify=True), TENSORS)
    damage(first, "a.w")
    assert "tensor 'a.w': damaged" in cli("verify", folder).out
    assert cli("merge", folder, target, "--force").status == 2
    assert cli("split", folder, tmp_path / "again").status == 2
    assert not (tmp_path / "again").exists()


def test_damage_in_a_later_file_is_found_though_the_first_records_nothing(cli: Cli, tmp_path: Path) -> None:
    save_sharded(TENSORS, tmp_path, max_shard_size=24, checksum=True)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    save_file(load_file(first), first, {"format": "pt"})
    damage(second, "a.b")
    status, out, _ = cli("verify", tmp_path)
    assert status == 1
    assert f"BAD  {second}: tensor 'a.b': damaged" in out


def test_to_a_file_of_torch(cli: Cli, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pt"
    message = f"torch-safetensors: --checksum: {target} is one of torch's files, which record none\n"
    assert cli("convert", source, target, "--checksum") == (2, "", message)
    assert cli("convert", source, target).status == 0
    damage(source, "a.w")
    assert "tensor 'a.w': damaged" in cli("convert", source, target, "--force").err
    assert_same(torch.load(target, weights_only=True), TENSORS)
