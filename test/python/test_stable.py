"""The library on torch's stable ABI, beside the one for this torch: the same bytes, tensors, errors and schemas."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stable_program
import torch
from helpers import random_tensors
from installed import RELEASE, needed

import torch_safetensors
from torch_safetensors import _library, load_file, save, save_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")

PACKAGE = Path(torch_safetensors.__file__).parent
STABLE = Path("lib/stable/libtorch_safetensors_stable.so")


@pytest.fixture(scope="module")
def stable_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package without the library for this torch, and with one for another; the folder to import it from."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, site / "torch_safetensors", ignore=shutil.ignore_patterns("__pycache__", "torch[0-9]*"))
    other = site / "torch_safetensors/lib/torch2_99/libtorch_safetensors.so"
    other.parent.mkdir()
    other.write_bytes(b"not for this torch")
    return site


def run(code: str, *arguments: Any, site: Path, **env: str) -> str:
    """Runs it with that package, and :mod:`stable_program`; what it printed."""
    paths = [str(site), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys, pathlib\n{code}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **env},
        cwd=site,  # Python would look in the current folder first.
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_needs_only_the_stable_abi() -> None:
    """It links one library of torch, of which it takes C functions; what C++ names would change."""
    assert [name for name in needed(PACKAGE / STABLE) if "torch" in name or "c10" in name] == ["libtorch_cpu"]
    names = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", PACKAGE / STABLE], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not [name for name in names if name.startswith(("_ZN2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch"))]
    assert any(name.startswith("aoti_torch_") for name in names)


def test_schemas_are_those_of_the_other_library(stable_package: Path) -> None:
    code = "import stable_program; print(json.dumps(stable_program.schemas()))"
    ours, theirs = stable_program.schemas(), json.loads(run(code, site=stable_package))
    lists = ("keys", "load_into", "load_tensor", "load_tensors", "prefetch", "save_tensors")
    assert sorted(theirs) == [f"safetensors::{name}" for name in lists]
    for name, arguments in theirs.items():
        # The other may have grown by keyword-only arguments with defaults.
        assert ours[name][: len(arguments)] == arguments, name


def test_files_are_the_same_to_the_byte(stable_package: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "ours", tmp_path / "theirs"]
    for folder in folders:
        folder.mkdir()
        for seed in range(8):
            save_file(random_tensors(seed), folder / f"{seed}.safetensors")
        save_file({}, folder / "empty.safetensors")
        (folder / "conjugate.safetensors").write_bytes(save({"x": torch.tensor([1 + 2j]).conj()}))
    stable_program.save_again(folders[0])
    run("import stable_program; stable_program.save_again(pathlib.Path(sys.argv[1]))", folders[1], site=stable_package)
    ours, theirs = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert len(ours) == 10 * 5
    assert ours == theirs


def test_lazy_views_are_resolved(stable_package: Path, tmp_path: Path) -> None:
    code = """
import torch, torch_safetensors
x = torch.tensor([1 + 2j, 3 - 4j])
tensors = {"conj": x.conj(), "neg": x.conj().imag.contiguous(), "lazy": x[:1].conj().imag}
torch_safetensors.save_file(tensors, sys.argv[1])
"""
    run(code, tmp_path / "x", site=stable_package)
    x = torch.tensor([1 + 2j, 3 - 4j])
    loaded = load_file(tmp_path / "x")
    assert torch.equal(loaded["conj"], x.conj().resolve_conj())
    assert torch.equal(loaded["neg"], -x.imag)
    assert torch.equal(loaded["lazy"], -x[:1].imag)


def test_errors_are_the_same(stable_package: Path, tmp_path: Path) -> None:
    path, folder = tmp_path / "file.safetensors", tmp_path / "folder"
    folder.mkdir()
    save_file({"w": torch.ones(2, 3)}, path)
    code = """
