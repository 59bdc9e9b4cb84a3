"""``convert``: from torch's own files and back, with ties, and without running code in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from command_line import Cli
from helpers import assert_same, listing, random_tensors
from torch import nn

from torch_safetensors import load_file, safe_open, save_file, save_model


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(3)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def save(content: object, path: Path, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".PT"])
def test_a_state_dict(cli: Cli, tmp_path: Path, target: Path, suffix: str) -> None:
    model = Tied()
    source = save(model.state_dict(), tmp_path / f"in{suffix}")
    status, out, err = cli("convert", source, target)
    assert (status, out) == (0, f"{target}: 6 tensors, 116 B\n")
    assert err == f"torch-safetensors: {target}: ties, written once: 'head.weight' is 'embed.weight'\n"
    save_model(model, tmp_path / "expected.safetensors", {"format": "pt"})
    assert target.read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def test_files_of_old_versions_of_torch(cli: Cli, tmp_path: Path, target: Path) -> None:
    tensors = {"w": torch.rand(3, 4)}
    source = save(tensors, tmp_path / "in.pt", _use_new_zipfile_serialization=False)
    assert cli("convert", source, target) == (0, f"{target}: 1 tensor, 48 B\n", "")
    assert_same(load_file(target), tensors)


def test_what_is_not_contiguous_is_packed(cli: Cli, tmp_path: Path, target: Path) -> None:
    tensors = {
        "t": torch.rand(3, 4).T,
        "part": torch.rand(10)[2:7:2],
        "conj": torch.rand(2, dtype=torch.complex64).conj(),
    }
    assert cli("convert", save(tensors, tmp_path / "in.pt"), target).status == 0
    assert_same(load_file(target), {name: tensor.resolve_conj() for name, tensor in tensors.items()})


@pytest.mark.parametrize("key", ["state_dict", "model", "anything"])
def test_a_state_dict_in_a_dict(cli: Cli, tmp_path: Path, target: Path, key: str) -> None:
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters())
    model.embed(torch.tensor([1])).sum().backward()
    optimizer.step()
    content = {"epoch": 3, key: model.state_dict(), "optimizer": optimizer.state_dict()}
    source = save(content, tmp_path / "in.pt")
    status, _, err = cli("convert", source, target)
    assert status == 0
    chosen = f"torch-safetensors: {source}: taking the tensors under {key!r}; left out: 'epoch', 'optimizer'\n"
    assert err.startswith(chosen)
    assert torch.equal(load_file(target)["embed.weight"], model.embed.weight)


def test_which_entry_is_meant_has_to_be_clear(cli: Cli, tmp_path: Path, target: Path) -> None:
    content = {"model": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}
    source = save(content, tmp_path / "in.pt")
    message = f"torch-safetensors: {source}: several entries hold tensors, choose one with --key: 'model', 'ema'\n"
    assert cli("convert", source, target) == (2, "", message)
    assert not target.exists()
    assert cli("convert", source, target, "--key", "ema").status == 0
    assert load_file(target)["w"] == 1
    message = f"torch-safetensors: {source}: 'x' is not a dict of tensors there; these are: 'model', 'ema'\n"
    assert cli("convert", source, target, "--key", "x", "--force") == (2, "", message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(1), "holds a Tensor, not a dict of tensors"),
        ({"epoch": 1}, "holds no tensors by name; its entries are: 'epoch'"),
        ({}, "holds no tensors by name; its entries are: none"),
        ({"w": torch.zeros(1), "epoch": 1}, "'epoch' is int, not a tensor"),
        (
            {"w": torch.zeros(1), "model": {"w": torch.zeros(1)}},
            "'model' is dict, not a tensor; choose an entry with --key",
        ),
        ({"model": {"w": torch.zeros(1), "extra": 1}}, "'model': 'extra' is int, not a tensor"),
        ({1: torch.zeros(1)}, "holds no tensors by name; its entries are: 1"),
    ],
)
def test_other_content(cli: Cli, tmp_path: Path, target: Path, content: object, message: str) -> None:
    source = save(content, tmp_path / "in.pt")
    assert cli("convert", source, target) == (2, "", f"torch-safetensors: {source}: {message}\n")
    assert listing(tmp_path) == ["in.pt"]


def test_no_code_is_run(cli: Cli, tmp_path: Path, target: Path) -> None:
    made = tmp_path / "made"
    for source in save({"w": Evil(made)}, tmp_path / "in.pt"), tmp_path / "plain.pt":
        source.exists() or source.write_bytes(pickle.dumps(Evil(made)))
        status, out, err = cli("convert", source, target)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"torch-safetensors: {source}: torch.load(weights_only=True) refuses it: ")
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4 and so on"])
def test_what_is_not_torchs(cli: Cli, tmp_path: Path, target: Path, content: bytes) -> None:
    source = tmp_path / "in.pt"
    source.write_bytes(content)
    status, out, err = cli("convert", source, target)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert str(source) in err


def test_back(cli: Cli, tmp_path: Path) -> None:
    tensors = random_tensors(7, count=40)
    source, target = tmp_path / "in.safetensors", tmp_path / "out.pt"
    save_file(tensors, source)
    assert cli("convert", source, target).status == 0
    assert_same(torch.load(target, weights_only=True), tensors)
    assert listing(tmp_path) == ["in.safetensors", "out.pt"]


def test_ties_come_back_as_ties(cli: Cli, tmp_path: Path) -> None:
    model = Tied()
    save_model(model, tmp_path / "in.safetensors")
    target = tmp_path / "out.pt"
    assert cli("convert", tmp_path / "in.safetensors", target) == (0, f"{target}: 7 tensors, 116 B\n", "")
    state = torch.load(target, weights_only=True)
    assert state["head.weight"].data_ptr() == state["embed.weight"].data_ptr()
    Tied().load_state_dict(state)


def test_another_dtype(cli: Cli, tmp_path: Path, target: Path) -> None:
    model = Tied()
    source = save(model.state_dict(), tmp_path / "in.pt")
    assert cli("convert", source, target, "--dtype", "bf16").out == f"{target}: 6 tensors, 62 B\n"
    loaded = load_file(target)
    assert torch.equal(loaded["embed.weight"], model.embed.weight.bfloat16())
    assert loaded["norm.num_batches_tracked"].dtype == torch.int64
    with safe_open(target) as file:
        assert file.metadata() == {"format": "pt", "head.weight": "embed.weight"}
    assert cli("convert", target, tmp_path / "back.pt", "--dtype", "f32").status == 0
    state = torch.load(tmp_path / "back.pt", weights_only=True)
    assert state["head.weight"].dtype == torch.float32
    assert state["head.weight"].data_ptr() == state["embed.weight"].data_ptr()


def test_checksums(cli: Cli, tmp_path: Path, target: Path) -> None:
    source = save({"w": torch.rand(3)}, tmp_path / "in.pt")
    assert cli("convert", source, target, "--checksum").status == 0
    load_file(target, verify=True)


def test_nothing_is_overwritten_unasked(cli: Cli, tmp_path: Path, target: Path) -> None:
    source = save({"w": torch.rand(3)}, tmp_path / "in.pt")
    target.write_bytes(b"old")
    message = f"torch-safetensors: {target}: exists already; pass --force to replace it\n"
    assert cli("convert", source, target) == (2, "", message)
    assert target.read_bytes() == b"old"
    assert cli("convert", source, target, "--force").status == 0
    save_file({"w": torch.zeros(1)}, target)
    assert cli("convert", target, source).status == 2
    assert cli("convert", target, source, "-f").status == 0
    assert_same(torch.load(source, weights_only=True), {"w": torch.zeros(1)})


def test_a_failed_conversion_leaves_the_old_file(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "in.safetensors", tmp_path / "out.pt"
    save_file({"w": torch.zeros(1)}, source)
    target.write_bytes(b"old")

    def fail(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    assert cli("convert", source, target, "--force").status == 2
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["in.safetensors", "out.pt"]


def test_both_of_one_kind(cli: Cli, tmp_path: Path) -> None:
    source = save({"w": torch.rand(3)}, tmp_path / "in.pt")
    status, _, err = cli("convert", source, tmp_path / "out.bin")
    assert status == 2
    assert err.endswith("out.bin: both are torch's files; one has to be a safetensors file\n")
    save_file({}, tmp_path / "in.safetensors")
    assert cli("convert", tmp_path / "in.safetensors", tmp_path / "o.pt", "--key", "x").status == 2
