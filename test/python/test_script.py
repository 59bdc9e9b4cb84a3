"""TorchScript: the operators and SafeOpen in scripted code, as written, reloaded, frozen and optimised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import torch_safetensors  # noqa: F401 (registers the operators)

SafeOpen = torch.classes.safetensors.SafeOpen

# Schemas change only by appending keyword-only arguments with defaults.
SCHEMAS = [
    "load_file(str filename, Device device='cpu', *, str backend='auto', bool verify=False, bool strict_index=True)"
    " -> Dict(str, Tensor)",
    "load(Tensor data, Device device='cpu', *, bool copy=True, bool verify=False) -> Dict(str, Tensor)",
    "save_file(Dict(str, Tensor) tensors, str filename, Dict(str, str)? metadata=None, *, bool fsync=False,"
    " bool checksum=False, int? alignment=None) -> ()",
    "save(Dict(str, Tensor) tensors, Dict(str, str)? metadata=None, *, bool checksum=False) -> Tensor",
    "keys(str filename, *, bool strict_index=True) -> str[]",
    "metadata(str filename) -> Dict(str, str)",
    "load_tensor(str filename, str name, Device device='cpu', *, str backend='auto', str? expect=None,"
    " bool verify=False) -> Tensor",
    "load_tensors(str filename, str[] names, Device device='cpu', *, str backend='auto', str[]? expect=None,"
    " bool exact=False, bool verify=False, bool strict_index=True) -> Tensor[]",
    "load_into(str filename, str name, Tensor(a!) out, *, int[]? offsets=None) -> ()",
    "prefetch(str filename, str[] names) -> ()",
    "save_tensors(str filename, str[] names, Tensor[] tensors, str[]? metadata=None, *, bool fsync=False,"
    " bool checksum=False, int? alignment=None) -> ()",
]

# The class's, with `self` left out.
METHODS = [
    "__init__(str filename, Device device='cpu', str backend='auto') -> NoneType",
    "keys() -> str[]",
    "metadata() -> Dict(str, str)",
    "get_tensor(str name) -> Tensor",
    "get_tensors(str[] names) -> Tensor[]",
    "get_shape(str name) -> int[]",
    "get_dtype(str name) -> str",
    "get_slice(str name, int dim=0, int? start=None, int? end=None, int step=1) -> Tensor",
    "load_into(str[] names, Tensor[] tensors, int[][]? offsets=None) -> NoneType",
    "prefetch(str[] names) -> NoneType",
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with two tensors and metadata."""
    name = str(tmp_path / "x.safetensors")
    write(name, x=torch.arange(6.0).view(2, 3), y=torch.tensor([1, 2, 3]))
    return name


def write(filename: str, **tensors: Tensor) -> None:
    torch.ops.safetensors.save_file(tensors, filename, {"made by": "a test"})


def read(filename: str) -> dict[str, Tensor]:
    return dict(torch.ops.safetensors.load_file(filename, backend="pread"))


def assert_same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


# --- the schemas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", SCHEMAS, ids=lambda text: text.split("(")[0])
def test_schema(text: str) -> None:
    packet = getattr(torch.ops.safetensors, text.split("(")[0])
    assert packet.overloads() == ["default"]
    assert str(packet.default._schema) == str(torch._C.parse_schema(f"safetensors::{text}"))


def test_public_operators_are_these() -> None:
    schemas = torch._C._jit_get_all_schemas()
    names = {schema.name.split("::")[1] for schema in schemas if schema.name.startswith("safetensors::")}
    assert {name for name in names if not name.startswith("_")} == {text.split("(")[0] for text in SCHEMAS}


@pytest.mark.parametrize("text", METHODS, ids=lambda text: text.split("(")[0])
def test_schema_of_method(text: str, path: str) -> None:
    name = text.split("(")[0]
    schema = SafeOpen(path)._get_method(name).schema
    assert [argument.name for argument in schema.arguments[1:]] == [
        argument.name for argument in torch._C.parse_schema(text).arguments
    ]
    assert (
        str(schema).replace(f"{schema.arguments[0].type.annotation_str} _0", "").replace("(, ", "(")
        == f"{torch._C.parse_schema(text)} _0"
    )


# --- the ways a module gets to where it runs -----------------------------------------------------


def as_written(module: Any, _path: Path) -> Any:
    return module


def saved(module: Any, path: Path) -> Any:
    torch.jit.save(module, path / "module.pt")
    return torch.jit.load(path / "module.pt")


def frozen(module: Any, _path: Path) -> Any:
    return torch.jit.freeze(module)


