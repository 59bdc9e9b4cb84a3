"""A checkpoint in several files, laid out as the ecosystem has it, and replaced as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import listing, random_tensors
from torch import Tensor

import torch_safetensors as ts
from torch_safetensors import _checkpoint_files
from torch_safetensors.distributed._new_files import NewFiles

INDEX = "model.safetensors.index.json"


def shard_names(count: int) -> list[str]:
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def tensors_of(value: float, count: int = 5) -> dict[str, Tensor]:
    """100 bytes each."""
    return {f"layer.{i}": torch.full((25,), float(value + i)) for i in range(count)}


def assert_holds(folder: Path, tensors: dict[str, Tensor]) -> None:
    loaded = ts.load_file(folder)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_files_and_index(tmp_path) -> None:
    tensors = tensors_of(0)
    ts.save_sharded(tensors, tmp_path / "new" / "folder", {"key": "value"}, max_shard_size=200)
    folder = tmp_path / "new" / "folder"
    assert listing(folder) == [*shard_names(3), INDEX]
    text = (folder / INDEX).read_text()
    weight_map = {name: shard_names(3)[i // 2] for i, name in enumerate(tensors)}
    metadata = {"format": "pt", "key": "value", "total_size": 500}
    assert text == json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"
    for number, shard in enumerate(shard_names(3)):
        names = list(tensors)[2 * number : 2 * number + 2]
        part = {name: tensors[name] for name in names}
        assert (folder / shard).read_bytes() == ts.save(part, {"format": "pt", "key": "value"})
    assert_holds(folder, tensors)
    assert ts.safe_open(folder).metadata() == {"format": "pt", "key": "value"}


@pytest.mark.parametrize("limit", [1, 50, 100, 333, 1000, 10**9, "1KB"])
def test_shards_are_those_of_huggingface_hub(tmp_path, limit: int | str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    rng = random.Random(1)
    tensors = {f"t{i}": torch.zeros(rng.choice([1, 2, 9, 30, 99])) for i in range(40)}
    split = hub.split_torch_state_dict_into_shards(tensors, max_shard_size=limit)
    ts.save_sharded(tensors, tmp_path, max_shard_size=limit)
    if split.is_sharded:
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["weight_map"] == split.tensor_to_filename
        assert index["metadata"] == {"format": "pt", **split.metadata}
    for file, names in split.filename_to_tensors.items():
        expected = {name: tensors[name] for name in names}
        assert (tmp_path / file).read_bytes() == safetensors.torch.save(expected, {"format": "pt"})
    assert len(listing(tmp_path)) == len(split.filename_to_tensors) + split.is_sharded


def test_one_file_is_enough(tmp_path) -> None:
    tensors = random_tensors(3)
    ts.save_sharded(tensors, tmp_path)
    assert listing(tmp_path) == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == ts.save(tensors, {"format": "pt"})
    ts.save_sharded({}, tmp_path / "empty")
    assert ts.load_file(tmp_path / "empty") == {}


@pytest.mark.parametrize(
    ("size", "expected"),
    [(100, 5), ("100B", 5), ("0.2 KB", 3), ("0.2kb", 3), ("1kB", 1), ("1 KiB", 1), ("0.1875KiB", 5), ("5GB", 1)],
)
def test_sizes(tmp_path, size: int | str, expected: int) -> None:
    ts.save_sharded(tensors_of(0), tmp_path, max_shard_size=size)
    assert len([name for name in listing(tmp_path) if name != INDEX]) == expected


@pytest.mark.parametrize("size", ["", "5", "GB", "5 XB", "-5GB", "5GB0", "nanB", 0, -1, "0GB"])
def test_sizes_that_are_none(tmp_path, size: object) -> None:
    with pytest.raises(ValueError, match=r"^max_shard_size: "):
        ts.save_sharded(tensors_of(0), tmp_path, max_shard_size=size)
    with pytest.raises(TypeError, match="max_shard_size: expected int or str, not float"):
        ts.save_sharded(tensors_of(0), tmp_path, max_shard_size=5e9)
    assert listing(tmp_path) == []


class Tied(torch.nn.Module):
    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.middle = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.transposed = torch.nn.Parameter(torch.zeros(3, 2).t())
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.arange(float(parameter.numel())).view(parameter.shape) + value)


def test_a_model_is_saved_without_its_ties(tmp_path) -> None:
    ts.save_sharded(Tied(), tmp_path, max_shard_size=80)
    loaded = ts.load_file(tmp_path)
    assert "head.weight" not in loaded
    assert torch.equal(loaded["embedding.weight"], Tied().embedding.weight)
    assert torch.equal(loaded["transposed"], Tied().transposed)
    with_tie = json.loads((tmp_path / INDEX).read_text())["weight_map"]["embedding.weight"]
    assert ts.safe_open(tmp_path / with_tie).metadata() == {"format": "pt", "head.weight": "embedding.weight"}
    other = Tied(7.0)
    assert ts.load_model(other, tmp_path) == ([], [])
    assert torch.equal(other.head.weight, Tied().head.weight)
    assert other.head.weight is other.embedding.weight


def test_a_model_in_one_file_is_that_of_save_model(tmp_path) -> None:
    ts.save_sharded(Tied(), tmp_path)
    ts.save_model(Tied(), tmp_path / "expected", {"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "expected").read_bytes()


def test_options_reach_every_file(tmp_path) -> None:
    ts.save_sharded(tensors_of(0), tmp_path, max_shard_size=200, checksum=True, alignment=64, fsync=True)
    ts.load_file(tmp_path, verify=True)
    for shard in shard_names(3):
        assert (8 + int.from_bytes((tmp_path / shard).read_bytes()[:8], "little")) % 64 == 0


class TestReplacing:
    @pytest.mark.parametrize("before", [1, 2, 3, 5])
    @pytest.mark.parametrize("after", [1, 2, 3, 5])
    def test_nothing_of_the_old_one_is_left(self, tmp_path, before: int, after: int) -> None:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "other.safetensors").write_bytes(ts.save({}))
        for value, files in (0.0, before), (10.0, after), (20.0, after):
            ts.save_sharded(tensors_of(value), tmp_path, max_shard_size=-(-5 // files) * 100)
            assert_holds(tmp_path, tensors_of(value))
        count = -(-5 // -(-5 // after))
        expected = ["model.safetensors"] if count == 1 else [*shard_names(count), INDEX]
        assert listing(tmp_path) == sorted(["config.json", "other.safetensors", *expected])

    def test_a_checkpoint_is_saved_over_what_it_is_mapped_from(self, tmp_path) -> None:
        ts.save_sharded(tensors_of(0), tmp_path, max_shard_size=200)
        ts.save_sharded(ts.load_file(tmp_path, backend="mmap"), tmp_path, max_shard_size=200)
        ts.save_sharded(ts.load_file(tmp_path, backend="mmap"), tmp_path)
        ts.save_sharded(ts.load_file(tmp_path, backend="mmap"), tmp_path, max_shard_size=200)
        assert_holds(tmp_path, tensors_of(0))

    def test_without_hard_links_shards_keep_other_names(self, tmp_path, monkeypatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        for value in (0.0, 1.0, 2.0, 3.0):
            ts.save_sharded(tensors_of(value), tmp_path, max_shard_size=200)
            assert_holds(tmp_path, tensors_of(value))
            assert len(listing(tmp_path)) == 4

    def test_what_cannot_be_saved_leaves_the_old_one(self, tmp_path) -> None:
        ts.save_sharded(tensors_of(0), tmp_path, max_shard_size=200)
        before = listing(tmp_path)
        shared = torch.zeros(4)
        with pytest.raises(RuntimeError, match="share memory"):
            ts.save_sharded({"a": shared, "b": shared}, tmp_path, max_shard_size=16)
        with pytest.raises(ValueError, match="Expected a dict"):
            ts.save_sharded([shared], tmp_path)
        with pytest.raises(NotImplementedError, match="meta"):
            ts.save_sharded({"a": shared, "b": torch.zeros(4, device="meta")}, tmp_path, max_shard_size=16)
        module = torch.nn.Module()
        module.register_buffer("a", torch.zeros(4))
        module.register_buffer("b", torch.zeros(4, dtype=torch.complex128))
        with pytest.raises(ValueError, match="ComplexDouble"):
            ts.save_sharded(module, tmp_path, max_shard_size=16)
        assert listing(tmp_path) == before
        assert_holds(tmp_path, tensors_of(0))

    @pytest.mark.parametrize("before", [100, 200, 1000])
    @pytest.mark.parametrize("after", [200, 1000])
    def test_whatever_call_fails_one_of_the_two_is_there(self, tmp_path, worker, before: int, after: int) -> None:
        worker(save_with_faults, tmp_path, before, after)


def save_with_faults(folder: Path, before: int, after: int) -> None:
    """Has every system call that the library makes fail in turn."""
    import faults

    for index in range(1000):
        shutil.rmtree(folder)
        ts.save_sharded(tensors_of(0), folder, max_shard_size=before)
        failed = False
        with faults.failing_call(index, errno.EIO):
            try:
                ts.save_sharded(tensors_of(10), folder, max_shard_size=after)
            except OSError:
                failed = True
            call = faults.failed_call()
        loaded = ts.load_file(folder)
        assert set(loaded) == set(tensors_of(0)), call
        first = loaded["layer.0"][0].item()
        assert first in ((0.0, 10.0) if failed else (10.0,)), call
        assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors_of(first).items()), call
        if call is None:
            assert index > 10
            return
    raise AssertionError("the calls do not end")


SAVE_FOREVER = """
import sys, torch, torch_safetensors as ts
folder, value = sys.argv[1], 0.0
while True:
    value += 1
    print(flush=True)
    ts.save_sharded({f"layer.{i}": torch.full((2500,), value) for i in range(5)}, folder,
                    max_shard_size=[20_000, 10_000, 10**9][int(value) % 3])
