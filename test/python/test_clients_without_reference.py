"""Packages that need ``safetensors`` work where it is not installed, in an unchanged script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clients import needs, state_of
from helpers import assert_same
from test_clients_transformers import llama
from without_reference import link_packages

import torch_safetensors as ts

pytestmark = pytest.mark.clients

SCRIPT = """
import importlib.metadata, os, sys

import torch
import transformers, accelerate, diffusers, huggingface_hub

import safetensors
assert safetensors.safe_open.__module__.startswith("torch_safetensors."), safetensors.safe_open
assert importlib.metadata.version("safetensors") == "0.8.0"
assert diffusers.utils.is_safetensors_available()

torch.manual_seed(0)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(sys.argv[1]))
model.save_pretrained("one")
model.save_pretrained("shards", max_shard_size="20KB")
for folder in "one", "shards":
    again = transformers.AutoModelForCausalLM.from_pretrained(folder, device_map={"": "cpu"})
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
os.mkdir("hub")
huggingface_hub.save_torch_model(model, "hub")
print(huggingface_hub.load_torch_model(again, "hub", strict=False))
vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
vae.save_pretrained("vae")
diffusers.AutoencoderKL.from_pretrained("vae")
"""


def test_a_script(tmp_path: Path) -> None:
    transformers = needs("transformers")
    for package in "accelerate", "diffusers":
        needs(package)
    model = llama(transformers, True)
    model.config.save_pretrained(tmp_path / "config")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "packages").mkdir()
    path = [Path(ts.__file__).parent.parent, link_packages(tmp_path / "packages")]
    done = subprocess.run(
        [sys.executable, "-S", "-m", "torch_safetensors", "run", "script.py", "config"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    expected = {name: tensor for name, tensor in state_of(model).items() if name != "lm_head.weight"}
    for folder in "one", "shards":
        assert_same(ts.load_file(tmp_path / folder), expected)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