def frozen_and_saved(module: Any, path: Path) -> Any:
    return saved(torch.jit.freeze(module), path)


def optimised(module: Any, _path: Path) -> Any:
    return torch.jit.optimize_for_inference(module)


WAYS = [as_written, saved, frozen, frozen_and_saved, optimised]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def deploy(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Scripts a module and takes it one of the ways; it then runs three times, so that the profiling executor's
    optimisations come in, and gives the last result.
    """

    def deploy(module: torch.nn.Module) -> Any:
        scripted = request.param(torch.jit.script(module.eval()), tmp_path)

        def run(*args: Any) -> Any:
            for _ in range(2):
                scripted(*args)
            return scripted(*args)

        return run

    return deploy


# --- every operator ------------------------------------------------------------------------------


class Load(torch.nn.Module):
    def forward(self, path: str) -> list[dict[str, Tensor]]:
        return [
            torch.ops.safetensors.load_file(path),
            torch.ops.safetensors.load_file(path, "cpu"),
            torch.ops.safetensors.load_file(path, device=torch.device("cpu"), backend="pread"),
        ]


def test_load_file(deploy: Any, path: str) -> None:
    for tensors in deploy(Load())(path):
        assert list(tensors) == list(read(path))  # in the order of the data
        assert_same(tensors, read(path))


class LoadBytes(torch.nn.Module):
    def forward(self, tensors: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        data = torch.ops.safetensors.save(tensors, {"a": "b"})
        return data, torch.ops.safetensors.load(data), torch.ops.safetensors.load(data, copy=False)


def test_save_and_load_of_bytes(deploy: Any, path: str) -> None:
    data, copied, aliases = deploy(LoadBytes())(read(path))
    assert data.dtype is torch.uint8
    assert_same(copied, read(path))
    assert_same(aliases, read(path))


class LoadSome(torch.nn.Module):
    def forward(self, path: str) -> list[Tensor]:
        ops = [
            torch.ops.safetensors.load_tensor(path, "x"),
            torch.ops.safetensors.load_tensor(path, "x", expect="F32[2,3]"),
        ]
        ops += torch.ops.safetensors.load_tensors(path, ["y", "x"])
        ops += torch.ops.safetensors.load_tensors(
            path, ["y", "x"], backend="pread", expect=["I64[3]", "F32[2,3]"], exact=True
        )
        return ops


def test_load_tensors(deploy: Any, path: str) -> None:
    x, y = read(path)["x"], read(path)["y"]
    assert_same(deploy(LoadSome())(path), [x, x, y, x, y, x])


class Names(torch.nn.Module):
    def forward(self, path: str) -> tuple[list[str], dict[str, str]]:
        return torch.ops.safetensors.keys(path), torch.ops.safetensors.metadata(path)


def test_keys_and_metadata(deploy: Any, path: str) -> None:
    keys, metadata = deploy(Names())(path)
    assert keys == list(read(path))
    assert metadata == {"made by": "a test"}


class LoadMeta(torch.nn.Module):
    def forward(self, path: str) -> Tensor:
        return torch.ops.safetensors.load_tensor(path, "x", torch.device("meta"))


def test_meta_device(deploy: Any, path: str) -> None:
    x = deploy(LoadMeta())(path)
    assert (x.device.type, x.shape, x.dtype) == ("meta", (2, 3), torch.float32)


@torch.jit.script
def load_in_background(path: str) -> tuple[Tensor, Tensor]:
    x = torch.jit.fork(torch.ops.safetensors.load_tensor, path, "x")
    y = torch.jit.fork(torch.ops.safetensors.load_tensor, path, "y")
    return torch.jit.wait(x), torch.jit.wait(y)


def test_jit_fork(path: str) -> None:
    assert_same(load_in_background(path), (read(path)["x"], read(path)["y"]))


# --- what only a side effect shows ---------------------------------------------------------------


class SaveAside(torch.nn.Module):
    """Nothing that it returns depends on the saves."""

    def forward(self, x: Tensor, folder: str) -> Tensor:
        torch.ops.safetensors.save_file({"x": x}, folder + "/dict")
        torch.ops.safetensors.save_tensors(folder + "/lists", ["x"], [x], ["key", "value"])
        return x + 1


def test_save_whose_result_is_unused(deploy: Any, tmp_path: Path) -> None:
    module = deploy(SaveAside())
    x = torch.arange(3.0)
    assert_same(module(x, str(tmp_path)), x + 1)
    assert_same(read(str(tmp_path / "dict")), {"x": x})
    assert_same(read(str(tmp_path / "lists")), {"x": x})
    assert torch.ops.safetensors.metadata(str(tmp_path / "lists")) == {"key": "value"}

    for name in "dict", "lists":
        (tmp_path / name).unlink()
    module(x * 2, str(tmp_path))
    assert_same(read(str(tmp_path / "dict")), {"x": x * 2})
    assert_same(read(str(tmp_path / "lists")), {"x": x * 2})


class LoadSaveLoad(torch.nn.Module):
    """The same load, three times, with a save of each form in between."""

    def forward(self, path: str) -> list[Tensor]:
        first = torch.ops.safetensors.load_tensor(path, "x")
        torch.ops.safetensors.save_file({"x": first + 1}, path)
        second = torch.ops.safetensors.load_tensor(path, "x")
        torch.ops.safetensors.save_tensors(path, ["x"], [second + 1])
        third = torch.ops.safetensors.load_tensor(path, "x")
        torch.ops.safetensors.save_file({"x": first}, path)  # the next run starts as this one did
        return [first, second, third]


def test_load_sees_the_save_before_it(deploy: Any, path: str) -> None:
    x = read(path)["x"]
    assert_same(deploy(LoadSaveLoad())(path), [x, x + 1, x + 2])
    assert_same(read(path), {"x": x})


class LoadFilesAroundSave(torch.nn.Module):
    def forward(self, path: str, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
        torch.ops.safetensors.save_file({"a": x}, path)
        before = torch.ops.safetensors.load_file(path)
        names = torch.ops.safetensors.keys(path)
        torch.ops.safetensors.save_file({"b": x}, path)
        return before, torch.ops.safetensors.load_file(path), names + torch.ops.safetensors.keys(path)


def test_load_file_and_keys_see_the_save_before_them(deploy: Any, path: str) -> None:
    x = torch.ones(2)
    before, after, names = deploy(LoadFilesAroundSave())(path, x)
    assert_same((before, after), ({"a": x}, {"b": x}))
    assert names == ["a", "b"]


class LoadInto(torch.nn.Module):
    """One tensor, filled three times from a file that changes in between."""

    def forward(self, path: str, out: Tensor) -> list[Tensor]:
        torch.ops.safetensors.load_into(path, "x", out)
        first = out.clone()
        torch.ops.safetensors.save_file({"x": out + 1}, path)
        torch.ops.safetensors.load_into(path, "x", out)
        second = out + 0
        torch.ops.safetensors.save_tensors(path, ["x"], [out + 1])
        torch.ops.safetensors.load_into(path, "x", out)
        third = out * 1
        torch.ops.safetensors.save_file({"x": first}, path)
        return [first, second, third]


def test_load_into_keeps_its_order(deploy: Any, path: str) -> None:
    x, out = read(path)["x"], torch.zeros(2, 3)
    assert_same(deploy(LoadInto())(path, out), [x, x + 1, x + 2])
    assert_same(out, x + 2)


class LoadRows(torch.nn.Module):
    """A table that is read block by block, each into the same memory."""

    def forward(self, path: str, rows: int, out: Tensor) -> list[Tensor]:
        blocks: list[Tensor] = []
        for begin in range(0, rows, out.size(0)):
            torch.ops.safetensors.load_into(path, "x", out, offsets=[begin, 1])
            blocks.append(out.clone())
        return blocks


def test_load_parts_into_the_same_memory(deploy: Any, path: str) -> None:
    x = read(path)["x"]
    assert_same(deploy(LoadRows())(path, 2, torch.zeros(1, 2)), [x[:1, 1:], x[1:, 1:]])


class LoadIntoAside(torch.nn.Module):
    """Its result does not depend on the load, nor does anything after it."""

    def forward(self, path: str, out: Tensor) -> int:
        torch.ops.safetensors.load_into(path, "x", out)
        return 1


def test_load_into_whose_result_is_unused(deploy: Any, path: str) -> None:
    out = torch.zeros(2, 3)
    deploy(LoadIntoAside())(path, out)
    assert_same(out, read(path)["x"])


class LoadIntoView(torch.nn.Module):
    def forward(self, path: str, table: Tensor) -> Tensor:
        before = table.sum()
        torch.ops.safetensors.load_into(path, "x", table[1:3])
        return torch.stack([before, table.sum()])


def test_load_into_a_view_changes_its_base(deploy: Any, path: str) -> None:
    table, x = torch.zeros(4, 3), read(path)["x"]
    assert deploy(LoadIntoView())(path, table)[1] == x.sum()
    assert_same(table, torch.cat([torch.zeros(1, 3), x, torch.zeros(1, 3)]))


class LoadIntoBuffer(torch.nn.Module):
    """Freezing must not take the buffer for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(2, 3))

    def forward(self, path: str) -> Tensor:
        torch.ops.safetensors.load_into(path, "x", self.weight)
        return self.weight * 1


