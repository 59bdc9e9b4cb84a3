"""Inductor keeps loads and saves in order, whoever looked for its modules, and leaves other operators alone."""

import functools
import importlib
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import graph_order
import pytest
import torch
from torch._higher_order_ops.effects import _register_effectful_op
from torch._library.effects import EffectType

import torch_safetensors
from torch_safetensors import _inductor_order, load_tensor, save_file

ROOT = Path(torch_safetensors.__file__).parent.parent
ops = torch.ops.safetensors


@pytest.fixture
def environment(tmp_path):
    """For a fresh interpreter with this package, and compile caches of its own."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
    }


@pytest.mark.parametrize("way", graph_order.WAYS)
def test_saves_stay_in_order(way, tmp_path, environment):
    command = [sys.executable, "-W", "error::UserWarning:torch_safetensors", graph_order.__file__, tmp_path, way]
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


notes = []


@pytest.fixture
def foreign():
    """An operator of another library, with an effect."""
    with torch.library._scoped_library("foreign_effects", "FRAGMENT") as library:
        library.define("note(str text) -> ()")
        library.impl("note", notes.append, "CompositeExplicitAutograd")
        torch.library.register_fake("foreign_effects::note", lambda text: None, lib=library)
        handle = _register_effectful_op("foreign_effects::note", EffectType.ORDERED)
        yield torch.ops.foreign_effects.note
        handle.destroy()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_effects_of_other_libraries_happen_in_order(backend, foreign, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    path = str(tmp_path / "weights.safetensors")

    def alone(x):
        foreign("first")
        y = x @ x
        foreign("second")
        foreign("third")
        return y + 1

    def among_ours(x):
        foreign("first")
        before = load_tensor(path, "w", backend="pread")
        into = torch.zeros(4)
        ops.load_into(path, "w", into)
        foreign("second")
        save_file({"w": x}, path)
        after = load_tensor(path, "w", backend="pread")
        foreign("third")
        return before + 1, into, after

    x = torch.arange(4.0)
    with torch._inductor.config.patch(fx_graph_cache=False):
        for function, expected in (alone, (x @ x + 1,)), (among_ours, (x * 0 + 1, x * 0, x)):
            torch._dynamo.reset()
            save_file({"w": torch.zeros(4)}, path)
            notes.clear()
            got = torch.compile(function, backend=backend, fullgraph=True)(x)
            assert notes == ["first", "second", "third"]
            for tensor, wanted in zip(got if isinstance(got, tuple) else (got,), expected, strict=True):
                assert torch.equal(tensor, wanted)


def test_only_our_operators_have_lowerings_of_ours():
    lowering = importlib.import_module("torch._inductor.lowering")
    ours = {
        operator
        for operator, function in lowering.lowerings.items()
        if isinstance(function, functools.partial) and function.func.__module__.startswith("torch_safetensors")
    }
    names = "load_file", "load_tensor", "load_tensors", "prefetch", "save", "save_file", "save_tensors", "load_into"
    assert ours == {getattr(ops, name).default for name in names if hasattr(ops, name)}
    effects = lowering.lowerings[torch.ops.higher_order.with_effects]
    assert effects.__module__ == "torch._inductor.lowering"


class Operation:
    def __init__(self, name):
        self.name = name

    def get_name(self):
        return f"buf{self.name}"

    def get_operation_name(self):
        return f"op{self.name}"


def lower(graph, operator):
    def fall_back(*args):
        graph.operations += [Operation(len(graph.operations)), Operation(len(graph.operations) + 1)]
        return args

    return _inductor_order._lower(SimpleNamespace(graph=graph), operator, fall_back, "argument")


def test_each_operation_waits_for_the_last_one():
    """As Inductor of every release tells the scheduler: by the name of the operation, of what buffers it waits."""
    graph = SimpleNamespace(operations=[], effectful_ops={}, additional_buffer_deps=defaultdict(set))
    ordered = EffectType.ORDERED
    assert lower(graph, ops.save_tensors.default) == ("argument",)
    assert graph.additional_buffer_deps == {"op0": set(), "op1": set()}
    assert graph.effectful_ops == {}  # torch does that, and would else wait for the operation itself
    foreign = graph.effectful_ops[ordered] = Operation("foreign")
    lower(graph, ops.load_into.default)
    assert graph.additional_buffer_deps["op2"] == graph.additional_buffer_deps["op3"] == {"buf1", "bufforeign"}
    assert graph.effectful_ops[ordered] is graph.operations[3]
    graph.effectful_ops[ordered] = foreign
    lower(graph, ops.load_tensors.default)
    assert graph.additional_buffer_deps["op4"] == {"buf3", "bufforeign"}


@pytest.mark.parametrize("lacking", ["effectful_ops", "additional_buffer_deps"])
def test_a_release_that_orders_in_another_way_is_refused(lacking):
    graph = SimpleNamespace(operations=[], effectful_ops={}, additional_buffer_deps=defaultdict(set))
    delattr(graph, lacking)
    expected = (
        rf"^safetensors\.save_tensors\.default cannot be compiled by Inductor of torch {torch.__version__}, which "
        rf"could move it past other loads and saves \(.*'{lacking}'\): use torch\.compile\(\.\.\., "
        rf"backend=\"aot_eager\"\)$"
    )
    with pytest.raises(RuntimeError, match=expected.replace("+", r"\+")):
        lower(graph, ops.save_tensors.default)
