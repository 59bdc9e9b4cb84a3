"""The typed names of the operators: the same as what is registered, and of use wherever operators are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_safetensors import ops, save_file

STUB = ast.parse(Path(ops.__file__).with_suffix(".pyi").read_text())
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
(CLASS,) = (node for node in STUB.body if isinstance(node, ast.ClassDef))
METHODS = {node.name: node for node in CLASS.body if isinstance(node, ast.FunctionDef)}


def python_type(text: str) -> str:
    """``dict[str, Tensor]`` for ``Dict[str, Tensor]``, as torch prints its own types."""
    if match := re.fullmatch(r"Optional\[(.*)\]", text):
        return f"{python_type(match[1])} | None"
    text = text.replace("Dict[", "dict[").replace("Dict(", "dict[").replace(")", "]").replace("List[", "list[")
    return {"Device": "torch.device", "NoneType": "None"}.get(text, text)


def signature(schema: Any, first: list[str]) -> str:
    """As the stub should have it; ``first`` takes the place of a method's first argument."""
    arguments = list(first)
    keyword_only = False
    for argument in schema.arguments[len(first) :]:
        if argument.kwarg_only and not keyword_only:
            arguments.append("*")
            keyword_only = True
        text = f"{argument.name}: {python_type(str(argument.type))}"
        if argument.has_default_value():
            default = argument.default_value
            text += f"={'...' if isinstance(default, torch.device) else repr(default)}"
        arguments.append(text)
    returns = [python_type(str(returned.type)) for returned in schema.returns]
    return f"({', '.join(arguments)}) -> {', '.join(returned for returned in returns) or 'None'}"


def stub_signature(node: ast.FunctionDef) -> str:
    assert node.returns is not None
    return f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"


def test_every_public_operator_has_a_stub() -> None:
    names = [
        name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("safetensors::")
    ]
    public = sorted(name for name in names if not name.startswith("_"))
    assert sorted(FUNCTIONS) == public
    assert sorted(ops.__all__) == sorted([*public, "SafeOpen"])
    declared = next(node.value for node in STUB.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(declared) == ops.__all__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stubs_agree_with_schemas(name: str) -> None:
    schema = getattr(torch.ops.safetensors, name).default._schema
    assert stub_signature(FUNCTIONS[name]) == signature(schema, [])
    assert ast.get_docstring(FUNCTIONS[name])


def test_stubs_of_the_class_agree(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "w")
    file = torch.classes.safetensors.SafeOpen(str(tmp_path / "w"))
    assert list(METHODS) == [name for name in file._method_names() if name == "__init__" or not name.startswith("_")]
    for name, node in METHODS.items():
        schema = file._get_method(name).schema
        assert stub_signature(node) == signature(schema, ["self"]).replace("-> NoneType", "-> None"), name


def test_they_are_the_operators() -> None:
    for name in FUNCTIONS:
        assert getattr(ops, name) is getattr(torch.ops.safetensors, name)


def test_in_eager_code_scripts_and_graphs(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    ops.save_file({"x": torch.zeros(2)}, path, {"key": "value"})
    assert ops.metadata(path) == {"key": "value"}
    assert ops.SafeOpen(path).keys() == ops.keys(path) == ["x"]

    def function(path: str) -> torch.Tensor:
        ops.save_tensors(path, ["x"], [torch.ones(2)])
        first = ops.load_tensor(path, "x")
        ops.save_tensors(path, ["x"], [torch.ones(2) + 1])
        return first + ops.load_file(path)["x"]

    for run in function, torch.jit.script(function), torch.compile(function, fullgraph=True, backend="aot_eager"):
        save_file({"x": torch.zeros(2)}, path)
        assert torch.equal(run(path), torch.full((2,), 3.0))


def test_a_name_that_is_none() -> None:
    with pytest.raises(AttributeError, match=r"^module 'torch_safetensors\.ops' has no attribute 'nope'$"):
        ops.nope  # noqa: B018


USES = """
import torch
from torch_safetensors import ops

tensors: dict[str, torch.Tensor] = ops.load_file("x", torch.device("cpu"), backend="mmap")
one: torch.Tensor = ops.load_tensor("x", "w", expect="F32[2]")
ops.save_tensors("x", ["w"], [one], ["key", "value"], alignment=64)
ops.SafeOpen("x").get_slice("w", 0, 1).sum()
ops.load_file(1)
ops.load_tensor("x", "w", torch.device("cpu"), "mmap")
ops.load_into("x", "w", out=[one])
ops.SafeOpen("x").nope()
"""


def test_mypy_knows_them(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "uses.py").write_text(USES)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", tmp_path / "uses.py"],
        capture_output=True,
        text=True,
        cwd=Path(ops.__file__).parents[1],
    )
    lines = [line.partition(": error: ") for line in done.stdout.splitlines()]
    wrong = [(int(where.rpartition(":")[2]), what.rpartition("[")[2]) for where, found, what in lines if found]
    assert wrong == [(9, "arg-type]"), (10, "call-arg]"), (11, "arg-type]"), (12, "attr-defined]")], done.stdout
