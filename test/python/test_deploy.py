"""The library as C++ programs use it: installed, found by CMake or by dlopen, without Python.

Builds the programs of test/deploy against it (installed.py) and runs them on modules and packages made here.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from installed import INSTALLATIONS, LIBRARY, ROOT, SANITIZE, needed, python_path, run

import torch_safetensors
import torch_safetensors.aoti

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and ELF files")
in_python = pytest.mark.skipif(bool(SANITIZE), reason="Python is not built with sanitizers")


@pytest.mark.parametrize("package", INSTALLATIONS)
def test_library_needs_no_python(packages: dict[str, Path], package: str) -> None:
    libraries = needed(packages[package] / LIBRARY)
    assert {"libtorch_cpu", "libc10"} <= libraries
    assert not [name for name in libraries if "python" in name]


@in_python
def test_both_installations_hold_the_same_files(packages: dict[str, Path]) -> None:
    def files(folder: Path) -> set[str]:
        found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        return {str(path) for path in found if path.parts[0] in ("include", "lib", "share")}

    assert files(packages["wheel"]) == files(packages["cmake"])


# --- a program that links it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "other"),
    [(package, other) for package in INSTALLATIONS for other in [None, *INSTALLATIONS] if other != package],
)
def test_linked(
    package: str,
    other: str | None,
    packages: dict[str, Path],
    build: Callable[[str, str], Path],
    data: Path,
    tmp_path: Path,
) -> None:
    """With find_package and the C++ API; also where another copy of the library comes into the process later."""
    shutil.copytree(data, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("inductor"))
    program = build("test/deploy/linked", package)
    libraries = packages[other] / LIBRARY if other else ""
    version = (ROOT / "VERSION").read_text().strip()
    output = run(program, DATA=tmp_path, LIBRARIES=libraries, VERSION=version)
    assert "was loaded after version" not in output  # both are the same


# --- a program that dlopens it -------------------------------------------------------------------


class Scripted(torch.nn.Module):
    """Loads its own weights, one of them from a file that it holds open."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.file = torch.classes.safetensors.SafeOpen(path, torch.device("cpu"), "pread")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.ops.safetensors.load_tensor(self.path, "weight")
        return x @ weight.t() + self.file.get_tensor("bias")

    @torch.jit.export
    def every_operator(self, x: torch.Tensor, path: str) -> list[torch.Tensor]:
        """x, x + 1, ... each by way of another operator, and at last a save that nothing reads."""
        results = [torch.ops.safetensors.load(torch.ops.safetensors.save({"x": x}))["x"]]
        torch.ops.safetensors.save_file({"x": x + 1}, path, {"key": "value"})
        results.append(torch.ops.safetensors.load_file(path)["x"])
        torch.ops.safetensors.save_tensors(path, ["x"], [x + 2], ["name", "x"])
        results.append(torch.ops.safetensors.load_tensor(path, torch.ops.safetensors.metadata(path)["name"]))
        torch.ops.safetensors.save_file({"x": x + 3}, path)
        results += torch.ops.safetensors.load_tensors(path, torch.ops.safetensors.keys(path), exact=True)
        torch.ops.safetensors.save_file({"x": x + 4}, path)
        torch.ops.safetensors.prefetch(path, ["x"])
        out = torch.empty_like(x)
        torch.ops.safetensors.load_into(path, "x", out)
        results.append(out.clone())
        torch.ops.safetensors.save_file({"x": x + 5}, path)
        file = torch.classes.safetensors.SafeOpen(path, torch.device("cpu"), "auto")
        file.prefetch(["x"])
        file.load_into(["x"], [out])
        results.append(out)
        torch.ops.safetensors.save_file({"last": x + 6}, path)
        return results


