"""Saving and loading by torch.distributed.checkpoint: ``python -m benchmarks.distributed_checkpoint``.

Two ranks (gloo, processes of this machine) hold one model of linear layers, spread by FSDP2, and load it into such rows
again, into columns, or whole. Ours against torch's own reader and writer of the same files, which take turns in every
round. Torch's writer saves the ranks' shards, and with
consolidation whole tensors; ours writes whole tensors at once. Torch's flushes the shards to the disk (fsync), from
which only an attribute keeps it, and never what it consolidates; ours does if it is told to, with all files. Each row:
the slowest rank's median time. Every load is compared with what was saved, apart from the time. The files are in the
system's memory, as they were just written.
"""

from __future__ import annotations

import argparse
import multiprocessing
import operator
import os
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver

from torch_safetensors.distributed._boxes import local_part

from .report import table
from .settings import ROOT

HEADINGS = ["what", "files", "way", "time", "least to most", "GB/s"]
#: What is done, to which form of files, and by whom; forms that are loaded are saved by ours before.
CASES = [
    ("save", "shards", "ours"),
    ("save", "shards", "torch"),
    ("save", "shards", "ours, fsync"),
    ("save", "shards", "torch, fsync"),
    ("save", "whole", "ours"),
    ("save", "whole", "torch"),
    ("save", "whole", "ours, fsync"),
    ("save", "whole", "torch, fsync"),
    *(
        (f"load {layout}", form, way)
        for layout in ("rows", "columns", "replicated")
        for form in ("shards", "whole")
        for way in ("ours", "torch")
    ),
]

Case = tuple[str, str, str]


def state_of(megabytes: float, layers: int = 16) -> dict[str, Any]:
    """A model's tensors, in FSDP2's shards."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    width = max(4, int((megabytes * 1e6 / 4 / layers) ** 0.5))
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(layers)))
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model.state_dict()


def saver(case: Case, folder: Path) -> Any:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    from torch_safetensors.distributed import SafetensorsWriter

    _, form, way = case
    flushes = way.endswith("fsync")
    if way.startswith("ours"):
        return SafetensorsWriter(folder, save_distributed=form == "shards", fsync=flushes)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True, enable_consolidation=form == "whole")
    writer.sync_files = flushes
    return writer


def loader(case: Case, folder: Path) -> Any:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    from torch_safetensors.distributed import SafetensorsReader

    return SafetensorsReader(folder) if case[2] == "ours" else HuggingFaceStorageReader(str(folder))


def empty(layout: str, state: dict[str, Any]) -> dict[str, Any]:
    """Where to load to; memory that has been touched."""
    from torch.distributed.tensor import Replicate, Shard, full

    def placement(tensor: Any) -> Any:
        if layout == "replicated" or (layout == "columns" and tensor.dim() < 2):
            return Replicate()
        return Shard(0 if layout == "rows" else 1)

    return {
        name: full(tensor.shape, -1.0, device_mesh=tensor.device_mesh, placements=[placement(tensor)])
        for name, tensor in state.items()
    }


def sample(case: Case, state: dict[str, Any], whole: dict[str, torch.Tensor], folder: Path) -> float:
    """Seconds that this rank took."""
    if case[0] == "save":
        place = folder / "new"
        if dist.get_rank() == 0:
            shutil.rmtree(place, ignore_errors=True)
        return timed(lambda: state_dict_saver.save(state, storage_writer=saver(case, place)))
    into = empty(case[0].split()[1], state)
    seconds = timed(lambda: state_dict_loader.load(into, storage_reader=loader(case, folder / case[1])))
    for name, tensor in whole.items():
        box, local = local_part(name, into[name])
        if not torch.equal(local, tensor[tuple(map(slice, box.offsets, map(operator.add, *box)))]):
            raise AssertionError(f"{case}: {name!r} was not loaded")
    return seconds


def copy_in_pieces(path: Path, size: int) -> None:
    """The page cache holds a file in pages as large as what is written at once."""
    copy = path.with_name("copy")
    with path.open("rb") as source, copy.open("wb", buffering=0) as target:
        shutil.copyfileobj(source, target, size)
    copy.replace(path)


def timed(action: Callable[[], object]) -> float:
    dist.barrier()
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def work(rank: int, folder: Path, options: argparse.Namespace, results: Any) -> None:
    """A rank; the first one sends, for every case, the slowest rank's seconds of each round."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.ranks))
    dist.init_process_group("gloo", f"file://{folder}/store", world_size=options.ranks, rank=rank)
    state = state_of(options.megabytes)
    whole = {name: tensor.full_tensor() for name, tensor in state.items()}
    for form in ("shards", "whole"):
        state_dict_saver.save(state, storage_writer=saver(("save", form, "ours"), folder / form))
    if options.pieces and rank == 0:
        for path in folder.glob("*/*.safetensors"):
            copy_in_pieces(path, options.pieces * 1000)
    times: dict[Case, list[float]] = {case: [] for case in CASES}
    order = random.Random(options.seed)
    for number in range(options.rounds + 1):  # in the first, modules are imported
        for case in order.sample(CASES, len(CASES)):
            slowest = torch.tensor(sample(case, state, whole, folder), dtype=torch.float64)
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
            if number > 0:
                times[case].append(float(slowest))
    if rank == 0:
        results.send((times, sum(tensor.numel() * 4 for tensor in state.values())))
    dist.destroy_process_group()


def measure(options: argparse.Namespace) -> tuple[dict[Case, list[float]], int]:
    """Seconds by case, and bytes of the model. Raises RuntimeError where a rank fails."""
    options.dir.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.dir) as folder:
        receiver, sender = context.Pipe(duplex=False)
        ranks = [
            context.Process(target=work, args=(rank, Path(folder), options, sender)) for rank in range(options.ranks)
        ]
        for process in ranks:
            process.start()
        sender.close()
        try:
            found: tuple[dict[Case, list[float]], int] = receiver.recv()
        except EOFError:
            raise RuntimeError("a rank failed: see above") from None
        finally:
            for process in ranks:
                process.join()
    return found


def rows(times: dict[Case, list[float]], nbytes: int) -> list[list[str]]:
    found = []
    for case, seconds in times.items():
        median = statistics.median(seconds)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        found.append([*case, f"{median:.2f} s", spread, f"{nbytes / median / 1e9:.2f}"])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed_checkpoint", description=__doc__)
    add = parser.add_argument
    add("--ranks", type=int, default=2)
    add("--rounds", type=int, default=3)
    add("--megabytes", type=float, default=1000, help="of the model (1000)")
    add("--pieces", type=int, metavar="KB", help="what is loaded was written in pieces of so many kB (at once)")
    add("--seed", type=int, default=0, help="of the order in which the ways take turns")
    add("--dir", type=Path, default=ROOT / "build", metavar="FOLDER", help="on the disk to use (build)")
    options = parser.parse_args(arguments)
    times, nbytes = measure(options)
    print(table(HEADINGS, rows(times, nbytes)))


if __name__ == "__main__":
    main()