import stable_program
print(json.dumps(stable_program.failures(sys.argv[1], pathlib.Path(sys.argv[2]))))
"""
    ours = stable_program.failures(str(path), folder)
    theirs = json.loads(run(code, path, folder, site=stable_package))
    assert sorted(ours) == sorted(stable_program.FAILING)
    assert theirs == ours
    assert load_file(path).keys() == {"w"}


def test_errors_are_the_same_under_a_mode_that_watches(stable_package: Path, tmp_path: Path) -> None:
    code = """
import stable_program
from torch.utils.flop_counter import FlopCounterMode
path, folder = sys.argv[1], pathlib.Path(sys.argv[2])
expected = stable_program.failures(path, folder)
with FlopCounterMode(display=False):
    assert stable_program.failures(path, folder) == expected
assert sorted(expected) == sorted(stable_program.FAILING)
"""
    save_file({"w": torch.ones(2, 3)}, tmp_path / "file.safetensors")
    run(code, tmp_path / "file.safetensors", tmp_path / "nothing", site=stable_package)


def test_faking_takes_no_fake_tensor_for_memory(stable_package: Path, tmp_path: Path) -> None:
    code = """
import torch, torch_safetensors as ts
from torch._subclasses import FakeTensorMode
x = torch.ones(2, 3)
data = ts.save({"x": x})
with FakeTensorMode(allow_non_fake_inputs=True):
    fake = torch.ones(2, 3)
    ts.save_file({"x": fake}, sys.argv[1])
    for call in lambda: ts.save({"x": fake}), lambda: ts.save({"x": x}), lambda: ts.load(data):
        try:
            call()
        except Exception as error:
            print(error)
"""
    printed = run(code, tmp_path / "x", site=stable_package).splitlines()
    saved = "safetensors::_save_bytes cannot be traced: it is for eager code"
    loaded = (
        "safetensors::_load_bytes cannot be traced: what it returns depends on the data. Load outside of the graph, "
    )
    assert printed == [saved, saved, f"{loaded}or from a file with load_file"]
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_saved(stable_package: Path, tmp_path: Path) -> None:
    code = """
import torch, torch_safetensors
x = torch.ones(2, 3)
for tensors in {"a": x, "b": x}, {"a": x.t()}, {"a": x.to_sparse()}, {"a": x.to(torch.complex32)}:
    try:
        torch_safetensors.save_file(tensors, sys.argv[1])
    except Exception as error:
        print(type(error).__name__, error)
"""
    assert run(code, tmp_path / "x", site=stable_package).splitlines() == [
        "RuntimeError tensor 'b': Some tensors share memory: it overlaps tensor 'a'; save a .clone() of one",
        "ValueError tensor 'a': is not contiguous; call .contiguous() first, or if it is a view of another tensor, "
        "save that one",
        "ValueError tensor 'a': is not dense, and the format holds dense tensors; call .to_dense() first",
        "ValueError tensor 'a': the format has no dtype for ComplexHalf; save torch.view_as_real(tensor) instead",
    ]
    assert not (tmp_path / "x").exists()


def test_memory_that_is_not_there(stable_package: Path, tmp_path: Path) -> None:
    code = """
import absent_memory
folder = pathlib.Path(sys.argv[1])
absent_memory.check_saves(absent_memory.SAVES, folder, seed=4, count=300)
absent_memory.check_loads(absent_memory.LOADS, folder, seed=5, count=300)
absent_memory.check_buffers(seed=6, count=300, copies=(True,))
"""
    run(code, tmp_path, site=stable_package)


def test_a_dtensor_is_told_where_it_is_saved(stable_package: Path, tmp_path: Path) -> None:
    code = """
import torch, torch.distributed as dist, torch_safetensors as ts
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
dist.init_process_group("gloo", "file://" + sys.argv[1], world_size=1, rank=0)
spread = distribute_tensor(torch.ones(2), init_device_mesh("cpu", (1,)), [Shard(0)])
for function in lambda: ts.save({"w": spread}), lambda: ts.save_file({"w": spread}, sys.argv[1] + ".x"):
    try:
        function()
    except ValueError as error:
        print(error)
