"""What needs an accelerator: `pytest -m gpu`. test/csrc runs the same code without one, on a device made up there."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import assert_same, random_tensors
from test_progress import loads_and_saves_with_progress
from test_replace_tensor import replaces_from_device
from test_writer import writes_from_device

import torch_safetensors
from torch_safetensors import load, load_file, load_model, safe_open, save_file, save_model

MIB = 1 << 20

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.safetensors"


def save(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    save_file(tensors, path)
    return tensors


def model_like(layers: int = 8) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.{name}": torch.randn(shape)
        for layer in range(layers)
        for name, shape in {"weight": (1024, 1500), "bias": (1024,), "norm": (1500,), "scale": ()}.items()
    }


def on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def keep_busy(device: torch.device) -> None:
    """Tens of milliseconds of work for the current stream."""
    a = torch.randn(4096, 4096, device=device)
    for _ in range(20):
        a = a @ a


LOADERS: dict[str, Callable[[Path, torch.device], dict[str, torch.Tensor]]] = {
    "load_file": lambda path, device: load_file(path, device),
    "one-thread": lambda path, device: load_file(path, device, threads=1, ring_size=MIB),
    "pread": lambda path, device: load_file(path, device, backend="pread"),
    "load": lambda path, device: load(path.read_bytes(), device),
    "get_tensors": lambda path, device: safe_open(path, device=device).get_tensors(),
    "prefetch": lambda path, device: dict(safe_open(path).prefetch(device=device)),
    "prefetch-small-buffer": lambda path, device: dict(safe_open(path).prefetch(device=device, buffer_size=1)),
    "take": lambda path, device: (lambda loader: {name: loader.take(name) for name in reversed(loader.names())})(
        safe_open(path, device=device).prefetch()
    ),
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS.keys())
def test_every_way_to_load(path: Path, device: torch.device, loader: Callable[..., dict[str, torch.Tensor]]) -> None:
    for seed in range(5):
        tensors = save(path, random_tensors(seed, 40))
        loaded = loader(path, device)
        assert all(tensor.device == device for tensor in loaded.values())
        assert_same(on_cpu(loaded), tensors)
    tensors = save(path, model_like())
    assert_same(on_cpu(loader(path, device)), tensors)


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS.keys())
def test_a_busy_stream_before_and_a_consumer_right_after(
    path: Path, device: torch.device, loader: Callable[..., dict[str, torch.Tensor]]
) -> None:
    tensors = save(path, model_like())
    for _ in range(5):
        with torch.Stream(device):
            keep_busy(device)
            # Memory that is handed out again while the stream still has it to write.
            scratch = [torch.empty(1024, 1500, device=device) for _ in range(8)]
            keep_busy(device)
            for tensor in scratch:
                tensor.fill_(float("nan"))
            del scratch, tensor
            sums = {name: tensor.double().sum() for name, tensor in loader(path, device).items()}
            results = {name: value.item() for name, value in sums.items()}
        for name, tensor in tensors.items():
            assert results[name] == pytest.approx(tensor.double().sum().item(), abs=1e-6), name


def test_twenty_thousand_small_tensors_and_their_memory(path: Path, device: torch.device) -> None:
    tensors = save(path, {f"t{i}": torch.full((250,), i, dtype=torch.int32) for i in range(20_000)})
    gc.collect()
    before = torch.accelerator.memory_allocated()
    loaded = load_file(path, device)
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    used = torch.accelerator.memory_allocated() - before
    assert nbytes <= used <= nbytes * 1.05
    assert_same(on_cpu(loaded), tensors)
    last = loaded.pop("t19999")
    del loaded
    gc.collect()
    assert torch.accelerator.memory_allocated() - before <= 4 * MIB + 512
    assert int(last[0]) == 19_999
    del last
    assert torch.accelerator.memory_allocated() == before


def test_a_prefetch_gives_its_memory_back(path: Path, device: torch.device) -> None:
    save(path, model_like())
    gc.collect()
    before = torch.accelerator.memory_allocated()
    loader = safe_open(path).prefetch(device=device, buffer_size=16 * MIB)
    taken = loader.take("3.weight")
    loader.close()
    assert torch.accelerator.memory_allocated() - before == taken.nbytes
    del taken
    assert torch.accelerator.memory_allocated() == before


def test_save_comes_back(path: Path, device: torch.device, tmp_path: Path) -> None:
    tensors = model_like() | {"lazy": torch.randn(300, dtype=torch.complex64).conj()}
    save(path, tensors)
    with torch.Stream(device):
        keep_busy(device)
        moved = {name: tensor.to(device) for name, tensor in tensors.items()}
        save_file(moved, tmp_path / "saved")
        in_memory = torch_safetensors.save(moved)
    assert (tmp_path / "saved").read_bytes() == path.read_bytes() == in_memory


def test_load_into_and_load_model(path: Path, device: torch.device) -> None:
    source = torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True)
    save_model(source, path)
    model = torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True).to(device)
    addresses = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    keep_busy(device)
    assert load_model(model, path) == ([], [])
    assert_same(on_cpu(model.state_dict()), dict(source.state_dict()))
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == addresses[name]
        assert parameter._version == versions[name] + 1
    out = torch.empty_like(model.linear1.weight)
    torch.ops.safetensors.load_into(str(path), "linear1.weight", out)
    assert torch.equal(out, model.linear1.weight)


def test_inference_mode(path: Path, device: torch.device) -> None:
    tensors = save(path, model_like(1))
    with torch.inference_mode():
        loaded = load_file(path, device)
        assert all(tensor.is_inference() for tensor in loaded.values())
    assert_same(on_cpu(loaded), tensors)


@pytest.mark.parametrize("function", [writes_from_device, replaces_from_device, loads_and_saves_with_progress])
def test_what_a_made_up_device_can_do(device: torch.device, path: Path, function: Callable[[Path, str], None]) -> None:
    function(path, str(device))
