"""Tensors whose memory is not there: freed, resized, or not made yet. Nothing of others is read or written for them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import absent_memory
import pytest
import torch
import torch.distributed.checkpoint as dcp
from helpers import listing
from ranks import run_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

import torch_safetensors.torch as ts_torch
from torch_safetensors import (
    Writer,
    aoti,
    distributed,
    load,
    load_file,
    load_model,
    replace_tensor,
    safe_open,
    save,
    save_file,
    save_model,
    save_sharded,
)

ops = torch.ops.safetensors
classes = torch.classes.safetensors


def freed(*shape: int, nbytes: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    tensor = torch.ones(shape, dtype=dtype)
    tensor.untyped_storage().resize_(nbytes)
    return tensor


def needs(needed: int, there: int, shape: list[int], strides: list[int], offset: int = 0) -> str:
    return re.escape(
        f"needs {needed} bytes of its storage, which has {there} (storage offset {offset}, shape {shape}, strides "
        f"{strides}); if its memory was freed or moved elsewhere, as FSDP and offloading do, gather or materialize it "
        "first"
    )


def module_of(tensor: torch.Tensor, *, hooked: bool = False) -> torch.nn.Module:
    module = torch.nn.Module()
    module.register_buffer("t", tensor)
    if hooked:  # so that load_state_dict does the work
        module.register_load_state_dict_post_hook(lambda *_: None)
    return module


def save_by_writer(tensor: torch.Tensor, path: Path) -> torch.Tensor:
    with Writer(path, {"t": (tensor.dtype, tensor.shape)}, checksum=True) as writer:
        writer.write("t", tensor)
    return load_file(path, verify=True)["t"]


def save_by_replacing(tensor: torch.Tensor, path: Path) -> torch.Tensor:
    save_file({"t": torch.zeros(tensor.shape, dtype=tensor.dtype)}, path, checksum=True)
    replace_tensor(path, "t", tensor)
    return load_file(path, verify=True)["t"]


def save_directory(tensors: Any, path: Path) -> torch.Tensor:
    save_sharded(tensors, path, max_shard_size=8)
    return load_file(path)["t"]


def save_of_module(tensor: torch.Tensor, path: Path) -> torch.Tensor:
    save_model(module_of(tensor), path)
    return load_file(path)["t"]


def save_by_address(tensor: torch.Tensor, _: Path) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    return load(ts_torch.serialize(ts_torch._flatten_as_ptr({"t": tensor}, kept)))["t"]


def load_into_by_handle(path: Path, out: torch.Tensor) -> None:
    classes.SafeOpen(str(path), torch.device("cpu"), "auto").load_into(["t"], [out], None)


def saved(act: Callable[[], object], path: Path) -> torch.Tensor:
    act()
    return load_file(path)["t"]


SAVES: dict[str, absent_memory.Save] = {
    **absent_memory.SAVES,
    "save with checksum": lambda t, _: load(save({"t": t}, checksum=True), verify=True)["t"],
    "save_file with checksum": lambda t, path: saved(lambda: save_file({"t": t}, path, checksum=True), path),
    "save_model": save_of_module,
    "save_sharded": lambda t, path: save_directory({"t": t}, path),
    "save_sharded of a model": lambda t, path: save_directory(module_of(t), path),
    "Writer": save_by_writer,
    "replace_tensor": save_by_replacing,
    "operator save": lambda t, _: ops.load(ops.save({"t": t}))["t"],
    "operator save_file": lambda t, path: saved(lambda: ops.save_file({"t": t}, str(path)), path),
    "torch.serialize": save_by_address,
}

LOADS: dict[str, absent_memory.Load] = {
    **absent_memory.LOADS,
    "SafeOpen.load_into": lambda path, out: classes.SafeOpen(str(path), torch.device("cpu"), "auto").load_into(
        ["t"], [out], None
    ),
    "load_model": lambda path, out: load_model(module_of(out), path),
    "load_model through load_state_dict": lambda path, out: load_model(module_of(out, hooked=True), path),
}


@pytest.mark.parametrize("way", SAVES)
def test_saves_of_random_views(way: str, tmp_path: Path) -> None:
    absent_memory.check_saves({way.replace(" ", "_"): SAVES[way]}, tmp_path, seed=1, count=150)


@pytest.mark.parametrize("way", LOADS)
def test_loads_into_random_views(way: str, tmp_path: Path) -> None:
    absent_memory.check_loads({way: LOADS[way]}, tmp_path, seed=2, count=150)


def test_loads_from_random_buffers() -> None:
    absent_memory.check_buffers(seed=3, count=300)


@pytest.mark.parametrize("way", SAVES)
def test_a_save_names_the_tensor_and_both_sizes(way: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^tensor 't' " + needs(16, 0, [4], [1])):
        SAVES[way](freed(4), tmp_path / "x")
    base = torch.ones(1000)
    part = base[10:20].view(2, 5)
    base.untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="^tensor 't' " + needs(80, 8, [2, 5], [5, 1], offset=10)):
        SAVES[way](part, tmp_path / "y")


@pytest.mark.parametrize("way", LOADS)
def test_a_load_names_the_file_too_and_writes_nothing(way: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"t": torch.ones(300_000)}, path)
    out = freed(300_000, nbytes=8)
    with pytest.raises(ValueError, match=f"^{path}: tensor 't' " + needs(1_200_000, 8, [300_000], [1])):
        LOADS[way](path, out)
    assert out.untyped_storage().nbytes() == 8
    assert out._version == 0


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file({"t": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="needs 16 bytes"):
        save_file({"t": freed(4)}, path)
    with pytest.raises(ValueError, match="needs 8 bytes"):
        replace_tensor(path, "t", freed(2))
    assert listing(tmp_path) == ["x"]
    assert torch.equal(load_file(path)["t"], torch.ones(2))


def test_a_writer_goes_on_after_it(tmp_path: Path) -> None:
    with Writer(tmp_path / "x", {"t": torch.ones(2)}) as writer:
        with pytest.raises(ValueError, match=r"^tensor 't' needs 8 bytes"):
            writer.write("t", freed(2))
        writer.write("t", torch.ones(2))
    assert torch.equal(load_file(tmp_path / "x")["t"], torch.ones(2))


def test_a_spec_needs_no_memory(tmp_path: Path) -> None:
    with Writer(tmp_path / "x", {"t": freed(2)}) as writer:
        writer.write("t", torch.ones(2))


def test_a_model_that_is_refused_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file({"0.weight": torch.ones(2, 2), "1.weight": torch.ones(3, 2)}, path)
    for hooked in (False, True):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 3, bias=False))
        if hooked:
            model.register_load_state_dict_post_hook(lambda *_: None)
        old = model[0].weight.detach().clone()
        model[1].weight.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"tensor '1\.weight' needs 24 bytes of its storage, which has 0 "):
            load_model(model, path)
        assert torch.equal(model[0].weight, old)


@pytest.mark.parametrize("hooked", [False, True])
def test_what_is_replaced_needs_no_memory(hooked: bool, tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file({"t": torch.ones(2)}, path)
    model = module_of(freed(2), hooked=hooked)
    assert load_model(model, path, assign=True) == ([], [])
    assert torch.equal(model.t, torch.ones(2))


def test_a_tie_does_not_hide_it(tmp_path: Path) -> None:
    """The part that is left is the whole of its storage, and would stand for the whole, of which 998 are missing."""
    base = torch.zeros(1000)
    model = torch.nn.Module()
    model.register_buffer("all", base)
    model.register_buffer("head", base[:2])
    base.untyped_storage().resize_(8)
    for act in (save_model, save_sharded):
        with pytest.raises(ValueError, match="^tensor 'all' " + needs(4000, 8, [1000], [1])):
            act(model, tmp_path / "x")


def test_bytes_that_the_operators_take(tmp_path: Path) -> None:
    """Those of the Python package's own operators are checked, too: anybody can call them."""
    wide = torch.zeros(1, dtype=torch.uint8).expand(1000)
    for data in (freed(100, dtype=torch.uint8), wide, torch.zeros(200, dtype=torch.uint8)[::2]):
        for call in (
            lambda data=data: ops._write_file(str(tmp_path / "x"), data, False),
            lambda data=data: ops._parse_index("source", data),
            lambda data=data: ops._header_size("source", data, None),
            lambda data=data: classes._SourceHeader("source", data, None),
        ):
            with pytest.raises(ValueError, match=r"needs 100 bytes|expected a contiguous"):
                call()
    assert listing(tmp_path) == []


