"""The examples in the documentation of the reference's torch API, with nothing but the import replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import assert_same

EMBEDDING = {"embedding": torch.zeros((512, 1024)), "attention": torch.zeros((256, 256))}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bert(folder: Path) -> None:
    import safetensors.torch

    (folder / "my_folder").mkdir()
    safetensors.torch.save_file(EMBEDDING, "./my_folder/bert.safetensors")


@pytest.mark.usefixtures("bert")
def test_load_file() -> None:
    from torch_safetensors import load_file

    file_path = "./my_folder/bert.safetensors"
    loaded = load_file(file_path)

    assert_same(loaded, EMBEDDING)


@pytest.mark.usefixtures("bert")
def test_load() -> None:
    from torch_safetensors import load

    file_path = "./my_folder/bert.safetensors"
    with open(file_path, "rb") as f:  # noqa: PTH123 (as documented)
        data = f.read()

    loaded = load(data)

    assert_same(loaded, EMBEDDING)


def test_save_file() -> None:
    import safetensors.torch

    from torch_safetensors import save_file

    tensors = {"embedding": torch.zeros((512, 1024)), "attention": torch.zeros((256, 256))}
    save_file(tensors, "model.safetensors")

    assert Path("model.safetensors").read_bytes() == safetensors.torch.save(EMBEDDING)


def test_save() -> None:
    import safetensors.torch

    from torch_safetensors import save

    tensors = {"embedding": torch.zeros((512, 1024)), "attention": torch.zeros((256, 256))}
    byte_data = save(tensors)

    assert type(byte_data) is bytes
    assert byte_data == safetensors.torch.save(EMBEDDING)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(4, 4)
        self.decoder = torch.nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight
        self.register_buffer("steps", torch.tensor(3))


def test_save_model_and_load_model() -> None:
    from torch_safetensors import load_file, load_model, save_model

    model = Tied()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    assert save_model(model, "model.safetensors") is None

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    missing, unexpected = load_model(model, "model.safetensors")

    assert (missing, unexpected) == ([], [])
    assert_same(model.state_dict(), expected)
    assert model.decoder.weight is model.encoder.weight
    assert sorted(load_file("model.safetensors")) == sorted(set(expected) - {"encoder.weight"})


def test_load_model_says_what_is_missing_and_unexpected() -> None:
    from torch_safetensors import load_file, load_model, save_file, save_model

    model = Tied()
    save_model(model, "model.safetensors")
    tensors = load_file("model.safetensors")
    del tensors["steps"], tensors["encoder.bias"]
    save_file({**tensors, "new": torch.ones(1)}, "model.safetensors")
    print_model_errors = load_model(model, "model.safetensors", strict=False)
    assert print_model_errors == (["encoder.bias", "steps"], ["new"])
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "encoder.bias", "steps"'):
        load_model(model, "model.safetensors")


@pytest.mark.usefixtures("bert")
def test_safe_open() -> None:
    from torch_safetensors import safe_open

    tensors = {}
    with safe_open("./my_folder/bert.safetensors", framework="pt", device="cpu") as f:
        for k in f.keys():  # noqa: SIM118 (as documented)
            tensors[k] = f.get_tensor(k)

    assert_same(tensors, EMBEDDING)


@pytest.mark.usefixtures("bert")
def test_safe_open_with_a_slice() -> None:
    from torch_safetensors import safe_open

    tensors = {}
    with safe_open("./my_folder/bert.safetensors", framework="pt", device="cpu") as f:
        tensor_slice = f.get_slice("embedding")
        vocab_size, hidden_dim = tensor_slice.get_shape()
        tensor = tensor_slice[:, :hidden_dim]
        tensors["half"] = tensor_slice[:, : hidden_dim // 2]

    assert (vocab_size, hidden_dim) == (512, 1024)
    assert_same({"embedding": tensor, **tensors}, {"embedding": torch.zeros(512, 1024), "half": torch.zeros(512, 512)})


@pytest.mark.usefixtures("bert")
def test_safe_open_without_with() -> None:
    from torch_safetensors import safe_open

    f = safe_open("./my_folder/bert.safetensors", framework="pt")
    tensor = f.get_tensor("attention")
    assert_same({"attention": tensor}, {"attention": torch.zeros(256, 256)})
    assert f.metadata() is None
