"""How long a C++ program takes to its first answer, and what memory one and four of them take together.

``python -m benchmarks.deployment [FOLDER]`` compares, in one interleaved run on a real encoder (91 MB, build/model) and
on large matrices (1 GiB): a package without weights and its safetensors file, a normal AOTInductor package, and
TorchScript with the weights of the same file and with its own. Models are made in FOLDER (build/deployment) where they
are not there yet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5
PROCESSES = 1, 4


@dataclass
class Way:
    """A way to serve a model: what the program is told."""

    name: str
    kind: str
    model: str
    weights: str


WAYS = [
    Way("package without weights", "weightless", "weightless.pt2", "model.safetensors"),
    Way("normal package", "package", "normal.pt2", "-"),
    Way("TorchScript and the file", "torchscript", "model.pt", "model.safetensors"),
    Way("TorchScript", "torchscript", "model.pt", "-"),
]


def make(folder: Path, name: str) -> None:
    """The files of all ways; in a process of its own, for what compilers leave in memory."""
    import torch

    from torch_safetensors import aoti, save_file, save_model

    if name == "encoder":
        sys.path.insert(0, str(ROOT / "examples/server"))
        from export import SentenceEncoder

        model = SentenceEncoder.from_pretrained(ROOT / "build/model")
        tokens = torch.randint(1000, 20_000, (4, 32))
        inputs = [tokens, torch.ones_like(tokens)]
    else:
        model = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(16)))
        inputs = [torch.rand(4, 4096)]
    model = model.eval().requires_grad_(False)
    save_file({str(i): tensor for i, tensor in enumerate(inputs)}, folder / "inputs.safetensors")
    save_model(model, folder / "model.safetensors")
    program = torch.export.export(model, tuple(inputs))
    aoti.package(program, folder / "weightless.pt2", weights=folder / "model.safetensors", write_weights=False)
    torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "normal.pt2"))
    torch.jit.trace(model, tuple(inputs)).save(folder / "model.pt")


def build(folder: Path) -> Path:
    """The program."""
    import torch

    import torch_safetensors

    tree = folder / "program"
    search = f"{torch_safetensors.cmake_prefix_path};{torch.utils.cmake_prefix_path}"
    options = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={search}"]
    configure: list[str | Path] = ["cmake", "-S", Path(__file__).with_name("start_up"), "-B", tree, *options]
    subprocess.run(configure, stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["cmake", "--build", tree], stdout=subprocess.DEVNULL, check=True)
    return tree / "start_up"


def proportional_memory(pid: int) -> int:
    """Bytes of a process; a page that several have counts for each in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def measure(program: Path, folder: Path, way: Way, count: int) -> tuple[float, int, str]:
    """Seconds until the last of so many has answered, bytes they have together, and the answer."""
    weights = way.weights if way.weights == "-" else folder / way.weights
    command: list[str | Path] = [program, way.kind, folder / way.model, weights, folder / "inputs.safetensors"]
    begin = time.perf_counter()
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    answers = [process.stdout.readline() for process in processes if process.stdout]
    seconds = time.perf_counter() - begin
    memory = sum(proportional_memory(process.pid) for process in processes)
    for process in processes:
        process.communicate()
    if "" in answers or any(process.returncode for process in processes):
        sys.exit(f"error: {way.name} failed")
    return seconds, memory, answers[0].strip()


def compare(program: Path, folder: Path, name: str) -> None:
    """Prints a table; medians, after one run of each that nobody counts."""
    results: dict[tuple[str, int], list[tuple[float, int, str]]] = {}
    for round_ in range(ROUNDS + 1):
        for count in PROCESSES:
            for way in WAYS:
                result = measure(program, folder, way, count)
                if round_ > 0:
                    results.setdefault((way.name, count), []).append(result)
    sums = [float(answer) for samples in results.values() for _, _, answer in samples]
    if max(sums) - min(sums) > 1e-3 * max(1, abs(sums[0])):
        sys.exit(f"error: the answers differ: {min(sums)} to {max(sums)}")
    print(f"\n| {name} | start, 1 process | start, 4 | memory, 1 | memory, 4 |")
    print("|---|---|---|---|---|")
    for way in WAYS:
        cells = [
            f"{statistics.median(seconds for seconds, _, _ in results[way.name, count]):.2f} s" for count in PROCESSES
        ]
        cells += [
            f"{statistics.median(memory for _, memory, _ in results[way.name, count]) / 1e6:.0f} MB"
            for count in PROCESSES
        ]
        print(f"| {way.name} | {' | '.join(cells)} |")


def main() -> None:
    """Makes what is missing, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build/deployment")
    parser.add_argument("--make", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.folder, arguments.make)
        return
    for name in "encoder", "matrices":
        folder = arguments.folder / name
        if not (folder / "model.pt").exists():
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.deployment", str(folder), "--make", name]
            subprocess.run(command, check=True, env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")})
    program = build(arguments.folder)
    for name in "encoder", "matrices":
        compare(program, arguments.folder / name, name)


if __name__ == "__main__":
    main()
