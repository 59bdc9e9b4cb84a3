"""PEFT: adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clients import assert_same_files, needs, with_both
from helpers import assert_same
from test_clients_transformers import llama

pytestmark = [
    pytest.mark.clients,
    # What it asks of transformers.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def peft() -> Any:
    needs("transformers")
    return needs("peft")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_lora_adapter(peft, tmp_path: Path, dtype: torch.dtype) -> None:
    import transformers

    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(llama(transformers, True, dtype), config, autocast_adapter_dtype=False)

    def save_and_load(folder: Path) -> dict[str, torch.Tensor]:
        model.save_pretrained(folder)
        return peft.get_peft_model_state_dict(
            peft.PeftModel.from_pretrained(llama(transformers, True, dtype), folder, autocast_adapter_dtype=False)
        )

    expected, actual = with_both(save_and_load, tmp_path, {"save_file", "load_file"})
    assert_same(actual, expected)
    assert_same(actual, peft.get_peft_model_state_dict(model))
    assert_same_files(tmp_path)
