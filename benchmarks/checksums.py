"""What checksums cost: a gigabyte saved with ``checksum=True`` and loaded with ``verify=True``, next to a copy of it.

``python -m benchmarks.checksums``: the best and the median of each, in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torch_safetensors import load, load_file, save, save_file

ROUNDS = 9


def main(megabytes: int = 1000) -> None:
    torch.manual_seed(0)
    tensors = {f"layer.{i:03}": torch.randn(megabytes * 250, 4) for i in range(250)}
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    copy = flat.clone()
    data = bytearray(save(tensors, checksum=True))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "model.safetensors"
        save_file(tensors, path, checksum=True)

        def read_every_byte() -> None:
            for tensor in load_file(path).values():
                tensor.view(torch.int32).sum()

        work: dict[str, Callable[[], Any]] = {
            "a copy, torch's": lambda: copy.copy_(flat),
            "load(data)": lambda: load(data),
            "load(data, verify=True)": lambda: load(data, verify=True),
            "load(data, copy=False, verify=True)": lambda: load(data, copy=False, verify=True),
            "load_file, every byte read": read_every_byte,
            "load_file(verify=True)": lambda: load_file(path, verify=True),
            "save_file": lambda: save_file(tensors, path),
            "save_file(checksum=True)": lambda: save_file(tensors, path, checksum=True),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, action in work.items():
                start = time.perf_counter()
                result = action()
                times[name].append(time.perf_counter() - start)
                del result
    print(f"{nbytes / 1e9:.2f} GB, {torch.get_num_threads()} threads")
    for name, samples in times.items():
        best, median = min(samples), statistics.median(samples)
        print(f"{name:36} best {best * 1e3:5.0f} ms {nbytes / best / 1e9:6.1f} GB/s   median {median * 1e3:5.0f} ms")


if __name__ == "__main__":
    main()
