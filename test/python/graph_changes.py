"""Runs compiled or packaged graphs on files that have changed since; `test_graph_changes.py` starts it.

Each case in a process of its own, since a graph that misreads a file corrupts the heap, and a crash must not go unseen.
Usage: graph_changes.py FOLDER MODE, with MODE a backend of torch.compile, or "aoti".
"""

import json
import os
import sys
from pathlib import Path

import torch

from torch_safetensors import load_file, load_tensor, save_file

X = torch.eye(4)
OTHERS = {f"other{i}": torch.ones(64) for i in range(4)}
ORIGINAL = {"w": torch.arange(16.0).view(4, 4), **OTHERS}

CHANGES = {
    "none": ORIGINAL,
    "wider dtype": {**ORIGINAL, "w": torch.ones(4, 4, dtype=torch.float64)},
    "narrower dtype": {**ORIGINAL, "w": torch.ones(4, 4, dtype=torch.float16)},
    "dtype of the same size": {**ORIGINAL, "w": torch.ones(4, 4, dtype=torch.int32)},
    "larger shape": {**ORIGINAL, "w": torch.ones(4, 5)},
    "smaller shape": {**ORIGINAL, "w": torch.ones(2, 4)},
    "other shape of the same size": {**ORIGINAL, "w": torch.ones(2, 8)},
    "rank": {**ORIGINAL, "w": torch.ones(4, 4, 1)},
    "a name added": {**ORIGINAL, "new": torch.ones(1)},
    "a name removed": {"w": ORIGINAL["w"], **dict(list(OTHERS.items())[:3])},
    "the name gone": OTHERS,
}


class Loads(torch.nn.Module):
    """Loads by every way that gets into a graph."""

    def __init__(self, path, out):
        super().__init__()
        self.path = path
        self.out = out

    def forward(self, x):
        tensors = load_file(self.path)
        save_file({"sum": sum(tensor.sum() for tensor in tensors.values())}, self.out)
        return x @ tensors["w"]


class LoadsOne(torch.nn.Module):
    """Loads one tensor: other names may come and go."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, x):
        return x @ load_tensor(self.path, "w") + torch.ops.safetensors.load_tensors(self.path, ["w"])[0]


def modules(folder):
    path, out = str(folder / "weights.safetensors"), str(folder / "out.safetensors")
    return {"whole": Loads(path, out), "one": LoadsOne(path)}


def compiled(module, folder, name, mode):
    if mode != "aoti":
        return torch.compile(module, backend=mode, fullgraph=True)
    exported = torch.export.export(module, (X,), strict=True)
    package = torch._inductor.aoti_compile_and_package(exported, package_path=str(folder / f"{name}.pt2"))
    return torch._inductor.aoti_load_package(package)


def run_in_child(graphs, path, change):
    """What each graph does on the changed file, and the exit status of a process of its own that ran them."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        outcomes = []
        for name, graph in graphs.items():
            save_file(ORIGINAL, path)
            graph(X)
            save_file(CHANGES[change], path)
            try:
                graph(X)
                outcomes.append(f"{name}: ran")
            except RuntimeError as error:
                outcomes.append(f"{name}: {error}")
        [torch.ones(1000) for _ in range(1000)]  # A corrupted heap shows at the next allocations.
        os.write(write, "\n".join(outcomes).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        outcome = pipe.read()
    return outcome, os.waitpid(child, 0)[1]


def main():
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    path = folder / "weights.safetensors"
    save_file(ORIGINAL, path)
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork.
    graphs = {name: compiled(module, folder, name, mode) for name, module in modules(folder).items()}
    assert torch.equal(graphs["whole"](X), ORIGINAL["w"])
    assert torch.equal(graphs["one"](X), 2 * ORIGINAL["w"])
    json.dump({change: run_in_child(graphs, path, change) for change in CHANGES}, sys.stdout)


if __name__ == "__main__":
    main()