def test_load_into_a_buffer(deploy: Any, path: str) -> None:
    module, x = deploy(LoadIntoBuffer()), read(path)["x"]
    assert_same(module(path), x)
    write(path, x=x + 1)
    assert_same(module(path), x + 1)


class ConstantPath(torch.nn.Module):
    """All arguments are constants: nothing but the alias analysis keeps freezing from reading the file once for all."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self) -> list[Tensor]:
        handle = torch.classes.safetensors.SafeOpen(self.path)
        loaded = torch.ops.safetensors.load_file(self.path)
        return [torch.ops.safetensors.load_tensor(self.path, "x"), handle.get_tensor("x"), loaded["x"]]


def test_files_are_read_when_the_module_runs(deploy: Any, path: str) -> None:
    module, x = deploy(ConstantPath(path)), read(path)["x"]
    assert_same(module(), [x] * 3)
    write(path, x=x + 1)
    assert_same(module(), [x + 1] * 3)


# --- errors --------------------------------------------------------------------------------------


@torch.jit.script
def load_one(path: str, name: str, expect: str | None, backend: str) -> Tensor:
    return torch.ops.safetensors.load_tensor(path, name, expect=expect, backend=backend)


@pytest.mark.parametrize(
    ("name", "expect", "backend", "message"),
    [
        ("z", None, "auto", "{path}: tensor 'z': not in this file"),
        ("x", "F32[3,2]", "auto", r"{path}: tensor 'x': .*F32\[2,\s?3\].*F32\[3,\s?2\]"),
        ("x", None, "fast", "backend 'fast' is not one of 'auto', 'mmap', 'pread'"),
    ],
)
def test_error(name: str, expect: str | None, backend: str, message: str, path: str) -> None:
    message = r"(?s)TorchScript interpreter.*RuntimeError: " + message.format(path=path)
    with pytest.raises(RuntimeError, match=message):
        load_one(path, name, expect, backend)


def test_error_of_the_system(tmp_path: Path, deploy: Any) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(RuntimeError, match=rf"RuntimeError: \[Errno 2\] No such file or directory: '{missing}'"):
        deploy(Load())(missing)


def test_error_of_a_save(tmp_path: Path, deploy: Any) -> None:
    with pytest.raises(RuntimeError, match=r"RuntimeError: \[Errno 2\] No such file or directory"):
        deploy(SaveAside())(torch.ones(1), str(tmp_path / "missing"))
    with pytest.raises(RuntimeError, match=r"RuntimeError: .*tensor 'x': is not contiguous"):
        deploy(SaveAside())(torch.ones(2, 3).t(), str(tmp_path))
    assert not (tmp_path / "dict").exists()


# --- SafeOpen ------------------------------------------------------------------------------------


@torch.jit.script
def every_method(path: str, backend: str) -> tuple[list[str], dict[str, str], list[int], str, list[Tensor]]:
    file = torch.classes.safetensors.SafeOpen(path, torch.device("cpu"), backend)
    into = [torch.zeros(2, 3), torch.zeros([3], dtype=torch.long)]
    file.load_into(["x", "y"], into)
    tensors = [file.get_tensor("x"), file.get_slice("x", 1, -2), file.get_slice("y", 0, None, None, 2)]
    tensors += file.get_tensors(["y", "x"]) + into
    return file.keys(), file.metadata(), file.get_shape("x"), file.get_dtype("x"), tensors


@pytest.mark.parametrize("backend", ["auto", "mmap", "pread"])
def test_methods(path: str, backend: str) -> None:
    x, y = read(path)["x"], read(path)["y"]
    for _ in range(3):
        keys, metadata, shape, dtype, tensors = every_method(path, backend)
        assert (keys, metadata, shape, dtype) == (list(read(path)), {"made by": "a test"}, [2, 3], "F32")
        assert_same(tensors, [x, x[:, -2:], y[::2], y, x, x, y])


@torch.jit.script
def keyword_arguments(path: str, out: Tensor) -> tuple[Tensor, Tensor]:
    file = torch.classes.safetensors.SafeOpen(filename=path, backend="pread")
    file.load_into(names=["x"], tensors=[out])
    part = torch.zeros(2, 1)
    file.load_into(["x", "x"], [part, out], offsets=[[0, 2], [0, 0]])
    return file.get_slice(name="x", dim=1, start=0, end=2), file.get_tensor(name="x")


def test_methods_take_keywords(path: str) -> None:
    x, out = read(path)["x"], torch.zeros(2, 3)
    assert_same(keyword_arguments(path, out), (x[:, :2], x))
    assert_same(out, x)


class Holder(torch.nn.Module):
    """Keeps a file open; the path goes into the saved module, not the data."""

    def __init__(self, path: str, backend: str = "auto") -> None:
        super().__init__()
        self.file = SafeOpen(path, torch.device("cpu"), backend)

    def forward(self, row: int) -> Tensor:
        return self.file.get_slice("x", 0, row, row + 1)[0] + self.file.get_tensor("x").sum()


@pytest.mark.parametrize("backend", ["auto", "pread"])
def test_module_that_holds_a_file(deploy: Any, path: str, backend: str) -> None:
    x = read(path)["x"]
    assert_same(deploy(Holder(path, backend))(1), x[1] + x.sum())


def test_held_file_is_opened_again(path: str, tmp_path: Path) -> None:
    x = read(path)["x"]
    torch.jit.save(torch.jit.script(Holder(path, "pread")), tmp_path / "module.pt")
    write(path, x=x + 1)
    module = torch.jit.load(tmp_path / "module.pt")
    assert_same(module(0), x[0] + 1 + (x + 1).sum())
    assert module.file.__getstate__()[0] == (path, "cpu", "pread")

    Path(path).unlink()
    assert_same(module(0), x[0] + 1 + (x + 1).sum())  # it stays open
    with pytest.raises(RuntimeError, match=r"\[Errno 2\] No such file or directory"):
        torch.jit.load(tmp_path / "module.pt")


class HeldLoadInto(torch.nn.Module):
    """The method has no annotation that tells TorchScript of the write."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.file = SafeOpen(path, torch.device("cpu"), "pread")

    def forward(self, out: Tensor) -> Tensor:
        before = out + 1
        self.file.load_into(["x"], [out])
        after = out + 1
        return torch.stack([before, after])


