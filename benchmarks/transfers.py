"""How fast tensors get to an accelerator and back, and what the settings change: ``python -m benchmarks.transfers``.

One large tensor, and 20,000 that take a quarter of its bytes, in files of FOLDER (/dev/shm): loaded in several ways by
this package and by the reference, saved, and filled into a model; with rings and threads of several sizes; and the
first load of a process. The ways of a table take turns, and the device's memory is given back before each.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import torch_safetensors

from .report import table

COUNT = 20_000
RINGS = (16, 32, 64, 96, 256)
THREADS = (8, 16)

Ways = dict[str, Callable[[], Any]]


def seconds(action: Callable[[], Any], device: torch.device) -> float:
    on_gpu = device.type == "cuda"
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    result = action()
    if on_gpu:
        torch.cuda.synchronize(device)
    elapsed = time.perf_counter() - begin
    del result
    return elapsed


def compare(title: str, nbytes: int, ways: Ways, device: torch.device, rounds: int) -> None:
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, action in ways.items():
            elapsed = seconds(action, device)
            if turn > 0:  # the first warms up
                samples[name].append(elapsed)
    rows = []
    for name, times in samples.items():
        median = statistics.median(times)
        rows.append([name, f"{median * 1e3:.1f} ms", f"{min(times) * 1e3:.1f} ms", f"{nbytes / median / 1e9:.2f}"])
    print(
        f"\n{title}, {nbytes / 2**20:,.0f} MiB\n\n{table(['way', 'median', 'best', 'GB/s'], rows, markdown=True)}",
        flush=True,
    )


def moved(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def loads(path: Path, device: torch.device) -> Ways:
    ours, reference = torch_safetensors, safetensors.torch
    return {
        "ours, to the device": lambda: ours.load_file(path, device),
        "ours, prefetch": lambda: dict(ours.safe_open(path).prefetch(device=device)),
        "ours, to the CPU, then .to": lambda: moved(ours.load_file(path), device),
        "reference, to the device": lambda: reference.load_file(path, device=str(device)),
        "reference, to the CPU, then .to": lambda: moved(reference.load_file(path), device),
    }


def pinned_copies(nbytes: int, device: torch.device) -> Ways:
    block = min(nbytes, 256 << 20)
    source = torch.ones(block, dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty(block, dtype=torch.uint8, device=device)
    copies = nbytes // block
    return {"copies of pinned memory": lambda: [target.copy_(source, non_blocking=True) for _ in range(copies)]}


def saves(path: Path, device: torch.device) -> Ways:
    tensors, target = torch_safetensors.load_file(path, device), path.with_name("saved")
    return {
        "ours": lambda: torch_safetensors.save_file(tensors, target),
        "reference": lambda: safetensors.torch.save_file(tensors, target),
    }


def settings(path: Path, device: torch.device) -> Ways:
    def load(ring: int, threads: int) -> Callable[[], Any]:
        return lambda: torch_safetensors.load_file(path, device, threads=threads, ring_size=ring << 20)

    return {f"ring {ring} MiB, {threads} threads": load(ring, threads) for ring in RINGS for threads in THREADS}


def models(path: Path, nbytes: int, device: torch.device) -> Ways:
    layers = [torch.nn.Linear(4096, nbytes // 8 // 4096 // 4, bias=False, device=device) for _ in range(8)]
    model, target = torch.nn.Sequential(*layers), path.with_name("model")
    torch_safetensors.save_model(model, target)
    return {
        "ours": lambda: torch_safetensors.load_model(model, target),
        "reference": lambda: safetensors.torch.load_model(model, target),
    }


def first_load(module: str, path: Path, device: torch.device) -> str:
    wait = "torch.cuda.synchronize()" if device.type == "cuda" else "pass"
    code = f"""
import time, torch, {module} as module
torch.zeros(1, device="{device}")
begin = time.perf_counter()
tensors = module.load_file({str(path)!r}, device="{device}")
{wait}
print(f"{{(time.perf_counter() - begin) * 1e3:.1f}} ms")
"""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda:0"))
    parser.add_argument("--megabytes", type=int, default=4096, help="MiB of the large tensor")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    device, nbytes, rounds = options.device, options.megabytes << 20, options.rounds
    with tempfile.TemporaryDirectory(prefix="transfers-", dir=options.folder) as folder:
        large, many = Path(folder, "large"), Path(folder, "many")
        torch_safetensors.save_file({"weight": torch.ones(nbytes // 4)}, large)
        small = torch.ones(nbytes // 4 // COUNT // 2, dtype=torch.bfloat16)
        torch_safetensors.save_file({f"{i:05}": small.clone() for i in range(COUNT)}, many)

        compare("One tensor", nbytes, loads(large, device) | pinned_copies(nbytes, device), device, rounds)
        compare("Its save", nbytes, saves(large, device), device, rounds)
        compare("Settings", nbytes, settings(large, device), device, rounds)
        compare(f"{COUNT:,} tensors", many.stat().st_size, loads(many, device), device, rounds)
        compare("Their save", many.stat().st_size, saves(many, device), device, rounds)
        compare("load_model", nbytes // 2, models(large, nbytes // 2, device), device, rounds)
        firsts = [[name, first_load(name, large, device)] for name in ("torch_safetensors", "safetensors.torch")]
        print(f"\nThe first load of a process\n\n{table(['package', 'time'], firsts, markdown=True)}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(f"\n{name}, {os.cpu_count()} cores, torch {torch.__version__}")


if __name__ == "__main__":
    main()
