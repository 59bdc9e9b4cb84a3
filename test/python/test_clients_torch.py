"""torch's own use of the reference: checkpoints of torch.distributed in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from clients import with_both
from helpers import assert_same
from torch import Tensor

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is (disabled|unavailable):UserWarning")


def tensors() -> dict[str, Tensor]:
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4).to(torch.bfloat16), "c": torch.tensor([1.0, 2.0])}


def save_and_load(folder: Path, options: dict[str, Any]) -> dict[str, Tensor]:
    dcp.save(tensors(), storage_writer=dcp.HuggingFaceStorageWriter(str(folder), **options), no_dist=True)
    state = {name: torch.zeros_like(tensor) for name, tensor in tensors().items()}
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    return state


@pytest.mark.parametrize(
    "options",
    [{"fqn_to_index_mapping": {"a": 1, "b": 1, "c": 2}}, {"save_distributed": True, "enable_consolidation": True}],
    ids=["two files", "consolidated"],
)
def test_distributed_checkpoints(tmp_path: Path, options: dict[str, Any]) -> None:
    expected, actual = with_both(
        lambda folder: save_and_load(folder, options), tmp_path, {"save", "get_slice", "get_shape"}
    )
    assert_same(actual, expected)
    assert_same(actual, tensors())
