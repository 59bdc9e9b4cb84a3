"""accelerate: checkpoints dispatched to devices and the disk, and what it saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from clients import assert_same_files, needs, state_of, with_both
from helpers import assert_same
from torch import Tensor

import torch_safetensors as ts

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def accelerate() -> Any:
    return needs("accelerate")


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8), torch.nn.BatchNorm1d(8)
    )


@pytest.fixture(params=["one file", "shards"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    ts.save_sharded(
        make_model(), tmp_path / "checkpoint", max_shard_size="1GB" if request.param == "one file" else 1500
    )
    return tmp_path / "checkpoint"


@torch.no_grad()
def answer(model: torch.nn.Module) -> Tensor:
    return model.eval()(torch.linspace(-1, 1, 32).view(2, 16))


PLACES = {
    "cpu": {"": "cpu"},
    "disk": {"0": "cpu", "1": "cpu", "2": "disk", "3": "disk"},
}


@pytest.mark.parametrize("dtype", [None, torch.float16], ids=["as it is", "float16"])
@pytest.mark.parametrize("where", PLACES)
def test_load_checkpoint_and_dispatch(
    accelerate, checkpoint: Path, tmp_path: Path, where: str, dtype: torch.dtype | None
) -> None:
    def load(folder: Path) -> tuple[torch.nn.Module, dict[str, Tensor]]:
        with accelerate.init_empty_weights():
            model = make_model()
        accelerate.load_checkpoint_and_dispatch(
            model, checkpoint, device_map=PLACES[where], offload_folder=folder / "offload", dtype=dtype
        )
        return model, {name: t for name, t in model.state_dict().items() if not t.is_meta}

    expected, actual = with_both(load, tmp_path, {"load_file"} if where == "cpu" else {"get_tensor"})
    assert_same(actual[1], expected[1])
    assert len(actual[1]) == (9 if where == "cpu" else 5)
    if dtype is None:
        assert torch.equal(answer(actual[0]), answer(make_model()))
    assert (tmp_path / "ours/offload").exists() == (where == "disk")


def test_offloaded_weights_of_a_file(accelerate, tmp_path: Path) -> None:
    """Its hooks read each weight from the file whenever it is used."""
    ts.save_model(make_model(), tmp_path / "model.safetensors")
    index = {
        name: {"safetensors_file": str(tmp_path / "model.safetensors"), "weight_name": name, "dtype": "float32"}
        for name in ts.safe_open(tmp_path / "model.safetensors").keys()  # noqa: SIM118
        if not name.endswith("num_batches_tracked")
    }

    def compute(folder: Path) -> Tensor:
        (folder / "index.json").write_text(json.dumps(index))
        with accelerate.init_empty_weights(include_buffers=False):
            model = make_model()
        weights = accelerate.utils.OffloadedWeightsLoader(save_folder=folder)
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"), state_dict=weights)
        return answer(model)

    expected, actual = with_both(compute, tmp_path, {"get_tensor"})
    assert torch.equal(actual, expected)
    assert torch.equal(actual, answer(make_model()))


def test_disk_offload_of_what_was_loaded(accelerate, tmp_path: Path) -> None:
    ts.save_model(make_model(), tmp_path / "model.safetensors")

    def compute(folder: Path) -> Tensor:
        import safetensors.torch

        model = make_model()
        safetensors.torch.load_model(model, tmp_path / "model.safetensors")
        accelerate.disk_offload(model, folder / "offload")
        return answer(model)

    expected, actual = with_both(compute, tmp_path, {"load_model"})
    assert torch.equal(actual, expected)
    assert_same_files(tmp_path, at_least=0)


@pytest.mark.parametrize("max_shard_size", ["1GB", "2KB"])
def test_save_model(accelerate, tmp_path: Path, max_shard_size: str) -> None:
    model = make_model()
    accelerator = accelerate.Accelerator(cpu=True)
    with_both(
        lambda folder: accelerator.save_model(model, folder, max_shard_size=max_shard_size), tmp_path, {"save_file"}
    )
    assert_same_files(tmp_path, at_least=1 if max_shard_size == "1GB" else 2)


def test_save_state_and_load_state(accelerate, tmp_path: Path) -> None:
    def save_and_load(folder: Path) -> dict[str, Tensor]:
        accelerator = accelerate.Accelerator(cpu=True)
        model = accelerator.prepare(make_model())
        accelerator.save_state(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        accelerator.load_state(folder)
        return state_of(model)

    expected, actual = with_both(save_and_load, tmp_path, {"save_file", "load_model"})
    assert_same(actual, expected)
    assert_same(actual, state_of(make_model()))
