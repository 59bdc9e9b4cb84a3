"""A checkpoint in several files is read as one, by everything that reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import BACKENDS, random_tensors
from torch import Tensor

import torch_safetensors as ts

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def write(folder: Path, shards: dict[str, dict[str, Tensor]], **save: bool) -> Path:
    """The index."""
    for file, tensors in shards.items():
        ts.save_file(tensors, folder / file, {"format": "pt"}, **save)
    write_index(folder, {name: file for file, tensors in shards.items() for name in tensors})
    return folder / INDEX


def write_index(folder: Path, weight_map: object) -> Path:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    return folder / INDEX


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return random_tensors(7, count=20)


@pytest.fixture
def index(tensors, tmp_path) -> Path:
    names = sorted(tensors)
    first = {name: tensors[name] for name in names[::2]}
    return write(tmp_path, {SHARDS[0]: first, SHARDS[1]: {name: tensors[name] for name in names[1::2]}})


def assert_same(loaded: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert ts.save({"": loaded[name]}) == ts.save({"": tensor})


ops = torch.ops.safetensors


@torch.jit.script
def scripted(path: str) -> dict[str, Tensor]:
    file = torch.classes.safetensors.SafeOpen(path)
    names = file.keys()
    tensors = file.get_tensors(names)
    result = torch.jit.annotate(dict[str, Tensor], {})
    for i in range(len(names)):
        result[names[i]] = tensors[i]
    return result


def one_by_one(path: str) -> dict[str, Tensor]:
    return {name: ts.load_tensor(path, name) for name in ops.keys(path)}


def through_handle(path: str) -> dict[str, Tensor]:
    with ts.safe_open(path) as file:
        return {name: file.get_slice(name)[...] for name in file}


def prefetched(path: str) -> dict[str, Tensor]:
    with ts.safe_open(path) as file, file.prefetch() as loader:
        return dict(loader)


WAYS: dict[str, Callable[[str], dict[str, Tensor]]] = {
    "load_file": ts.load_file,
    "load_file, read": lambda path: ts.load_file(path, backend="pread"),
    "operator": ops.load_file,
    "load_tensors": lambda path: dict(zip(ops.keys(path), ops.load_tensors(path, ops.keys(path)), strict=True)),
    "load_tensor": one_by_one,
    "safe_open": lambda path: ts.safe_open(path).get_tensors(),
    "slices": through_handle,
    "prefetch": prefetched,
    "script": scripted,
    "iter_tensors": lambda path: dict(ts.iter_tensors(path)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["index", "directory"])
def test_every_way_to_load_takes_an_index_and_a_directory(index, tensors, way: str, form: str) -> None:
    assert_same(WAYS[way](str(index if form == "index" else index.parent)), tensors)


def test_the_order_is_that_of_the_files(index, tensors) -> None:
    expected = [name for shard in SHARDS for name in ts.load_file(index.parent / shard)]
    assert list(ts.load_file(index)) == expected
    assert ts.safe_open(index).offset_keys() == expected
    assert ts.safe_open(index).keys() == sorted(tensors, key=str.encode)


def test_a_handle_knows_the_whole(index, tensors) -> None:
    file = ts.safe_open(index)
    assert len(file) == len(tensors)
    assert all(name in file for name in tensors)
    assert "none of them" not in file
    assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_relative_index(index, tensors, backend: str, monkeypatch) -> None:
    monkeypatch.chdir(index.parent)
    assert_same(ts.load_file(INDEX, backend=backend), tensors)
    assert_same(ts.load_file(".", backend=backend), tensors)


def test_links_lead_beside_the_index_as_in_the_cache_of_huggingface_hub(index, tensors, tmp_path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, file in enumerate((INDEX, *SHARDS)):
        blob = index.parent / f"blob{number}"
        (index.parent / file).rename(blob)
        (snapshot / file).symlink_to(blob)
    assert_same(ts.load_file(snapshot), tensors)


def test_a_folder_whose_name_is_not_utf8(index, tensors, tmp_path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    for file in (INDEX, *SHARDS):
        (index.parent / file).rename(folder / file)
    assert_same(ts.load_file(folder), tensors)
    (folder / SHARDS[1]).write_bytes(b"short")
    with pytest.raises(ts.SafetensorError, match=re.escape(f"\\xff/{SHARDS[1]}: ")):
        ts.load_file(folder)


def test_load_model_fills_a_module_from_several_files(tmp_path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = list(state)
    index = write(tmp_path, {SHARDS[0]: {n: state[n] for n in names[:3]}, SHARDS[1]: {n: state[n] for n in names[3:]}})
    for assign in (False, True):
        other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        assert ts.load_model(other, index, assign=assign) == ([], [])
        assert_same(other.state_dict(), state)
    with pytest.raises(ts.SafetensorError, match=re.escape(f"{index}: Error(s) in loading state_dict")):
        ts.load_model(torch.nn.Linear(3, 4), index)


def test_checksums_of_all_files_are_compared(tensors, tmp_path) -> None:
    names = sorted(tensors)
    index = write(
        tmp_path,
        {SHARDS[0]: {n: tensors[n] for n in names[:9]}, SHARDS[1]: {n: tensors[n] for n in names[9:]}},
        checksum=True,
    )
    assert_same(ts.load_file(index, verify=True), tensors)
    assert ts.safe_open(index).metadata() == {"format": "pt"}  # each file's checksums are its own
    damaged = bytearray((tmp_path / SHARDS[1]).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / SHARDS[1]).write_bytes(damaged)
    with pytest.raises(ts.SafetensorError, match=re.escape(f"{tmp_path / SHARDS[1]}: tensor ")):
        ts.load_file(index, verify=True)


def test_load_into_and_prefetch(tmp_path) -> None:
    index = write(tmp_path, {SHARDS[0]: {"a": torch.arange(3)}, SHARDS[1]: {"b": torch.ones(2)}})
    out = torch.zeros(2)
    ops.prefetch(str(index), ["a", "b"])
    ops.load_into(str(index), "b", out)
    assert out.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="tensor 'x': not in these 2 files, which hold 2 tensors"):
        ops.load_into(str(tmp_path), "x", out)


class TestGraphs:
    @pytest.fixture
    def checkpoint(self, tmp_path) -> Path:
        return write(tmp_path, {SHARDS[0]: {"a": torch.arange(3.0)}, SHARDS[1]: {"b": torch.ones(3)}})

    @pytest.mark.parametrize("form", ["index", "directory"])
    def test_a_graph_loads_it_and_checks_it(self, checkpoint, form: str) -> None:
        path = str(checkpoint if form == "index" else checkpoint.parent)

        @torch.compile(fullgraph=True, backend="aot_eager")
        def total(x: Tensor) -> Tensor:
            tensors = ts.load_file(path)
            return x + tensors["a"] + tensors["b"]

        assert total(torch.zeros(3)).tolist() == [1, 2, 3]
        ts.save_file({"b": torch.ones(4)}, checkpoint.parent / SHARDS[1])
        with pytest.raises(RuntimeError, match=r"tensor 'b': the file holds F32\[4\] but F32\[3\] is expected"):
            total(torch.zeros(3))


#: Whole loads: of all tensors, or of what a checkpoint is asked for as a whole.
WHOLE: dict[str, Callable[[Path], object]] = {
    "load_file": ts.load_file,
    "load_file, read": lambda path: ts.load_file(path, backend="pread"),
    "load_file, dtype": lambda path: ts.load_file(path, dtype=torch.float64),
    "get_tensors": lambda path: ts.safe_open(path).get_tensors(),
    "prefetch": lambda path: ts.safe_open(path).prefetch(),
    "iter_tensors": ts.iter_tensors,
    "load_model": lambda path: ts.load_model(torch.nn.Module(), path, strict=False),
    "load_model, assign": lambda path: ts.load_model(torch.nn.Module(), path, strict=False, assign=True),
}


def refused(index: Path, error: type[Exception] = ts.SafetensorError) -> str:
    for path in index, index.parent:
        for load in WHOLE.values():
            with pytest.raises(error):
                load(path)
        with pytest.raises(RuntimeError):
            ops.load_file(str(path))
        with pytest.raises(RuntimeError):
            ops.keys(str(path))
    with pytest.raises(error) as caught:
        ts.load_file(index)
    return str(caught.value)


def by_name(path: Path, name: str) -> list[Tensor]:
    """Through all that loads by name."""
    file = ts.safe_open(path)
    handle = torch.classes.safetensors.SafeOpen(str(path))
    first = ts.load_tensor(path, name)
    into = torch.empty_like(first), torch.empty_like(first)
    ops.load_into(str(path), name, into[0])
    handle.load_into([name], [into[1]])
    ops.prefetch(str(path), [name])
    assert name in file
    return [
        first,
        *into,
        *ops.load_tensors(str(path), [name]),
        *handle.get_tensors([name]),
        ts.load_file(path, names=name)[name],
        ts.load_file(path, names=[f"{name[0]}*"], backend="pread")[name],
        dict(ts.iter_tensors(path, names=[name]))[name],
        file.get_tensor(name),
        file.get_slice(name)[...],
        file.get_tensors([name])[name],
        dict(file.prefetch({name: None}))[name],
        torch.compile(lambda x: x + ts.load_tensor(path, name), backend="eager")(torch.zeros_like(first)),
        torch.compile(lambda x: x + ts.load_file(path, names=name)[name], backend="eager")(torch.zeros_like(first)),
    ]


def test_a_missing_shard(index) -> None:
    shard = index.parent / SHARDS[1]
    shard.unlink()
    assert refused(index, FileNotFoundError) == f"[Errno 2] No such file or directory: {str(shard)!r}"
    with pytest.raises(FileNotFoundError) as error:
        ts.load_file(index.parent)
    assert error.value.filename == str(shard)


def test_a_malformed_shard_is_named(index) -> None:
    (index.parent / SHARDS[0]).write_bytes(b"x" * 20)
    assert refused(index).startswith(f"{index.parent / SHARDS[0]}: ")


@pytest.mark.parametrize("damage", ["missing", "malformed"])
@pytest.mark.parametrize("form", ["index", "directory"])
def test_one_tensor_needs_its_own_shard_alone(tmp_path, damage: str, form: str) -> None:
    index = write(tmp_path, {SHARDS[0]: {"a": torch.arange(3.0)}, SHARDS[1]: {"b": torch.ones(2)}})
    path = index if form == "index" else tmp_path
    shard = tmp_path / SHARDS[1]
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(b"x" * 20)
    for tensor in by_name(path, "a"):
        assert tensor.tolist() == [0, 1, 2]
    file = ts.safe_open(path)
    assert file.keys() == ["a", "b"] == file.offset_keys()
    assert len(file) == 2
    assert str(shard) in repr(file)
    error = FileNotFoundError if damage == "missing" else ts.SafetensorError
    for load in (
        lambda: file.get_tensor("b"),
        lambda: file.get_slice("b"),
        lambda: file.get_tensors(),
        lambda: file.metadata(),
        lambda: ts.load_tensor(path, "b"),
        lambda: ts.load_file(path, names=["a", "b"]),
    ):
        with pytest.raises(error, match=re.escape(str(shard))):
            load()


LACKING = "is not in the file that the index assigns it to: {} (the index says that it is in {})"
HINT = "; pass strict_index=False to load only what the index assigns"


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": 0, "b": 1, "c": 1}, f"its 2 files differ; 1 tensor {LACKING.format(repr('c'), '{1}')}"),
        (
            {"a": 1, "b": 1},
            f"its 1 file differ; 1 tensor {LACKING.format(repr('a'), '{1}')}",
        ),
        ({"b": 1}, None),
        ({"a": 0, "b": 2}, None),
    ],
)
def test_an_index_of_another_checkpoint(tmp_path, weight_map, message) -> None:
    write(tmp_path, {SHARDS[0]: {"a": torch.ones(1)}, SHARDS[1]: {"b": torch.ones(1)}})
    files = [*SHARDS, "none.safetensors"]
    index = write_index(tmp_path, {name: files[number] for name, number in weight_map.items()})
    if message:
        paths = [str(tmp_path / shard) for shard in SHARDS]
        assert refused(index) == f"{index}: the index and {message.format(*paths)}"
        with pytest.raises(ts.SafetensorError, match="the index says that it is in"):
            ts.load_file(index, strict_index=False)
        assert all(tensor.tolist() == [1] for tensor in by_name(index, "b"))
    elif 2 in weight_map.values():
        assert "none.safetensors" in refused(index, FileNotFoundError)
    else:  # what no entry of the index needs is not looked at
        assert list(ts.load_file(index)) == ["b"]


def test_a_name_that_its_shard_does_not_have(tmp_path) -> None:
    write(tmp_path, {SHARDS[0]: {"a": torch.ones(1)}, SHARDS[1]: {"b": torch.ones(1)}})
    index = write_index(tmp_path, {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[1]})
    text = f"{index}: tensor 'c': the index says that it is in {tmp_path / SHARDS[1]}, which does not have it"
    for load in (
        lambda: ts.load_tensor(index, "c"),
        lambda: ts.safe_open(index).get_tensor("c"),
        lambda: ts.load_file(index, names="c"),
    ):
        with pytest.raises(ts.SafetensorError) as error:
            load()
        assert str(error.value) == text


def test_tensors_that_the_index_does_not_know(tmp_path) -> None:
    first = {"a": torch.ones(1), **{f"x{i}": torch.ones(1) for i in range(7)}}
    write(tmp_path, {SHARDS[0]: first, SHARDS[1]: {"b": torch.ones(1)}})
    index = write_index(tmp_path, {"a": SHARDS[0], "b": SHARDS[1]})
    where = f"(in {tmp_path / SHARDS[0]})"
    named = ", ".join(f"'x{i}' {where}" for i in range(5))
    assert refused(index) == (
        f"{index}: the index and its 2 files differ; 7 tensors are not in the index: {named}, and 2 more{HINT}"
    )
    assert_decides(index, ["a", "b"])


def test_a_tensor_in_two_shards(tmp_path) -> None:
    index = write(tmp_path, {SHARDS[0]: {"a": torch.ones(1)}, SHARDS[1]: {"a": torch.zeros(1), "b": torch.ones(1)}})
    paths = [tmp_path / shard for shard in SHARDS]
    write_index(tmp_path, {"a": SHARDS[0], "b": SHARDS[1]})
    assert refused(index) == (
        f"{index}: the index and its 2 files differ; 1 tensor is in two files: 'a' (in {paths[0]}, as the index says, "
        f"and in {paths[1]}){HINT}"
    )
    assert_decides(index, ["a", "b"])


def assert_decides(index: Path, names: list[str]) -> None:
    """Without ``strict_index`` the index says what is loaded; all values are 1."""
    path = str(index)
    file = ts.safe_open(path, strict_index=False)
    model = torch.nn.Module()
    for name in names:
        model.register_buffer(name, torch.zeros(1))
    assert ts.load_model(model, path, strict_index=False) == ([], [])
    loads = [
        ts.load_file(path, strict_index=False),
        ts.load_file(path, strict_index=False, rename=lambda name: name, backend="pread"),
        ops.load_file(path, strict_index=False),
        dict(zip(names, ops.load_tensors(path, names, exact=True, strict_index=False), strict=True)),
        file.get_tensors(),
        dict(file.prefetch()),
        dict(ts.iter_tensors(path, strict_index=False)),
        model.state_dict(),
        torch.compile(lambda: ts.load_file(path, strict_index=False), backend="eager", fullgraph=True)(),
        torch.compile(lambda: ops.load_file(path, strict_index=False), backend="eager", fullgraph=True)(),
    ]
    for loaded in loads:
        assert sorted(loaded) == names
        assert all(tensor.tolist() == [1] for tensor in loaded.values())
    assert sorted(ops.keys(path, strict_index=False)) == names
    assert file.keys() == names
    for name in names:
        assert all(tensor.tolist() == [1] for tensor in by_name(index, name))
    with pytest.raises(RuntimeError, match="the index and its 2 files differ"):
        ops.load_tensors(path, names, exact=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid JSON in index at byte 0: the index is empty"),
        ("{}", "not an index of a checkpoint: it has no weight_map"),
        ('{"weight_map": {"a": 1}}', "invalid JSON in index at byte 21: weight_map: tensor 'a': expected a file name"),
        (
            '{"weight_map": {"a": "../a.safetensors"}}',
            "weight_map: tensor 'a': '../a.safetensors' is not the name of a file in the folder of the index",
        ),
        (
            '{"weight_map": {"a": "x", "a": "y"}}',
            "weight_map: tensor 'a': stands there twice, in 'x' and in 'y'",
        ),
    ],
)
def test_an_index_that_is_none(tmp_path, text: str, message: str) -> None:
    index = tmp_path / INDEX
    index.write_text(text)
    assert refused(index).startswith(f"{index}: {message}")


def test_a_directory_without_a_checkpoint(tmp_path) -> None:
    with pytest.raises(IsADirectoryError, match=r"holds no \*\.safetensors and no index of such files"):
        ts.load_file(tmp_path)
    ts.save_file({}, tmp_path / "a.safetensors")
    assert ts.load_file(tmp_path) == {}
    ts.save_file({}, tmp_path / "b.safetensors")
    with pytest.raises(IsADirectoryError, match=re.escape("not clear: 'a.safetensors', 'b.safetensors'")) as error:
        ts.safe_open(tmp_path)
    assert error.value.filename == str(tmp_path)


def test_model_safetensors_goes_before_an_index_as_in_transformers(index) -> None:
    ts.save_file({"alone": torch.ones(1)}, index.parent / "model.safetensors")
    assert list(ts.load_file(index.parent)) == ["alone"]