def test_data_that_was_freed() -> None:
    data = torch.frombuffer(bytearray(save({"t": torch.ones(2)})), dtype=torch.uint8).clone()
    size = data.numel()
    data.untyped_storage().resize_(0)
    for copy in (True, False):
        with pytest.raises(ValueError, match="^data " + needs(size, 0, [size], [1])):
            load(data, copy=copy)


def test_data_that_is_negated_lazily() -> None:
    """Not by torch, before anybody has looked at its memory."""
    data = torch.frombuffer(bytearray(save({"t": torch.ones(2)})), dtype=torch.uint8).clone()
    lazy = torch._neg_view(-data)
    assert torch.equal(load(lazy)["t"], torch.ones(2))
    with pytest.raises(ValueError, match="copy=False needs contiguous data"):
        load(lazy, copy=False)
    lazy.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=r"^data needs "):
        load(lazy)


def test_data_that_is_aliased_cannot_be_freed() -> None:
    """As a bytearray cannot be resized while it is."""
    data = torch.frombuffer(bytearray(save({"t": torch.ones(2)})), dtype=torch.uint8).clone()
    tensors = load(data, copy=False)
    with pytest.raises(RuntimeError, match="not resizable"):
        data.untyped_storage().resize_(0)
    assert torch.equal(tensors["t"], torch.ones(2))


