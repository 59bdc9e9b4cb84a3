"""Nothing needs numpy, which the package does not ask for, but what is asked of it in numpy's own terms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

import torch_safetensors as ts

START = """
import sys, warnings
sys.modules["numpy"] = None
warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # by torch
import torch
try:
    torch.ones(1).numpy()
except RuntimeError as error:
    assert "Numpy is not available" in str(error)
else:
    raise AssertionError
import torch_safetensors as ts
"""

ALONE = """
import io
from torch_safetensors import torch as as_reference
tensors = {"a": torch.arange(24.0).view(4, 6), "b": torch.tensor(3), "h": torch.ones(2, 2, dtype=torch.bfloat16)}

def check(loaded):
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor), name

ts.save_file(tensors, "a.safetensors", checksum=True)
check(ts.load_file("a.safetensors", verify=True))
check(ts.load_file("a.safetensors", backend="pread", progress=lambda done, total: None))
check(ts.load(ts.save(tensors)))
check(ts.load(bytearray(ts.save(tensors)), copy=False))
check(dict(ts.iter_tensors("a.safetensors")))
with open("a.safetensors", "rb") as file:
    check(ts.load_file(file))
check(ts.load_file(io.BytesIO(ts.save(tensors))))
check(as_reference.load_file("a.safetensors"))
assert ts.load_file("a.safetensors", dtype=torch.float64)["a"].dtype == torch.float64
with ts.safe_open("a.safetensors") as file:
    slices = file.get_slice("a")
    assert torch.equal(slices[1:3, ::2], tensors["a"][1:3, ::2])
    assert torch.equal(slices[[0, 2]], tensors["a"][[0, 2]])
    assert torch.equal(file.get_tensor("b"), tensors["b"])
ts.replace_tensor("a.safetensors", "a", tensors["a"])
with ts.Writer("w.safetensors", tensors) as writer:
    for name, tensor in tensors.items():
        writer.write(name, tensor)
check(ts.load_file("w.safetensors"))
with ts.safe_open("a.safetensors") as file, file.prefetch() as loader:
    check(dict(loader))
ts.save_sharded(tensors, "sharded", max_shard_size=50)
check(ts.load_file("sharded"))
model = torch.nn.Linear(3, 2)
ts.save_model(model, "m.safetensors")
assert ts.load_model(torch.nn.Linear(3, 2), "m.safetensors") == ([], [])
"""

REMOTE = """
import fsspec
ts.save_file({"a": torch.arange(24.0)}, "a.safetensors")
with fsspec.open("memory://a.safetensors", "wb") as file, open("a.safetensors", "rb") as local:
    file.write(local.read())
loaded = ts.load_file("memory://a.safetensors", names="a", threads=2)
assert torch.equal(loaded["a"], torch.arange(24.0))
"""

COMMANDS = """
from torch_safetensors._cli import main
ts.save_file({"a": torch.arange(24.0), "b.c": torch.ones(2, 2)}, "a.safetensors", checksum=True)
torch.save({"a": torch.arange(24.0)}, "b.bin")
for line in [
    "info a.safetensors --tree", "info a.safetensors --json", "verify a.safetensors", "convert b.bin b.safetensors",
    "convert a.safetensors a.bin", "split a.safetensors parts --max-shard-size 50B", "merge parts whole.safetensors",
    "rename a.safetensors c.safetensors --map a=d", "extract a.safetensors b.c -o e.safetensors",
]:
    assert main(line.split()) == 0, line
assert main("diff a.safetensors b.safetensors".split()) == 1
"""

RANKS = """
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch_safetensors.distributed import (
    SafetensorsReader, SafetensorsWriter, load_file, load_model, save_file, save_model
)
rank = int(sys.argv[1])
dist.init_process_group("gloo", "file://" + sys.argv[2], world_size=2, rank=rank)
mesh = init_device_mesh("cpu", (2,))
w = torch.arange(24.0).view(4, 6)
save_file({"w": distribute_tensor(w, mesh, [Shard(0)])}, "w.safetensors")
for strategy in "independent", "broadcast", "auto":
    loaded = load_file("w.safetensors", mesh, {"w": Shard(1)}, strategy=strategy)
    assert torch.equal(loaded["w"].to_local(), w[:, 3 * rank :][:, :3])
model = torch.nn.Linear(3, 2)
save_model(model, "m", max_shard_size=10)
assert load_model(torch.nn.Linear(3, 2), "m") == ([], [])
try:
    load_file("w.safetensors" if rank == 0 else "none", mesh)
except FileNotFoundError as error:
    assert error.filename == "none"
else:
    raise AssertionError
warnings.filterwarnings("ignore", "torch.distributed is")
if rank == 0:  # what torch itself tells other ranks goes through numpy
    dcp.save({"w": w}, storage_writer=SafetensorsWriter("dcp"), no_dist=True)
    state = {"w": torch.zeros(4, 6)}
    dcp.load(state, storage_reader=SafetensorsReader("dcp"), no_dist=True)
    assert torch.equal(state["w"], w)
dist.barrier()
dist.destroy_process_group()
"""


def start(code: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    root = str(Path(ts.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", START + code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        output = process.communicate(timeout=200)[0]
        assert process.returncode == 0, output


def test_files_and_buffers(tmp_path: Path) -> None:
    check(start(ALONE, tmp_path))


def test_urls(tmp_path: Path) -> None:
    check(start(REMOTE, tmp_path))


def test_commands(tmp_path: Path) -> None:
    check(start(COMMANDS, tmp_path))


def test_ranks(tmp_path: Path) -> None:
    check(*[start(RANKS, tmp_path, str(rank), str(tmp_path / "store")) for rank in range(2)])
    assert torch.equal(ts.load_file(tmp_path / "w.safetensors")["w"], torch.arange(24.0).view(4, 6))