"""


def test_a_killed_save_leaves_a_whole_checkpoint(tmp_path) -> None:
    rng = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, tmp_path],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(ts.__file__).parents[1])},
        )
        for _ in range(4):
            process.stdout.readline()
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        values = {value for tensor in ts.load_file(tmp_path).values() for value in tensor.unique().tolist()}
        assert len(values) == 1
    ts.save_sharded(tensors_of(0), tmp_path, max_shard_size=200)
    assert listing(tmp_path) == [*shard_names(3), INDEX]


def test_saves_at_once_do_not_mix(tmp_path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: ts.save_sharded(tensors_of(i), tmp_path, max_shard_size=[200, 300][i % 2]), range(12)))
    first = ts.load_file(tmp_path)["layer.0"][0].item()
    assert_holds(tmp_path, tensors_of(first))
    assert len(listing(tmp_path)) in (3, 4)


@pytest.mark.model
def test_transformers_reads_it(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=11, n_positions=8)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    config.save_pretrained(tmp_path)
    ts.save_sharded(model, tmp_path, max_shard_size=2000)
    assert len(listing(tmp_path)) > 3
    read = transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(read.parameters(), model.parameters(), strict=True))
    model.save_pretrained(tmp_path / "theirs", max_shard_size=2000)
    other = transformers.GPT2LMHeadModel(config)
    assert ts.load_model(other, tmp_path / "theirs") == ([], [])
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


def test_headers_are_limited_one_by_one(tmp_path) -> None:
    """Together they, and the index, are longer than the header of one file may be."""
    tensors = {letter * 40_000_000: torch.tensor([float(i)]) for i, letter in enumerate("abc")}
    with pytest.raises(ValueError, match="the limit is 100000000"):
        ts.save_file(tensors, tmp_path / "one")
    ts.save_sharded(tensors, tmp_path, max_shard_size=4)
    assert (tmp_path / INDEX).stat().st_size > 120_000_000
    loaded = ts.load_file(tmp_path)
    assert [loaded[name].item() for name in tensors] == [0, 1, 2]


def test_each_header_is_checked_before_anything_is_written(tmp_path) -> None:
    ts.save_sharded(tensors_of(1), tmp_path, max_shard_size=200)
    before = listing(tmp_path)
    tensors = {"first": torch.ones(100), "b" * 60_000_000: torch.ones(1), "c" * 60_000_000: torch.ones(1)}
    with pytest.raises(ValueError, match="the limit is 100000000"):
        ts.save_sharded(tensors, tmp_path, max_shard_size=400)
    assert listing(tmp_path) == before
    assert_holds(tmp_path, tensors_of(1))


def test_tensors_that_share_memory_are_found_across_files(tmp_path) -> None:
    base = torch.ones(50)
    with pytest.raises(RuntimeError, match="share memory"):
        ts.save_sharded({"a": base[:25], "b": torch.ones(25), "c": base[20:45]}, tmp_path, max_shard_size=100)
    assert listing(tmp_path) == []


def test_an_index_that_nobody_would_read_is_not_written(tmp_path, monkeypatch) -> None:
    ts.save_sharded(tensors_of(1), tmp_path, max_shard_size=200)
    before = listing(tmp_path)
    size = len((tmp_path / INDEX).read_bytes()) + 2 * 5  # names of shards that are not taken
    monkeypatch.setattr(_checkpoint_files, "MAX_INDEX_SIZE", size - 1)
    text = rf"{INDEX}: the index of 5 tensors in 3 files would have {size} bytes but at most {size - 1} are read"
    with pytest.raises(ValueError, match=text):
        ts.save_sharded(tensors_of(2), tmp_path, max_shard_size=200)
    meta = {name: tensor.to("meta") for name, tensor in tensors_of(0).items()}
    parts = [[*meta.items()][begin : begin + 2] for begin in (0, 2, 4)]
    with pytest.raises(ValueError, match="the index of 5 tensors in 3 files would have"):  # as ranks save together
        NewFiles(tmp_path, [(dict(part), None) for part in parts], {"format": "pt"}, False)
    assert listing(tmp_path) == before
    assert_holds(tmp_path, tensors_of(1))
    monkeypatch.setattr(_checkpoint_files, "MAX_INDEX_SIZE", size)
    ts.save_sharded(tensors_of(2), tmp_path, max_shard_size=200)
    assert_holds(tmp_path, tensors_of(2))


def test_what_is_written_is_read(tmp_path) -> None:
    index = tmp_path / INDEX
    index.touch()
    os.truncate(index, _checkpoint_files.MAX_INDEX_SIZE + 1)  # a hole, which takes no room
    with pytest.raises(ts.SafetensorError, match=f"but at most {_checkpoint_files.MAX_INDEX_SIZE} are read"):
        ts.load_file(index)
