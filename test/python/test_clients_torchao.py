"""torchao: quantized tensors, flattened into plain ones and their description in the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients import needs, with_both
from torch import Tensor

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def torchao() -> Any:
    return needs("torchao")


@pytest.mark.parametrize("name", ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig"])
def test_quantized_weights(torchao, tmp_path: Path, name: str) -> None:
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict, unflatten_tensor_state_dict
    from torchao.quantization import quantize_

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, 16))
    quantize_(model, getattr(torchao.quantization, name)(version=2))

    def save_and_load(folder: Path) -> dict[str, Tensor]:
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        tensors, metadata = flatten_tensor_state_dict(model.state_dict())
        save_file(tensors, folder / "model.safetensors", metadata=metadata)
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            metadata = file.metadata()
        state, left = unflatten_tensor_state_dict(load_file(folder / "model.safetensors"), metadata)
        assert not left
        return state

    expected, actual = with_both(save_and_load, tmp_path, {"save_file", "load_file", "metadata"})
    x = torch.randn(4, 32)
    with torch.no_grad():
        wanted = model(x)
        for state in expected, actual:
            other = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, 16))
            other.load_state_dict(state, assign=True)
            assert type(other[0].weight) is type(model[0].weight)
            assert torch.equal(other(x), wanted)