def test_load_into_of_a_held_file(deploy: Any, path: str) -> None:
    module, x = deploy(HeldLoadInto(path)), read(path)["x"]
    out = torch.zeros(2, 3)
    assert_same(module(out)[1], x + 1)
    assert_same(out, x)


def test_error_of_a_method(path: str) -> None:
    write(path, z=torch.ones(1))
    module = torch.jit.script(Holder(path))
    with pytest.raises(RuntimeError, match=f"RuntimeError: {path}: tensor 'x': not in this file"):
        module(0)


# --- under FakeTensorMode ------------------------------------------------------------------------


def calls_of_every_method(file: Any) -> dict[str, Any]:
    return {
        "keys": lambda: file.keys(),
        "metadata": lambda: file.metadata(),
        "get_shape": lambda: file.get_shape("x"),
        "get_dtype": lambda: file.get_dtype("x"),
        "get_tensor": lambda: file.get_tensor("x"),
        "get_tensors": lambda: file.get_tensors(["x", "y"]),
        "get_slice": lambda: file.get_slice("x", 0, 0, 1, 1),
        "load_into": lambda: file.load_into(["x"], [torch.zeros(2, 3)]),
        "_get_meta": lambda: file._get_meta("x"),
        "_get_view": lambda: file._get_view("x", [1], [1], 0),
    }


@pytest.mark.parametrize("opened_inside", [False, True])
@pytest.mark.parametrize("name", list(calls_of_every_method(None)))
def test_methods_under_fake_tensor_mode(name: str, opened_inside: bool, path: str) -> None:
    file = SafeOpen(path, torch.device("cpu"), "auto")
    with FakeTensorMode():
        if opened_inside:
            file = SafeOpen(path, torch.device("cpu"), "auto")
        try:
            result = calls_of_every_method(file)[name]()
        except RuntimeError as error:
            assert "under FakeTensorMode" in str(error)  # noqa: PT017 (one of two good outcomes)
            return
    results = result if isinstance(result, list) else [result]
    assert all(isinstance(one, FakeTensor) for one in results if isinstance(one, Tensor))


def test_scripted_code_under_fake_tensor_mode(path: str) -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match="FakeTensorMode"):
        every_method(path, "auto")


def test_fake_tensors_as_targets(path: str) -> None:
    file = SafeOpen(path, torch.device("cpu"), "auto")
    with FakeTensorMode():
        fake = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=f"{path}: SafeOpen loads into plain tensors only, not into a FakeTensor"):
        file.load_into(["x"], [fake])
