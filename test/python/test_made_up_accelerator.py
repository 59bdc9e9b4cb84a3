"""The Python functions on a device that exists in tests alone: see test/csrc/tensors/fake_device.h."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Worker
from helpers import assert_same, random_tensors
from test_progress import loads_and_saves_with_progress
from test_replace_tensor import replaces_from_device
from test_writer import writes_from_device
from torch.utils.cpp_extension import include_paths, library_paths

from torch_safetensors import load, load_file, load_model, load_tensor, safe_open, save, save_file, save_model

CSRC = Path(__file__).parent.parent / "csrc"
#: PrivateUse1 is torch's name for backends that are not in its tree.
DEVICE = "privateuseone:0"
KIB = 1 << 10


def load_library(path: str) -> None:
    torch.ops.load_library(path)


@pytest.fixture(scope="module")
def made_up(_preload: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A process of its own, since a backend cannot be taken away again."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    library = tmp_path_factory.mktemp("made_up") / "device.so"
    paths = [*(f"-isystem{path}" for path in include_paths()), f"-I{CSRC}", *(f"-L{path}" for path in library_paths())]
    options = ["-std=c++20", "-O0", "-w", "-shared", "-fPIC", "-o", library]
    subprocess.run(
        [compiler, *options, *paths, CSRC / "tensors/fake_device.cpp", "-ltorch_cpu", "-lc10"],
        check=True,
    )
    with contextlib.closing(Worker(_preload)) as worker:
        worker(load_library, str(library))
        yield worker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.safetensors"


def on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    assert all(str(tensor.device) == DEVICE for tensor in tensors.values())
    return {name: tensor.to("cpu") for name, tensor in tensors.items()}


def load_file_object(path: Path) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        return load_file(file, {"large": DEVICE, "": "privateuseone"})


LOADERS: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    "load_file": lambda path: load_file(path, DEVICE),
    "load_file-tuned": lambda path: load_file(path, DEVICE, backend="pread", threads=3, ring_size=16 * KIB),
    "load_file-object": load_file_object,
    "load_file-stream": lambda path: load_file(io.BytesIO(path.read_bytes()), "privateuseone", verify=True),
    "load": lambda path: load(path.read_bytes(), DEVICE),
    "load_tensor": lambda path: {name: load_tensor(path, name, DEVICE) for name in safe_open(path)},
    "get_tensors": lambda path: safe_open(path, device=DEVICE).get_tensors(),
    "prefetch": lambda path: dict(safe_open(path, device=DEVICE).prefetch()),
    "prefetch-tuned": lambda path: dict(
        safe_open(path).prefetch(device=DEVICE, threads=2, buffer_size=1, ring_size=16 * KIB)
    ),
}


def loads(name: str, path: Path) -> None:
    for seed in range(10):
        tensors = random_tensors(seed, 40) | {"large": torch.randn(30_000 + seed)}
        save_file(tensors, path, checksum=True)
        loaded = LOADERS[name](path)
        assert_same(on_cpu(loaded), tensors)
        for tensor in loaded.values():
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
            assert not tensor.untyped_storage().resizable()


@pytest.mark.parametrize("name", LOADERS)
def test_every_way_to_load(made_up: Worker, path: Path, name: str) -> None:
    made_up(loads, name, path)


def saves(path: Path) -> None:
    for seed in range(10):
        tensors = random_tensors(seed, 40) | {"large": torch.randn(30_000 + seed)}
        save_file(tensors, path)
        data = path.read_bytes()
        moved = load_file(path, DEVICE)
        save_file(moved, path)
        assert path.read_bytes() == data
        assert save(moved) == data
        mixed = {name: tensor if index % 3 else tensors[name] for index, (name, tensor) in enumerate(moved.items())}
        assert save(mixed) == data


def test_saves_come_back(made_up: Worker, path: Path) -> None:
    made_up(saves, path)


def fills_models(path: Path) -> None:
    def module(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(300, 70), torch.nn.BatchNorm1d(70), torch.nn.Linear(70, 2))

    source, model = module(1), module(2)
    save_model(model, path)
    model = module(2).to("meta")
    load_model(model, path, device=DEVICE, assign=True)
    addresses = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    save_model(source, path)
    assert load_model(model, path) == ([], [])
    assert_same(on_cpu(dict(model.state_dict())), dict(source.state_dict()))
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == addresses[name]
        assert parameter._version == versions[name] + 1
    torch.ops.safetensors.load_into(str(path), "0.weight", model[0].weight.detach())
    assert_same(on_cpu(dict(model.state_dict())), dict(source.state_dict()))


def test_models_are_filled_in_place(made_up: Worker, path: Path) -> None:
    made_up(fills_models, path)


def slices(path: Path) -> None:
    tensor = torch.arange(60_000).view(300, 200)
    save_file({"m": tensor}, path)
    part = safe_open(path, device=DEVICE).get_slice("m")
    for index in ((slice(5, 70),), (slice(5, 70), slice(3, 9, 2)), (7,), (slice(0, 0),)):
        found = part[index]
        assert str(found.device) == DEVICE
        assert torch.equal(found.to("cpu"), tensor[index])
    rows = safe_open(path).prefetch({"m": slice(-20, None)}, device=DEVICE).take("m")
    assert torch.equal(rows.to("cpu"), tensor[-20:])


def test_parts_of_tensors(made_up: Worker, path: Path) -> None:
    made_up(slices, path)


def loads_in_inference_mode(path: Path) -> None:
    save_file({"a": torch.randn(5), "b": torch.randn(100_000)}, path)
    with torch.inference_mode():
        assert all(tensor.is_inference() for tensor in load_file(path, DEVICE).values())
    assert not any(tensor.is_inference() for tensor in load_file(path, DEVICE).values())


def test_inference_mode(made_up: Worker, path: Path) -> None:
    made_up(loads_in_inference_mode, path)


def wrong_numbers(path: Path) -> None:
    save_file({"a": torch.randn(5)}, path)
    for keyword in ("threads", "ring_size"):
        with pytest.raises(ValueError, match=f"{keyword} must be positive, not 0"):
            load_file(path, DEVICE, **{keyword: 0})


def test_numbers_that_are_not_positive(made_up: Worker, path: Path) -> None:
    made_up(wrong_numbers, path)


@pytest.mark.parametrize("function", [writes_from_device, replaces_from_device, loads_and_saves_with_progress])
def test_what_other_modules_do_on_a_device(made_up: Worker, path: Path, function: Callable[[Path, str], None]) -> None:
    made_up(function, path, DEVICE)
