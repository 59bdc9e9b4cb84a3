"""Runs a model that is larger than the memory it may take, weights from the disk each time.

``python -m benchmarks.offload [FOLDER] [--rows 1024] [--disk 250]`` compares, in one interleaved run of processes
limited to 768 MB (control groups, version 1; needs root), a pass through 24 matrices of 64 MB: a scripted module that
reads each layer by ``load_into``, with the next one begun before (``prefetch``) and without, a package whose layers
load their weights where they are used, the mapped file, and accelerate's hooks on the same file (accelerate from
build/peers, where `make bench` puts it). No page of the file is in memory before a pass. It is made in FOLDER
(build/offload).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from torch_safetensors import load_file, load_tensor, save_file

ROOT = Path(__file__).resolve().parent.parent
LAYERS = 24
SIZE = 4096
LIMIT = 768 << 20
ROUNDS = 3
FILE = "model.safetensors"
PACKAGE = "model.pt2"
NAMES = [f"{i}.weight" for i in range(LAYERS)]


class Scripted(torch.nn.Module):
    """Reads its layers into one buffer, and has the next one begun before it computes."""

    def __init__(self, path: str, names: list[str], ahead: bool) -> None:
        super().__init__()
        self.file = torch.classes.safetensors.SafeOpen(path)
        self.names = names
        self.ahead = ahead
        self.register_buffer("weight", torch.empty(SIZE, SIZE))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(len(self.names)):
            self.file.load_into([self.names[i]], [self.weight])
            if self.ahead and i + 1 < len(self.names):
                self.file.prefetch([self.names[i + 1]])
            x = torch.relu(torch.nn.functional.linear(x, self.weight))  # type: ignore[arg-type]
        return x


class Packaged(torch.nn.Module):
    """The same for a compiled package, which frees a layer where it is used for the last time."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        for i, name in enumerate(NAMES):
            weight = load_tensor(self.path, name, backend="pread")
            if i + 1 < LAYERS:
                torch.ops.safetensors.prefetch(self.path, [NAMES[i + 1]])
            x = torch.relu(torch.nn.functional.linear(x, weight))
        return x


def make(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(SIZE, SIZE, generator=generator) / (SIZE / 2) ** 0.5 for name in NAMES}
    save_file(tensors, folder / FILE)
    rows = {"x": {0: torch.export.Dim("rows")}}
    program = torch.export.export(
        Packaged(str(folder / FILE)), (torch.ones(64, SIZE),), dynamic_shapes=rows, strict=True
    )
    torch._inductor.aoti_compile_and_package(program, package_path=str(folder / PACKAGE))


def mapped(folder: Path) -> Callable[[Tensor], Tensor]:
    weights = load_file(folder / FILE)

    def run(x: Tensor) -> Tensor:
        for name in NAMES:
            x = torch.relu(torch.nn.functional.linear(x, weights[name]))
        return x

    return run


def by_accelerate(folder: Path) -> Callable[[Tensor], Tensor]:
    sys.path.append(str(ROOT / "build/peers/accelerate"))
    import accelerate

    with accelerate.init_empty_weights():
        layers = [torch.nn.Linear(SIZE, SIZE, bias=False) for _ in range(LAYERS)]
        model = torch.nn.Sequential(*(layer for linear in layers for layer in (linear, torch.nn.ReLU())))
    index = {
        f"{2 * i}.weight": {"safetensors_file": str(folder / FILE), "weight_name": name, "dtype": "float32"}
        for i, name in enumerate(NAMES)
    }
    offload = folder / "accelerate"
    offload.mkdir(exist_ok=True)
    (offload / "index.json").write_text(json.dumps(index))
    accelerate.cpu_offload(
        model,
        execution_device=torch.device("cpu"),
        state_dict=accelerate.utils.OffloadedWeightsLoader(save_folder=offload),
    )
    return model


WAYS: dict[str, Callable[[Path], Callable[[Tensor], Tensor]]] = {
    "scripted, load_into and prefetch": lambda folder: torch.jit.script(Scripted(str(folder / FILE), NAMES, True)),
    "scripted, load_into": lambda folder: torch.jit.script(Scripted(str(folder / FILE), NAMES, False)),
    "package, load_tensor and prefetch": lambda folder: torch._inductor.aoti_load_package(str(folder / PACKAGE)),
    "the mapped file": mapped,
    "accelerate, offload from the file": by_accelerate,
}


def run(folder: Path, name: str, rows: int) -> None:
    """In a limited process: says when a pass begins, and then its seconds and a sum of the result."""
    with torch.inference_mode():
        model = WAYS[name](folder)
        x = torch.ones(rows, SIZE)
        x[:, ::2] = -1
        torch.nn.functional.linear(x, torch.ones(SIZE, SIZE))  # threads and libraries are there
        descriptor = os.open(folder / FILE, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        print("begin", flush=True)
        begin = time.perf_counter()
        result = model(x)
        seconds = time.perf_counter() - begin
        print(json.dumps([seconds, result.double().sum().item()]), flush=True)


def own_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def measure(folder: Path, name: str, rows: int, limit: Callable[[], None]) -> tuple[float, int, float]:
    """Seconds of a pass, bytes of memory of its own that it took at most, and a sum of the result."""
    command: list[str | Path] = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.offload",
        folder,
        "--way",
        name,
        "--rows",
        str(rows),
    ]
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=limit, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"begin\n":
            sys.exit(f"error: {name} failed")
        highest = before = own_memory(process.pid)
        while not select.select([process.stdout], [], [], 0.002)[0]:
            highest = max(highest, own_memory(process.pid))
        seconds, total = json.loads(process.stdout.readline())
    return seconds, highest - before, total


@contextlib.contextmanager
def limited(folder: Path, disk: int | None) -> Iterator[Callable[[], None]]:
    """What a new process calls to be limited to LIMIT bytes, page cache included, and so many bytes a second."""
    limits = [(Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", str(LIMIT))]
    if disk is not None:
        device = folder.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)} {disk}"
        limits.append((Path("/sys/fs/cgroup/blkio"), "blkio.throttle.read_bps_device", number))
    groups = []
    try:
        for parent, file, value in limits:
            groups.append(parent / "torch_safetensors")
            groups[-1].mkdir()
            (groups[-1] / file).write_text(value)

        def limit() -> None:
            for group in groups:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        yield limit
    finally:
        for group in groups:
            group.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build/offload")
    parser.add_argument("--rows", type=int, default=256, help="of the input: the work for each byte that is read")
    parser.add_argument("--disk", type=int, metavar="MB", help="limit reads to so many megabytes a second")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.way:
        run(folder, arguments.way, arguments.rows)
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PACKAGE).exists():
        make(folder)
    results: dict[str, list[tuple[float, int, float]]] = {name: [] for name in WAYS}
    disk = None if arguments.disk is None else arguments.disk * 1_000_000
    with limited(folder, disk) as limit:
        for _ in range(ROUNDS):
            for name, samples in results.items():
                samples.append(measure(folder, name, arguments.rows, limit))
    sums = [total for samples in results.values() for _, _, total in samples]
    if max(sums) - min(sums) > 1e-3 * abs(sums[0]):
        sys.exit(f"error: the results differ: {sums}")
    print("| way | a pass | memory of its own, at most |")
    print("|---|---|---|")
    for name, samples in results.items():
        seconds, memory = (statistics.median(sample[i] for sample in samples) for i in (0, 1))
        print(f"| {name} | {seconds:.2f} s | {memory / 1e6:.0f} MB |")


if __name__ == "__main__":
    main()