dist.destroy_process_group()
"""
    text = "tensor 'w' is a DTensor, of which this process holds a part: save it with "
    expected = f"{text}torch_safetensors.distributed.save_file, or its full_tensor()"
    assert run(code, tmp_path / "store", site=stable_package).splitlines() == [expected] * 2


def test_reading_into_counts_a_version_and_refuses_others(stable_package: Path, tmp_path: Path) -> None:
    save_file({"w": torch.ones(2, 3)}, tmp_path / "w")
    code = """
import torch, torch_safetensors
out = torch.zeros(3, 2).t()
torch.ops.safetensors.load_into(sys.argv[1], "w", out)
assert out.eq(1).all() and out._version == 1
for wrong in torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float16):
    try:
        torch.ops.safetensors.load_into(sys.argv[1], "w", wrong)
    except ValueError as error:
        print(error)
"""
    text = f"{tmp_path / 'w'}: tensor 'w': the file holds Float [2, 3] but the tensor to load into is "
    assert run(code, tmp_path / "w", site=stable_package).splitlines() == [text + "Float [3, 2]", text + "Half [2, 3]"]


def test_tensors_have_storages_of_their_own(stable_package: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, dtype=torch.uint8), "b": torch.ones(5)}, tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    code = """
import torch_safetensors
for backend in "mmap", "pread":
    for tensor in torch_safetensors.load_file(sys.argv[1], backend=backend).values():
        storage = tensor.untyped_storage()
        assert storage.nbytes() == tensor.nbytes and not storage.resizable()
        tensor.add_(1)
"""
    run(code, tmp_path / "x", site=stable_package)
    assert (tmp_path / "x").read_bytes() == before


def test_a_name_asked_for_twice_gives_two_tensors(stable_package: Path, tmp_path: Path) -> None:
    save_file({"small": torch.arange(5), "large": torch.arange(1 << 17)}, tmp_path / "x")
    code = """
for backend in "mmap", "pread":
    for name in "small", "large":
        names = [name, "small", name, name]
        results = torch.ops.safetensors.load_tensors(sys.argv[1], names, backend=backend)
        whole = torch.arange(len(results[0]))
        for i in 0, 2, 3:
            assert torch.equal(results[i], whole), (backend, name, i)
            results[i].fill_(-1)
        assert len({result.data_ptr() for result in results}) == 4
"""
    run("import torch, torch_safetensors\n" + code, tmp_path / "x", site=stable_package)


def test_compiled_and_packaged(stable_package: Path, tmp_path: Path) -> None:
    """By Inductor and AOTInductor; the package then runs without the Python package, as in a C++ program."""
    inductor = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    code = "import stable_program; stable_program.package(pathlib.Path(sys.argv[1]))"
    run(code, tmp_path, site=stable_package, **inductor)
    code = """
import ctypes, torch
assert not hasattr(torch.ops.safetensors, "load_tensors")
ctypes.CDLL(sys.argv[1]).torch_safetensors_define_operators()
model = torch._inductor.aoti_load_package(sys.argv[2])
assert torch.equal(model(torch.ones(4, 3)), torch.full((4, 2), 43.0))
"""
    run(code, stable_package / "torch_safetensors" / STABLE, tmp_path / "package.pt2", site=stable_package)
    assert torch.equal(load_file(tmp_path / "results.safetensors")["y"], torch.full((4, 2), 4.0))


def test_missing_operators_say_what_they_need(stable_package: Path) -> None:
    code = """
import torch, torch_safetensors
from torch_safetensors import ops
for missing in (
    lambda: torch.ops.safetensors.load_file,
    lambda: torch.classes.safetensors.SafeOpen,
    lambda: ops.save_file,
    lambda: ops.SafeOpen,
):
    try:
        missing()
    except AttributeError as error:
        print(error)
