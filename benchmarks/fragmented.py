"""Loads a gigabyte of bytes while memory is in pieces: huge pages are dear or not to be had then.

``python -m benchmarks.fragmented`` takes nearly all free memory, a page at a time, and gives every other page back.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import torch

#: What is left in one piece: enough for the interpreters that are measured.
LEFT = 1 << 30
ROUNDS = 5
LOAD = """
import ctypes, io, sys, time
from {package} import load
data = sys.stdin.buffer.read()
for _ in range({rounds}):
    ctypes.CDLL(None).malloc_trim(0)
    start = time.perf_counter()
    tensors = load(data)
    print(f"{{(time.perf_counter() - start) * 1e3:.0f}}", end=" ")
    del tensors
"""


def measure(when: str, data: bytes) -> None:
    for package in ("torch_safetensors", "safetensors.torch") * 2:
        code = LOAD.format(package=package, rounds=ROUNDS)
        done = subprocess.run([sys.executable, "-c", code], input=data, stdout=subprocess.PIPE, check=True)
        print(f"{when:10} {package:17} {done.stdout.decode()} ms")


def hold_every_other_page() -> mmap.mmap:
    """Memory that takes half of what is free, in single pages."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    held = mmap.mmap(-1, (available - LEFT) // (2 * mmap.PAGESIZE) * 2 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    for offset in range(0, len(held), mmap.PAGESIZE):
        held[offset] = 1
    for offset in range(0, len(held), 2 * mmap.PAGESIZE):
        held.madvise(mmap.MADV_DONTNEED, offset, mmap.PAGESIZE)
    return held


def main() -> None:
    from torch_safetensors import save

    data = save({str(i): torch.ones(16 << 20) for i in range(16)})
    measure("plain", data)
    held = hold_every_other_page()
    measure("fragmented", data)
    held.close()


if __name__ == "__main__":
    main()
