"""What a user does with an installed wheel, to be run by its environment: wheel_user.py <folder> <build|stable>."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch

import torch_safetensors
from torch_safetensors import load, load_file, load_tensor, save, save_file

FOLDER = Path(sys.argv[1])
TENSORS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(3, dtype=torch.bfloat16), "none": torch.zeros(0)}


def error_of(kind: type[Exception], call: Callable[[], object]) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def check_same(loaded: dict[str, torch.Tensor]) -> None:
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in TENSORS.items())


def check_eager(path: Path) -> None:
    save_file(TENSORS, path, {"key": "value"})
    for backend in "auto", "mmap", "pread":
        check_same(load_file(path, backend=backend))
    assert torch.equal(load_tensor(path, "weight"), TENSORS["weight"])
    assert load_file(path, "meta")["weight"].is_meta
    assert save(TENSORS, {"key": "value"}) == path.read_bytes()
    check_same(load(path.read_bytes()))
    assert str(FOLDER / "missing") in error_of(FileNotFoundError, lambda: load_file(FOLDER / "missing"))
    path.write_bytes(path.read_bytes()[:-1])
    assert error_of(torch_safetensors.SafetensorError, lambda: load_file(path)).startswith(f"{path}: ")


def check_graph(path: str) -> None:
    """A load, and a save that nothing reads, stay in a graph, in order. (torch 2.11 knows no paths there but str.)"""
    save_file({"y": torch.zeros(2)}, path)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def function(x: torch.Tensor) -> torch.Tensor:
        save_file({"y": x + 1}, path)
        y = torch.ops.safetensors.load_tensor(path, "y")
        torch.ops.safetensors.save_tensors(path, ["y"], [x + 2])
        return y

    assert torch.equal(function(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(load_file(path)["y"], torch.full((2,), 3.0))
    load = torch.compile(lambda: load_file(path)["y"] * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(load(), torch.full((2,), 6.0))
    save_file({"y": torch.zeros(3)}, path)
    assert "the file holds F32[3] but F32[2] is expected" in error_of(RuntimeError, load)


def check_script(path: Path) -> None:
    """TorchScript keeps saves whose results are not used, in order."""

    @torch.jit.script
    def function(path: str, x: torch.Tensor) -> torch.Tensor:
        torch.ops.safetensors.save_tensors(path, ["x"], [x])
        first = torch.ops.safetensors.load_tensor(path, "x")
        torch.ops.safetensors.save_tensors(path, ["x"], [x + 1])
        second = torch.ops.safetensors.load_tensor(path, "x")
        torch.ops.safetensors.save_tensors(path, ["x"], [x + 2])
        return torch.stack([first, second])

    for _ in range(3):  # It is optimized after the first calls.
        assert function(str(path), torch.zeros(1)).flatten().tolist() == [0, 1]
    assert load_tensor(path, "x").item() == 2


def check_build(path: Path) -> None:
    """What only the library for this torch has."""
    model = torch.nn.Linear(2, 2)
    torch_safetensors.save_model(model, path)
    assert torch_safetensors.load_model(model, path) == ([], [])
    with torch_safetensors.safe_open(path) as file:
        assert file.keys() == ["bias", "weight"]
    assert Path(torch_safetensors.library_path()).is_file()


def check_stable(path: Path) -> None:
    """The same names say in one line what they need."""
    release = ".".join(torch.__version__.split(".")[:2])
    calls = {
        "save_model": lambda: torch_safetensors.save_model(torch.nn.Linear(2, 2), path),
        "load_model": lambda: torch_safetensors.load_model(torch.nn.Linear(2, 2), path),
        "safe_open": lambda: torch_safetensors.safe_open(path),
        "library_path": torch_safetensors.library_path,
        "load_file(verify=...)": lambda: load_file(path, verify=True),
        "load(copy=False)": lambda: load(bytearray(), copy=False),
        "save_file(checksum=...)": lambda: save_file({}, path, checksum=True),
    }
    for what, call in calls.items():
        error = error_of(NotImplementedError, call)
        assert error.startswith(f"{what} needs a build for torch {release}, and this torch_safetensors holds those for")
        assert "\n" not in error


if __name__ == "__main__":
    assert Path(torch_safetensors.__file__).is_relative_to(sys.prefix), torch_safetensors.__file__
    assert Path(torch_safetensors.cmake_prefix_path, "torch_safetensors/torch_safetensorsConfig.cmake").is_file()
    libraries = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "safetensors" in line}
    (library,) = (Path(library) for library in libraries)
    assert (library.parent.name == "stable") == (sys.argv[2] == "stable"), library
    check_eager(FOLDER / "eager")
    check_script(FOLDER / "script")
    check_graph(str(FOLDER / "graph"))
    {"build": check_build, "stable": check_stable}[sys.argv[2]](FOLDER / "more")