assert not hasattr(torch.ops.safetensors, "load_file")
assert ops.load_tensors is torch.ops.safetensors.load_tensors
"""
    operators, classes = "torch.ops.safetensors", "torch.classes.safetensors"
    names = [f"{operators}.load_file", f"{classes}.SafeOpen", f"{operators}.save_file", f"{classes}.SafeOpen"]
    expected = [_message(name, "those for 2.99", other=True) for name in names]
    assert run(code, site=stable_package).splitlines() == expected


def test_packages_with_weights_apart_need_the_build(stable_package: Path) -> None:
    code = """
try:
    import torch_safetensors.aoti
except ImportError as error:
    print(error)
"""
    assert run(code, site=stable_package) == f"{_message('torch_safetensors.aoti', 'those for 2.99', other=True)}\n"


def test_without_any_library(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "lib")
    shutil.copytree(PACKAGE, tmp_path / "torch_safetensors", ignore=ignored)
    code = """
try:
    import torch_safetensors
except ImportError as error:
    print(error)
"""
    assert run(code, site=tmp_path) == f"{_message('torch_safetensors', 'none')}\n"


def test_a_torch_that_is_too_old(stable_package: Path) -> None:
    """Its stable ABI has not all that is needed."""
    code = """
import torch
torch.__version__ = "2.10.1"
try:
    import torch_safetensors
except ImportError as error:
    print(error)
"""
    expected = _message("torch_safetensors", "those for 2.99", other=True).replace(RELEASE, "2.10")
    assert run(code, site=stable_package) == f"{expected}\n"


def _message(what: str, there: str, *, other: bool = False) -> str:
    rebuild = "build it in its source folder: pip install --no-build-isolation --force-reinstall --no-deps ."
    remedy = f"install one of these releases of torch, or {rebuild}" if other else rebuild
    return f"{what} needs a build for torch {RELEASE}, and this torch_safetensors holds {there}: {remedy}"


def test_the_build_for_this_torch_is_preferred() -> None:
    assert not _library.uses_stable_abi
    assert Path(torch_safetensors.library_path()).parent.name == f"torch{RELEASE.replace('.', '_')}"


def test_options_that_nothing_has_are_refused_in_pythons_words(stable_package: Path, tmp_path: Path) -> None:
    """Whatever their value; those that need the build may have the value that asks for nothing."""
    save_file({"w": torch.ones(2)}, tmp_path / "x")
    code = """
import torch, torch_safetensors as ts
path, tensors = sys.argv[1], {"w": torch.ones(2)}
calls = {
    "load_file": lambda **o: ts.load_file(path, **o), "load": lambda **o: ts.load(open(path, "rb").read(), **o),
    "load_tensor": lambda **o: ts.load_tensor(path, "w", **o), "save": lambda **o: ts.save(tensors, **o),
    "save_file": lambda **o: ts.save_file(tensors, path + "2", **o),
}
for name, call in calls.items():
    for value in None, False, 1:
        try:
            call(typo=value)
        except TypeError as error:
            assert str(error) == f"{name}() got an unexpected keyword argument 'typo'", error
        else:
            raise AssertionError(name)
for options in {"threads": None, "progress": False, "verify": False}, {"names": None, "dtype": None}:
    assert list(ts.load_file(path, **options)) == ["w"]
for call, option in (ts.load_file, "threads"), (ts.load_file, "names"), (ts.load_tensor, "verify"):
    try:
        call(path, *(["w"] if call is ts.load_tensor else []), **{option: True})
    except NotImplementedError as error:
        assert str(error).startswith(f"{call.__name__}({option}=...) needs a build"), error
    else:
        raise AssertionError(option)
try:
    ts.load(b"", copy=False)
except NotImplementedError as error:
    print(error)
"""
    printed = run(code, tmp_path / "x", site=stable_package)
    assert printed == f"{_message('load(copy=False)', 'those for 2.99', other=True)}\n"
