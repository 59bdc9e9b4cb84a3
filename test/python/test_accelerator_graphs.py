"""Graphs, packages (in processes of their own), scripts and checkpoints on an accelerator: `pytest -m gpu`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Worker
from helpers import assert_same
from test_aoti import Folded
from torch import Tensor

from torch_safetensors import aoti, iter_tensors, load_file, load_tensor, safe_open, save_file, save_model, save_sharded
from torch_safetensors import ops as operators

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator"),
    pytest.mark.filterwarnings("ignore:::torch"),  # torch's compiler has its own
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    save_file({"w": torch.arange(16.0).view(4, 4), "b": torch.ones(4)}, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


@pytest.fixture(autouse=True)
def _no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class LoadsAndSaves(torch.nn.Module):
    """All tensors, one of them, a save of what lies on the device, and that read again."""

    def __init__(self, path: str, device: torch.device) -> None:
        super().__init__()
        self.path, self.device = path, device

    def forward(self, x: Tensor) -> Tensor:
        tensors = load_file(self.path, self.device)
        y = x @ load_tensor(self.path, "w", self.device) + tensors["b"]
        save_file({"y": y}, self.path + ".saved")
        return y * 2 + load_tensor(self.path, "w", self.device)


def check_steps(step: object, path: str, device: torch.device) -> None:
    module = LoadsAndSaves(path, device)
    for factor in 1, 3:
        save_file({"w": torch.arange(16.0).view(4, 4) * factor, "b": torch.ones(4)}, path)
        x = torch.rand(4, 4, device=device)
        expected = module(x)
        Path(path + ".saved").unlink()
        torch.testing.assert_close(step(x), expected)
        torch.testing.assert_close(
            load_file(path + ".saved", device)["y"], (expected - load_tensor(path, "w", device)) / 2
        )


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled(path: str, device: torch.device, backend: str) -> None:
    check_steps(torch.compile(LoadsAndSaves(path, device), backend=backend, fullgraph=True), path, device)


def exports_and_packages(path: str, device: torch.device) -> None:
    program = torch.export.export(LoadsAndSaves(path, device), (torch.rand(4, 4, device=device),), strict=True)
    check_steps(program.module(), path, device)
    file = torch._inductor.aoti_compile_and_package(program, package_path=path + ".pt2")
    check_steps(torch._inductor.aoti_load_package(file), path, device)


def test_exported_and_packaged(path: str, device: torch.device, worker: Worker) -> None:
    worker(exports_and_packages, path, device, timeout=300)


TORCH_ALONE = """
import sys, torch
file, device = sys.argv[1:]
model, x = torch.nn.Linear(4, 4).to(device).eval(), torch.rand(2, 4, device=device)
torch._inductor.aoti_compile_and_package(torch.export.export(model, (x,)), package_path=file)
torch.testing.assert_close(torch._inductor.aoti_load_package(file)(x), model(x))
assert not any("safetensors" in name for name in sys.modules)
"""


def test_a_package_of_torch_alone(device: torch.device, tmp_path: Path) -> None:
    """If this dies, the deaths of the other tests of packages say nothing about us."""
    command = [sys.executable, "-X", "faulthandler", "-c", TORCH_ALONE, tmp_path / "alone.pt2", str(device)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


class Scripted(torch.nn.Module):
    def __init__(self, path: str, device: torch.device) -> None:
        super().__init__()
        self.path, self.device = path, device
        self.file = torch.classes.safetensors.SafeOpen(path, device)

    def forward(self, out: Tensor) -> Tensor:
        self.file.prefetch(["w"])
        self.file.load_into(["w"], [out])
        rows = self.file.get_slice("w", 0, 1, 3)
        torch.ops.safetensors.save_file({"rows": rows}, self.path + ".saved")
        return torch.ops.safetensors.load_file(self.path, self.device)["w"] + self.file.get_tensor("b") + rows.sum()


def test_scripted(path: str, device: torch.device, tmp_path: Path) -> None:
    torch.jit.script(Scripted(path, device)).save(tmp_path / "scripted.pt")
    w = torch.arange(16.0, device=device).view(4, 4)
    out = torch.zeros(4, 4, device=device)
    loaded = torch.jit.load(tmp_path / "scripted.pt")(out)
    assert torch.equal(out, w)
    assert torch.equal(loaded, w + 1 + w[1:3].sum())
    assert torch.equal(load_tensor(path + ".saved", "rows", device), w[1:3])


class Tied(torch.nn.Module):
    """A tie, a large weight, and a constant that comes with the package."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = torch.nn.Linear(64, 64)
        self.decoder = torch.nn.Linear(64, 64)
        self.decoder.weight = self.encoder.weight
        self.wide = torch.nn.Parameter(torch.rand(64, 65_536))
        self.register_buffer("mask", torch.arange(64.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.decoder(self.encoder(x).relu()) * self.mask @ self.wide).sum(1)


def packages_and_swaps(folder: Path, device: torch.device) -> None:
    models = [Tied(seed).to(device).eval().requires_grad_(False) for seed in (1, 2)]
    files = [folder / f"{i}.safetensors" for i in range(2)]
    x = torch.linspace(0, 1, 192, device=device).view(3, 64)

    def expect(packaged: aoti.Model, i: int) -> None:
        torch.testing.assert_close(packaged(x), models[i](x), rtol=1e-3, atol=1e-3)

    aoti.package(torch.export.export(models[0], (x,)), folder / "model.pt2", weights=files[0])
    save_model(models[1], files[1])
    packaged = aoti.load(folder / "model.pt2", files[0], device)
    for in_place in False, True:
        for i in 0, 1:
            packaged.swap(files[i], in_place=in_place)
            expect(packaged, i)
    expect(aoti.load(folder / "model.pt2", files[1]), 1)


def test_packages_with_weights_in_a_file(device: torch.device, tmp_path: Path, worker: Worker) -> None:
    worker(packages_and_swaps, tmp_path, device, timeout=300)


def swaps_while_others_run(folder: Path, device: torch.device) -> None:
    program = torch.export.export(Folded().eval().requires_grad_(False).to(device), (torch.ones(2, 8, device=device),))
    files = [folder / f"{i}.safetensors" for i in range(4)]
    configs = {"aot_inductor.use_runtime_constant_folding": True}
    aoti.package(program, folder / "folded.pt2", weights=files[0], inductor_configs=configs)
    for i, file in enumerate(files):
        save_file({"left": torch.full((8, 8), i + 1.0), "right": torch.ones(8, 8)}, file)
    model = aoti.load(folder / "folded.pt2", files[0], device, runners=2)
    x, stop, seen = torch.ones(2, 8, device=device), threading.Event(), set()

    def run() -> None:
        while not stop.is_set():
            seen.add(tuple(model(x).unique().tolist()))

    runners = [threading.Thread(target=run) for _ in range(2)]
    for runner in runners:
        runner.start()
    try:
        for i in range(200):
            model.swap(files[i % 4])
    finally:
        stop.set()
        for runner in runners:
            runner.join()
    assert seen <= {(64.0 * (i + 1),) for i in range(4)}, "an answer mixes two files"
    assert model(x).unique().tolist() == [256.0]


def test_weights_are_exchanged_while_others_run(device: torch.device, tmp_path: Path, worker: Worker) -> None:
    worker(swaps_while_others_run, tmp_path, device, timeout=300)


def test_parts_of_checkpoints(device: torch.device, tmp_path: Path) -> None:
    tensors = {f"{i}.{name}": torch.randn(shape) for i in range(4) for name, shape in (("w", (512, 300)), ("b", (7,)))}
    save_sharded({name: tensor.to(device) for name, tensor in tensors.items()}, tmp_path, max_shard_size="700KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    back = {name: tensor.cpu() for name, tensor in load_file(tmp_path, device, verify=False).items()}
    assert_same(back, tensors)

    chosen = load_file(tmp_path, {"0": device, "1": "cpu", "": device}, names=["0.*", "1.*"], dtype=torch.bfloat16)
    assert sorted(chosen) == ["0.b", "0.w", "1.b", "1.w"]
    for name, tensor in chosen.items():
        assert tensor.device == (device if name.startswith("0.") else torch.device("cpu"))
        assert torch.equal(tensor.cpu(), tensors[name].bfloat16())
    assert_same({name: tensor.cpu() for name, tensor in iter_tensors(tmp_path, device)}, tensors)


def test_slices(path: str, device: torch.device) -> None:
    w = torch.arange(16.0).view(4, 4)
    part = safe_open(path, device=device).get_slice("w")
    for index in ((slice(1, 3),), (slice(1, 3), slice(0, 4, 2)), (2,), (slice(0, 0),), (slice(None), 1)):
        found = part[index]
        assert found.device == device
        assert torch.equal(found.cpu(), w[index])
    with safe_open(path).prefetch({"w": slice(2, 4)}, device=device) as loader:
        assert torch.equal(loader.take("w").cpu(), w[2:4])


def test_verified(path: str, device: torch.device) -> None:
    tensors = {"large": torch.randn(300_000), "small": torch.ones(3)}
    save_file({name: tensor.to(device) for name, tensor in tensors.items()}, path, checksum=True)
    assert_same({name: tensor.cpu() for name, tensor in load_file(path, device, verify=True).items()}, tensors)
    assert torch.equal(operators.load_tensor(path, "large", device, verify=True).cpu(), tensors["large"])
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(-9, 2)
        file.write(b"\x01")
    with pytest.raises(RuntimeError, match="checksum"):
        load_file(path, device, verify=True)
