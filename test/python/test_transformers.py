"""A real model: what load_model makes of it is what transformers' own from_pretrained makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import torch_safetensors as ts

FOLDER = Path(__file__).resolve().parents[2] / "build/model"
FILE = FOLDER / "model.safetensors"

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no real model: scripts/fetch_model.py"),
]


@pytest.fixture(scope="module")
def bert():
    """The class; transformers reads the environment when it is imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    return pytest.importorskip("transformers").BertModel


@pytest.fixture(scope="module")
def config(bert):
    return bert.config_class.from_json_file(FOLDER / "config.json")


@pytest.fixture(scope="module")
def expected(bert) -> torch.nn.Module:
    return bert.from_pretrained(FOLDER).eval()


@torch.no_grad()
def hidden_states(model: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """Of a batch of two sentences, one shorter than the other."""
    tokens = torch.tensor([[101, 7592, 2088, 999, 102], [101, 2748, 102, 0, 0]])
    mask = (tokens != 0).long()
    return model.eval()(tokens, attention_mask=mask, output_hidden_states=True).hidden_states


def check(model: torch.nn.Module, expected: torch.nn.Module) -> None:
    actual, wanted = hidden_states(model), hidden_states(expected)
    assert len(actual) == 7
    assert all(torch.equal(a, w) for a, w in zip(actual, wanted, strict=True))


@pytest.mark.parametrize("backend", ["auto", "mmap", "pread"])
def test_load_model_fills_it_as_from_pretrained_does(bert, config, expected, backend: str) -> None:
    model = bert(config)
    missing, unexpected = ts.load_model(model, FILE, strict=False, backend=backend)
    assert (missing, unexpected) == ([], ["embeddings.position_ids"])  # older versions saved that buffer
    check(model, expected)


def test_assign_fills_one_on_meta(bert, config, expected) -> None:
    with torch.device("meta"):
        model = bert(config)
    assert ts.load_model(model, FILE, strict=False, assign=True)[0] == []
    assert not any(parameter.is_meta for parameter in model.parameters())
    # Buffers that are not persistent are in no file: these are the model's to compute.
    for name, buffer in expected.named_buffers():
        owner, _, short = name.rpartition(".")
        model.get_submodule(owner).register_buffer(short, buffer.clone(), persistent=False)
    check(model, expected)


def test_save_model_and_from_pretrained_go_together(bert, config, expected, tmp_path: Path) -> None:
    ts.save_model(expected, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((FOLDER / "config.json").read_text())
    check(bert.from_pretrained(tmp_path), expected)
    model = bert(config)
    assert ts.load_model(model, tmp_path / "model.safetensors") == ([], [])
    check(model, expected)


def test_save_model_writes_the_bytes_of_the_reference(expected, tmp_path: Path) -> None:
    reference = pytest.importorskip("safetensors.torch")
    ts.save_model(expected, tmp_path / "ours", {"format": "pt"})
    reference.save_model(expected, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_masked_language_model_keeps_its_tie(config, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(config)
    ts.save_model(model, tmp_path / "m", {"format": "pt"})
    assert len(ts.load_file(tmp_path / "m")) < len(model.state_dict())
    other = transformers.BertForMaskedLM(config)
    assert ts.load_model(other, tmp_path / "m") == ([], [])
    assert other.cls.predictions.decoder.weight is other.bert.embeddings.word_embeddings.weight
    check(other, model)


def test_save_file_of_the_whole_model_equals_the_original_tensors() -> None:
    reference = pytest.importorskip("safetensors.torch")
    ours, theirs = ts.load_file(FILE), reference.load_file(FILE)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
