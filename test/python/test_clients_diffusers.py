"""diffusers: save_pretrained and from_pretrained of its models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients import assert_same_files, needs, state_of, with_both
from helpers import assert_same

pytestmark = pytest.mark.clients

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}
AUTOENCODER = {"block_out_channels": (8,), "norm_num_groups": 4, "sample_size": 8}


@pytest.fixture(scope="module")
def diffusers() -> Any:
    return needs("diffusers")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("max_shard_size", ["10GB", "10KB"])
@pytest.mark.parametrize(("name", "config"), [("UNet2DModel", UNET), ("AutoencoderKL", AUTOENCODER)])
def test_save_and_from_pretrained(
    diffusers, tmp_path: Path, name: str, config: dict[str, Any], max_shard_size: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    model = getattr(diffusers, name)(**config).to(dtype)

    def save_and_load(folder: Path) -> torch.nn.Module:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        return type(model).from_pretrained(folder, torch_dtype=dtype)

    reaches = {"save_file", "load_file"} if max_shard_size == "10GB" else {"save_file"}
    expected, actual = with_both(save_and_load, tmp_path, reaches)
    assert_same_files(tmp_path, at_least=1 if max_shard_size == "10GB" else 2)
    assert_same(state_of(actual), state_of(expected))
    assert_same(state_of(actual), state_of(model))
