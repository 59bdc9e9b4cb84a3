"""huggingface_hub: what it saves and loads of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients import assert_same_files, needs, state_of, with_both
from helpers import assert_same
from torch import Tensor

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def hub() -> Any:
    return needs("huggingface_hub")


class Model(torch.nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(32, width)
        self.hidden = torch.nn.Linear(width, width)
        self.head = torch.nn.Linear(width, 32, bias=False)
        self.head.weight = self.embedding.weight


def make_model(dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(0)
    return Model().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("max_shard_size", ["1GB", "2KB"])
def test_save_torch_model_and_load_torch_model(hub, tmp_path: Path, max_shard_size: str, dtype: torch.dtype) -> None:
    model = make_model(dtype)

    def save_and_load(folder: Path) -> tuple[dict[str, Tensor], Any]:
        hub.save_torch_model(model, folder, max_shard_size=max_shard_size)
        other = Model().to(dtype)
        result = hub.load_torch_model(other, folder, strict=False)
        return state_of(other), [sorted(names) for names in result]

    expected, actual = with_both(save_and_load, tmp_path, {"save_file", "load_file"})
    assert_same_files(tmp_path)
    assert_same(actual[0], expected[0])
    assert_same(actual[0], state_of(model))
    assert actual[1] == expected[1]


@pytest.mark.parametrize("max_shard_size", ["1GB", "2KB"])
def test_save_torch_state_dict(hub, tmp_path: Path, max_shard_size: str) -> None:
    """Of tensors that share memory, and that are not contiguous."""
    state = state_of(make_model()) | {"strided": torch.arange(6.0).view(2, 3).t()}
    state["same"] = state["embedding.weight"]
    with_both(
        lambda folder: hub.save_torch_state_dict(
            dict(state), folder, max_shard_size=max_shard_size, metadata={"origin": "test"}
        ),
        tmp_path,
        {"save_file"},
    )
    assert_same_files(tmp_path)


def test_load_state_dict_from_file(hub, tmp_path: Path) -> None:
    hub.save_torch_model(make_model(), tmp_path)
    load = hub.load_state_dict_from_file
    expected, actual = with_both(lambda _: load(tmp_path / "model.safetensors"), tmp_path, {"load_file", "metadata"})
    assert_same(actual, expected)


def test_the_mixin_for_models(hub, tmp_path: Path) -> None:
    class Mixed(Model, hub.PyTorchModelHubMixin):
        pass

    torch.manual_seed(0)
    model = Mixed(width=8)

    def save_and_load(folder: Path) -> dict[str, Tensor]:
        model.save_pretrained(folder)
        return state_of(Mixed.from_pretrained(folder))

    expected, actual = with_both(save_and_load, tmp_path, {"save_model", "load_model"})
    assert_same(actual, expected)
    assert_same(actual, state_of(model))
    assert_same_files(tmp_path)
