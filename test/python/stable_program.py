"""What test_stable.py does in both processes: that with the library for this torch, and that with the stable ABI's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import torch_safetensors as ts

ops = torch.ops.safetensors
ONES = torch.ones(2, 3)


def freed(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    tensor = torch.ones(shape, dtype=dtype)
    tensor.untyped_storage().resize_(8)
    return tensor


#: Calls that fail, by what is wrong; each gets the path of a file with w, F32 [2, 3], and an empty folder's.
FAILING: dict[str, Callable[[str, Path], Any]] = {
    "no such file": lambda path, folder: ts.load_file(folder / "missing"),
    "a directory": lambda path, folder: ts.load_tensor(folder.parent / "file.safetensors" / "x", "w"),
    "a NUL in the name": lambda path, folder: ts.load_file("a\0b"),
    "a NUL in an operator's name": lambda path, folder: ops.load_tensor("a\0b", "w"),
    "no such tensor": lambda path, folder: ts.load_tensor(path, "v"),
    "no such backend": lambda path, folder: ts.load_file(path, backend="rust"),
    "a device that is none": lambda path, folder: ts.load_file(path, "nonsense"),
    "an expectation": lambda path, folder: ops.load_tensor(path, "w", expect="F16[2,3]"),
    "as many expectations": lambda path, folder: ops.load_tensors(path, ["w"], expect=[]),
    "exactly these": lambda path, folder: ops.load_tensors(path, [], exact=True),
    "to prefetch": lambda path, folder: ops.prefetch(path, ["v"]),
    "not a tensor": lambda path, folder: ts.save_file({"x": 1}, path),
    "the metadata": lambda path, folder: ts.save_file({"x": ONES}, path, {"k": 1}),
    "odd metadata": lambda path, folder: ops.save_tensors(path, ["x"], [ONES], ["k"]),
    "a name twice": lambda path, folder: ops.save_tensors(path, ["x", "x"], [ONES, ONES.clone()]),
    "as many names": lambda path, folder: ops.save_tensors(path, ["x"], []),
    "a reserved name": lambda path, folder: ts.save_file({"__metadata__": ONES}, path),
    "the alignment": lambda path, folder: ts.save_file({"x": ONES}, path, alignment=3),
    "complex128": lambda path, folder: ts.save_file({"x": ONES.to(torch.complex128)}, path),
    "meta": lambda path, folder: ts.save_file({"x": ONES.to("meta")}, path),
    "a folder that is not there": lambda path, folder: ts.save_file({"x": ONES}, folder / "a/b"),
    "truncated bytes": lambda path, folder: ts.load(Path(path).read_bytes()[:-1]),
    "no bytes": lambda path, folder: ts.load(b""),
    "bytes of another kind": lambda path, folder: ts.load(torch.ones(2)),
    "bytes without memory": lambda path, folder: ts.load(freed(300, dtype=torch.uint8)),
    "no memory to save": lambda path, folder: ts.save_file({"x": freed(2, 3)}, path),
    "no memory to pack": lambda path, folder: ts.save({"x": freed(2, 3).t()}),
    "no memory to negate": lambda path, folder: ts.save({"x": freed(2, 3)._neg_view()}),
    "no memory to load into": lambda path, folder: ops.load_into(path, "w", freed(2, 3)),
    "no memory to load a part into": lambda path, folder: ops.load_into(path, "w", freed(2, 2), offsets=[0, 0]),
    "uninitialized": lambda path, folder: ts.save({"x": torch.nn.parameter.UninitializedParameter()}),
}


def failures(path: str, folder: Path) -> dict[str, list[str]]:
    """Types and texts of the errors."""
    found = {}
    for what, call in FAILING.items():
        try:
            call(path, folder)
        except Exception as error:
            found[what] = [type(error).__name__, str(error)]
    return found


def schemas() -> dict[str, list[list[Any]]]:
    """Of the public operators: name, type, default and kind of each argument."""
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("safetensors::")]
    return {
        name: [
            [argument.name, str(argument.type), str(argument.default_value), argument.kwarg_only]
            for argument in torch._C._get_schema(name, "").arguments
        ]
        for name in names
        if not name.startswith("safetensors::_")
    }


def save_again(folder: Path) -> None:
    """Every file in the folder, in every way."""
    for path in sorted(folder.glob("*.safetensors")):
        names, tensors = ts.load_file(path, backend="pread").keys(), ts.load_file(path, backend="mmap")
        metadata = {"file": path.name}
        assert list(names) == ops.keys(str(path))
        ts.save_file(tensors, f"{path}.saved", metadata)
        ts.save_file({name: ts.load_tensor(path, name) for name in names}, f"{path}.each", metadata, alignment=64)
        Path(f"{path}.bytes").write_bytes(ts.save(ts.load(path.read_bytes()), metadata))
        copies = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
        for name, copy in copies.items():
            ops.load_into(str(path), name, copy)
        ts.save_file(copies, f"{path}.into", metadata)


class Packaged(torch.nn.Module):
    """Loads weights, saves what it computes, and reads that again."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.weights = f"{folder}/weights.safetensors"
        self.results = f"{folder}/results.safetensors"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ops.safetensors.prefetch(self.weights, ["w"])
        y = x @ ts.load_file(self.weights)["w"]
        ts.save_file({"y": y}, self.results, {"key": "value"})
        first = ts.load_tensor(self.results, "y")
        torch.ops.safetensors.save_tensors(self.results, ["y"], [y + 1])
        return first + 10 * ts.load_tensor(self.results, "y")


def package(folder: Path) -> None:
    """Compiles it, by Inductor and AOTInductor, and runs both."""
    ts.save_file({"w": torch.ones(3, 2)}, folder / "weights.safetensors")
    ts.save_file({"y": torch.zeros(4, 2)}, folder / "results.safetensors")
    model, x = Packaged(folder), torch.ones(4, 3)
    expected = torch.full((4, 2), 3.0 + 10 * 4.0)
    assert torch.equal(torch.compile(model, fullgraph=True)(x), expected)
    program = torch.export.export(model, (x,))
    path = torch._inductor.aoti_compile_and_package(
        program,
        package_path=f"{folder}/package.pt2",
        inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},
    )
    assert torch.equal(torch._inductor.aoti_load_package(path)(x), expected)
    kept = (folder / "results.safetensors").rename(folder / "kept.safetensors")
    assert torch.equal(ts.load_file(kept)["y"], torch.full((4, 2), 4.0))
    ts.save_file({"y": torch.zeros(4, 2)}, folder / "results.safetensors")