def test_an_index_that_was_freed(tmp_path: Path) -> None:
    save_file({"t": torch.arange(4)}, tmp_path / "x")
    with safe_open(tmp_path / "x") as file:
        part = file.get_slice("t")
        for index in (freed(2, dtype=torch.int64), freed(4, dtype=torch.bool), freed(dtype=torch.int64)):
            with pytest.raises(ValueError, match=r"^tensor 'index' needs "):
                part[index]


def test_addresses() -> None:
    spec = ts_torch.TensorSpec(dtype="float32", shape=[2], data_ptr=0, data_len=8)
    with pytest.raises(ValueError, match=r"^tensor 't' needs 8 bytes, but its data_ptr is 0$"):
        ts_torch.serialize({"t": spec})
    with pytest.raises(ValueError, match="needs 8 bytes"):
        ts_torch._to_ndarray(freed(2))
    with pytest.raises(ValueError, match="needs 8 bytes"):
        ts_torch._tobytes(freed(2), "t")


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_save_in_a_graph(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "x"

    def save_it(tensor: torch.Tensor) -> torch.Tensor:
        save_file({"t": tensor}, path)
        return torch.ones(1)

    compiled = torch.compile(save_it, fullgraph=True, backend=backend)
    compiled(torch.ones(4))
    with pytest.raises(ValueError, match="^tensor 't' " + needs(16, 0, [4], [1])):
        compiled(freed(4))
    assert torch.equal(load_file(path)["t"], torch.ones(4))


def test_a_package_of_a_program_that_was_freed(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    program = torch.export.export(model, (torch.ones(1, 2),))
    model.weight.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="^tensor 'weight' " + needs(24, 0, [3, 2], [2, 1])):
        aoti.package(program, tmp_path / "p.pt2", weights=tmp_path / "w.safetensors")
    assert listing(tmp_path) == []


UNINITIALIZED = (
    "is an uninitialized parameter or buffer, which has no shape and no values yet: run its lazy module once, or "
    "materialize it, first"
)


@pytest.mark.parametrize("make", [UninitializedParameter, UninitializedBuffer])
def test_an_uninitialized_tensor_is_not_saved(make: Callable[[], torch.Tensor], tmp_path: Path) -> None:
    tensors = {"there": torch.ones(2), "t": make()}
    path = tmp_path / "x"
    for call in (
        lambda: save(tensors),
        lambda: save_file(tensors, path),
        lambda: save_sharded(tensors, path),
        lambda: Writer(path, tensors),
        lambda: ops.save(tensors),
        lambda: ops.save_file(tensors, str(path)),
        lambda: classes._Writer(str(path), "t", [1], [[tensors["t"]]], None, False, False, 0),
    ):
        with pytest.raises(ValueError, match=f"^tensor 't' {UNINITIALIZED}$"):
            call()
    assert listing(tmp_path) == []
    with Writer(path, {"t": (torch.float32, (0,))}) as writer:
        with pytest.raises(ValueError, match=f"^tensor 't' {UNINITIALIZED}$"):
            writer.write("t", tensors["t"])
        writer.write("t", torch.ones(0))
    with pytest.raises(ValueError, match=f"^tensor 't' {UNINITIALIZED}$"):
        replace_tensor(path, "t", tensors["t"])
    save_file({"t": torch.ones(0)}, path)  # of that shape, and there


class Plain(torch.nn.Module):
    """Holds one without being a lazy module, so that torch cannot make it while loading."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = UninitializedParameter()


@pytest.mark.parametrize("make", [lambda: torch.nn.LazyLinear(3), lambda: torch.nn.LazyBatchNorm1d(), Plain])
def test_a_lazy_model_is_not_saved(make: Callable[[], torch.nn.Module], tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), make())
    for act in (save_model, save_sharded):
        with pytest.raises(ValueError, match=rf"^tensor '1\.weight' {UNINITIALIZED}$"):
            act(model, tmp_path / "x")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("assign", [False, True])
def test_lazy_modules_load_as_torch_loads_them(assign: bool, tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_model(torch.nn.Linear(2, 3), path)
    lazy = torch.nn.LazyLinear(3)
    assert load_model(lazy, path, assign=assign) == ([], [])
    tensors = load_file(path)
    expected = torch.nn.functional.linear(torch.ones(1, 2), tensors["weight"], tensors["bias"])
    assert torch.equal(lazy(torch.ones(1, 2)), expected)
    missing = torch.nn.Sequential(torch.nn.LazyLinear(3))
    assert load_model(missing, path, strict=False, assign=assign) == (["0.bias", "0.weight"], ["bias", "weight"])


def test_an_uninitialized_tensor_of_another_module_is_not_loaded_into(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file({"weight": torch.ones(3)}, path)
    model = Plain()
    with pytest.raises(ValueError, match=f"^{path}: tensor 'weight' {UNINITIALIZED}$"):
        load_model(model, path)
    assert load_model(model, path, assign=True) == ([], [])
    assert torch.equal(model.weight, torch.ones(3))


def spread(is_freed: bool, placement: Any) -> DTensor:
    """A DTensor of 2 ranks, each with 3 rows of its own, which may be freed on the last."""
    mesh = init_device_mesh("cpu", (2,))
    local = torch.ones(3, 2)
    tensor = DTensor.from_local(local, mesh, [placement], run_check=False)
    if is_freed and mesh.get_rank() == 1:
        tensor.to_local().untyped_storage().resize_(8)
    return tensor


def error_of(act: Callable[[], object]) -> str:
    """Its text; of torch's checkpoint exceptions that of the rank that failed."""
    try:
        act()
    except dcp.CheckpointException as error:
        return next(f"{type(one).__name__} {one}" for one, _ in error.failures.values())
    except Exception as error:
        return f"{type(error).__name__} {error}"
    return ""


def save_what_one_rank_freed(folder: str) -> list[str]:
    errors = []
    for placement in Shard(0), Replicate():
        tensors = {"there": spread(False, placement), "t": spread(True, placement)}
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        errors += [
            error_of(functools.partial(distributed.save_file, tensors, f"{folder}/a")),
            error_of(functools.partial(distributed.save_model, module, f"{folder}/b", max_shard_size=8)),
        ]
    tensors = {"t": spread(True, Shard(0))}
    errors.append(error_of(lambda: dcp.save(tensors, storage_writer=distributed.SafetensorsWriter(f"{folder}/c"))))
    return errors


def load_into_what_one_rank_freed(folder: str) -> list[str]:
    errors = []
    path = f"{folder}/model.safetensors"
    for strategy in "independent", "broadcast":
        for dtype in torch.float32, torch.float64:
            tensor = spread(False, Shard(0)).to(dtype)
            if torch.distributed.get_rank() == 1:
                tensor.to_local().untyped_storage().resize_(8)
            module = torch.nn.Module()
            module.register_buffer("t", tensor)
            reader = distributed.SafetensorsReader(folder, strategy=strategy)
            errors += [
                error_of(functools.partial(distributed.load_model, module, path, strategy=strategy)),
                error_of(functools.partial(dcp.load, {"t": tensor}, storage_reader=reader)),
            ]
    return errors


def test_saves_of_several_ranks(tmp_path: Path) -> None:
    for errors in run_ranks(2, save_what_one_rank_freed, str(tmp_path)):
        assert len(errors) == 5
        for error in errors:
            assert re.search("ValueError.*tensor 't' " + needs(24, 8, [3, 2], [2, 1]), error), error
    assert listing(tmp_path) in ([], ["c"])
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_loads_of_several_ranks(tmp_path: Path) -> None:
    save_file({"t": torch.zeros(6, 2)}, tmp_path / "model.safetensors")
    for errors in run_ranks(2, load_into_what_one_rank_freed, str(tmp_path)):
        assert len(errors) == 8
        for number, error in enumerate(errors):
            size = 24 if number % 4 < 2 else 48
            assert re.search("ValueError.*tensor 't' " + needs(size, 8, [3, 2], [2, 1]), error), error


def save_uninitialized(folder: str) -> list[str]:
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(3))
    return [
        error_of(lambda: distributed.save_file({"t": UninitializedParameter()}, f"{folder}/a")),
        error_of(lambda: distributed.save_model(lazy, f"{folder}/a")),
        error_of(lambda: distributed.save_model(Plain(), f"{folder}/a")),
    ]


def test_uninitialized_on_several_ranks(tmp_path: Path) -> None:
    for errors in run_ranks(2, save_uninitialized, str(tmp_path)):
        for name, error in zip(("t", "0.weight", "weight"), errors, strict=True):
            assert error.startswith(f"ValueError tensor '{name}' {UNINITIALIZED}"), error
    assert listing(tmp_path) == []