class Packaged(torch.nn.Module):
    """Loads its weights, saves what it computes, and reads that again."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.weights = f"{folder}/weights.safetensors"
        self.dict = f"{folder}/dict.safetensors"
        self.lists = f"{folder}/lists.safetensors"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ops.safetensors.prefetch(self.weights, ["bias", "weight"])
        weights = torch_safetensors.load_file(self.weights)
        y = x @ weights["weight"].t() + weights["bias"]
        torch_safetensors.save_file({"y": y}, self.dict, {"made by": "a package"})
        torch.ops.safetensors.save_tensors(self.lists, ["y"], [y + 1])
        return y + torch_safetensors.load_tensor(self.dict, "y")


class Weightless(torch.nn.Module):
    """Its parameters come from a file, and a constant with the package."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 3))
        self.bias = torch.nn.Parameter(torch.zeros(2))
        self.constant = torch.full((2,), 10.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.t() + self.bias + self.constant


#: To compile quickly.
QUICK = {"aot_inductor.compile_wrapper_opt_level": "O0"}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, a scripted module and an AOTInductor package that load them."""
    folder = tmp_path_factory.mktemp("deploy")
    weights = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}
    torch_safetensors.save_file(weights, folder / "weights.safetensors")
    torch.jit.save(torch.jit.script(Scripted(str(folder / "weights.safetensors"))), folder / "module.pt")
    run(sys.executable, __file__, folder, TORCHINDUCTOR_CACHE_DIR=folder / "inductor", PYTHONPATH=python_path())
    return folder


def make_package(folder: Path) -> None:
    """Runs in a process of its own: the caches of Inductor are chosen when it is imported."""
    for name in "dict", "lists":
        torch_safetensors.save_file({"y": torch.zeros(4, 2)}, folder / f"{name}.safetensors")
    program = torch.export.export(Packaged(folder), (torch.ones(4, 3),))
    torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(folder / "package.pt2"),
        inductor_configs=QUICK,
    )
    torch_safetensors.aoti.package(
        torch.export.export(Weightless(), (torch.ones(4, 3),)),
        folder / "weightless.pt2",
        weights=folder / "weightless.safetensors",
        inductor_configs=QUICK,
    )


@pytest.mark.parametrize(
    "copies",
    [copies for count in (1, 2) for copies in itertools.permutations(INSTALLATIONS, count)],
    ids="-then-".join,
)
def test_dlopened(
    copies: tuple[str, ...], packages: dict[str, Path], build: Callable[[str, str], Path], data: Path
) -> None:
    """With scripted modules and AOTInductor packages; also where two copies of the library are in the process."""
    program = build("test/deploy/dlopened", INSTALLATIONS[0])
    assert "libtorch_safetensors" not in needed(program)
    output = run(program, DATA=data, LIBRARIES=":".join(str(packages[copy] / LIBRARY) for copy in copies))
    assert "was loaded after version" not in output


# --- several copies in Python --------------------------------------------------------------------

PYTHON_PROGRAM = """
import pathlib
import sys
import torch
import torch_safetensors

def check():
    path = sys.argv[1]
    x = torch.arange(3.0)
    torch_safetensors.save_file({"x": x}, path)
    assert torch.equal(torch_safetensors.load_file(path)["x"], x)
    assert torch.equal(torch.classes.safetensors.SafeOpen(path, torch.device("cpu"), "auto").get_tensor("x"), x)
    with torch_safetensors.safe_open(path) as file:
        assert torch.equal(file.get_slice("x")[1:], x[1:])
    doubled = torch.compile(lambda: torch_safetensors.load_file(path)["x"] * 2, backend="eager", fullgraph=True)
    assert torch.equal(doubled(), x * 2)

def copies():
    maps = pathlib.Path("/proc/self/maps").read_text()
    return {line.split()[-1] for line in maps.splitlines() if "libtorch_safetensors" in line}
"""


@in_python
def test_package_uses_the_copy_that_is_there(packages: dict[str, Path], site: Path, tmp_path: Path) -> None:
    other = packages["cmake"] / LIBRARY
    program = f"import torch\ntorch.ops.load_library({str(other)!r})\n{PYTHON_PROGRAM}"
    program += f"\ncheck()\nassert copies() == {{{str(other)!r}}}, copies()"
    program += f"\nassert torch_safetensors.__file__.startswith({str(site)!r})"
    run(sys.executable, "-W", "error", "-c", program, tmp_path / "x", PYTHONPATH=site)


@in_python
def test_another_copy_after_the_package(packages: dict[str, Path], site: Path, tmp_path: Path) -> None:
    program = f"{PYTHON_PROGRAM}\ntorch.ops.load_library({str(packages['cmake'] / LIBRARY)!r})"
    output = run(
        *(sys.executable, "-W", "error", "-c", f"{program}\ncheck()\nassert len(copies()) == 2", tmp_path / "x"),
        PYTHONPATH=site,
    )
    assert output == ""


# Operators as another version would have registered them.
OTHER_VERSION = """
import sys, torch
library = torch.library.Library("safetensors", "FRAGMENT")
for schema in sys.argv[1].splitlines():
    library.define(schema)
library.impl("_version", lambda: "0.0.1", "CompositeExplicitAutograd")
"""


def schemas() -> str:
    """Of all operators, a line each, but for those that need a class of this version."""
    packets = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("safetensors::")]
    texts = [str(torch._C._get_schema(name, "")) for name in packets]
    plain = [text.removeprefix("safetensors::") for text in texts if "__torch__" not in text]
    return "\n".join(text.replace("=cpu", "='cpu'") for text in plain)


@in_python
def test_another_version_is_warned_of(packages: dict[str, Path]) -> None:
    program = f"{OTHER_VERSION}\ntorch.ops.load_library({str(packages['wheel'] / LIBRARY)!r})"
    output = run(sys.executable, "-c", program, schemas())
    version = (ROOT / "VERSION").read_text().strip()
    assert output.count(f"torch_safetensors {version} was loaded after version 0.0.1") == 1


@in_python
def test_package_warns_of_another_version(site: Path) -> None:
    output = run(
        *(sys.executable, "-c", f"{OTHER_VERSION}\n{PYTHON_PROGRAM}\nassert not copies()", schemas()), PYTHONPATH=site
    )
    version = (ROOT / "VERSION").read_text().strip()
    assert output.count("UserWarning") == 1
    assert f"torch_safetensors {version} was imported after version 0.0.1 of its library" in output


if __name__ == "__main__":
    make_package(Path(sys.argv[1]))
