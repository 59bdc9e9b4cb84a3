"""transformers: save_pretrained and from_pretrained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients import assert_same_files, needs, state_of, with_both
from helpers import assert_same

import torch_safetensors as ts

pytestmark = pytest.mark.clients

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return needs("transformers")


def llama(transformers: Any, tied: bool, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=tied)
    return transformers.LlamaForCausalLM(config).to(dtype)


def gpt2(transformers: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config)


def save_and_load(model: Any, folder: Path, max_shard_size: str) -> torch.nn.Module:
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return type(model).from_pretrained(folder, dtype="auto")


def check(model: torch.nn.Module, folder: Path, max_shard_size: str = "1GB", at_least: int = 1) -> torch.nn.Module:
    """Returns what this package has loaded."""
    expected, actual = with_both(
        lambda where: save_and_load(model, where, max_shard_size), folder, {"save_file", "get_slice"}
    )
    assert_same_files(folder, at_least)
    assert_same(state_of(actual), state_of(expected))
    assert_same(state_of(actual), state_of(model))
    return actual


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_save_and_from_pretrained(transformers, dtype: torch.dtype, max_shard_size: str, tmp_path: Path) -> None:
    check(llama(transformers, False, dtype), tmp_path, max_shard_size, at_least=3 if max_shard_size == "20KB" else 1)


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_tied_weights_stay_tied(transformers, name: str, max_shard_size: str, tmp_path: Path) -> None:
    model = llama(transformers, True) if name == "llama" else gpt2(transformers)
    loaded: Any = check(model, tmp_path, max_shard_size)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight


def test_it_loads_what_save_sharded_writes(transformers, tmp_path: Path) -> None:
    model = llama(transformers, True)
    model.config.save_pretrained(tmp_path)
    ts.save_sharded(model, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert_same(state_of(type(model).from_pretrained(tmp_path)), state_of(model))


def test_its_own_loader_of_files(transformers, tmp_path: Path) -> None:
    """On the CPU, on meta, and read whole, as it does on some network mounts."""
    load_state_dict = transformers.modeling_utils.load_state_dict
    ts.save_file(state_of(llama(transformers, False, torch.bfloat16)), tmp_path / "model.safetensors")
    path = str(tmp_path / "model.safetensors")
    for options in {}, {"disable_mmap": True}:
        expected, actual = load_state_dict(path, **options), ts.load_file(path)
        assert_same(actual, expected)
    (tmp_path / "meta").mkdir()
    expected, actual = with_both(lambda _: load_state_dict(path, "meta"), tmp_path / "meta", {"get_shape", "get_dtype"})
    assert {n: (t.shape, t.dtype, t.device) for n, t in actual.items()} == {
        n: (t.shape, t.dtype, t.device) for n, t in expected.items()
    }
