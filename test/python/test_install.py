"""install() and uninstall(): code written for the reference reaches this package, and then the reference again."""

from __future__ import annotations

import copy
import gc
import importlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from without_reference import CHECKS, link_packages

import torch_safetensors as ts
import torch_safetensors.torch

HERE = Path(__file__).parent
PUBLIC = ("load", "load_file", "load_model", "safe_open", "save", "save_file", "save_model")
PRIVATE = ("storage_ptr", "_find_shared_tensors", "_remove_duplicate_names", "_getdtype")
NAMES = PUBLIC + PRIVATE
REFERENCE = {name: getattr(safetensors.torch, name) for name in NAMES}
OURS = {name: getattr(torch_safetensors.torch, name) for name in NAMES}
CLIENT = """
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, load_model, save, save_file as store, save_model
from safetensors.torch import storage_ptr, _find_shared_tensors, _remove_duplicate_names, _getdtype
"""


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    ts.uninstall()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch):
    """Makes modules of some code, as importing them would."""

    def make(name: str, code: str = CLIENT) -> Any:
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(code, vars(module))
        return module

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ts.save_file({"w": torch.arange(4.0)}, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def functions(module: Any) -> dict[str, Any]:
    return {name: getattr(module, "store" if name == "save_file" else name) for name in NAMES}


def test_modules_imported_before_after_and_since(client) -> None:
    before = client("before")
    ts.install()
    since = client("since")
    assert functions(before) == functions(since) == OURS
    ts.uninstall()
    after = client("after")
    assert functions(before) == functions(since) == functions(after) == REFERENCE


def test_the_modules_of_the_reference(client) -> None:
    ts.install()
    assert {name: OURS[name] for name in PUBLIC} == {name: getattr(ts, name) for name in PUBLIC}
    assert {name: getattr(safetensors.torch, name) for name in NAMES} == OURS
    assert safetensors.safe_open is safetensors._safetensors_rust.safe_open is ts.safe_open
    ts.uninstall()
    assert {name: getattr(safetensors.torch, name) for name in NAMES} == REFERENCE
    assert safetensors.safe_open is safetensors._safetensors_rust.safe_open is REFERENCE["safe_open"]


def test_a_module_that_asked_for_ours_keeps_them(client) -> None:
    module = client("of_ours", "from torch_safetensors import load_file, safe_open")
    ts.install()
    ts.uninstall()
    assert (module.load_file, module.safe_open) == (ts.load_file, ts.safe_open)
    assert ts._files.load_file is ts.load_file


def variables_of_modules() -> dict[str, dict[str, int]]:
    return {
        name: {key: id(value) for key, value in vars(module).items()}
        for name, module in sys.modules.items()
        if isinstance(module, types.ModuleType) and name != "torch_safetensors._install"
    }


@pytest.fixture
def _without_collections() -> Iterator[None]:
    """Some package or other counts them in a variable of its module."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_collections")
def test_uninstall_puts_back_exactly_what_was_there(client) -> None:
    client("one")
    client("two", "import safetensors.torch as a; from safetensors.torch import load_file as b, _getdtype as c")
    before = variables_of_modules(), list(sys.meta_path), ts.SafetensorError.__mro__
    ts.install()
    assert variables_of_modules() != before[0]
    ts.install()
    ts.uninstall()
    assert (variables_of_modules(), list(sys.meta_path), ts.SafetensorError.__mro__) == before
    ts.uninstall()
    assert (variables_of_modules(), list(sys.meta_path), ts.SafetensorError.__mro__) == before


def test_a_module_that_is_gone_is_put_back_too(client) -> None:
    module = client("gone")
    ts.install()
    del sys.modules["gone"]
    ts.uninstall()
    assert functions(module) == REFERENCE
    sys.modules["gone"] = module  # for the fixture


def test_what_a_module_has_changed_since_is_left_alone(client) -> None:
    module = client("changed")
    ts.install()
    module.load_file = len
    del module.load
    ts.uninstall()
    assert module.load_file is len
    assert not hasattr(module, "load")


def test_lazy_modules_are_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lazy_module.py").write_text("from safetensors.torch import load_file")
    spec = importlib.util.spec_from_file_location("lazy_module", tmp_path / "lazy_module.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_module", module)
    spec.loader.exec_module(module)
    ts.install()
    assert "load_file" not in object.__getattribute__(module, "__dict__")
    assert module.load_file is ts.load_file


class Refuses:
    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"touched: {name}")


def test_objects_in_the_place_of_modules_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "refuses", Refuses())
    monkeypatch.setitem(sys.modules, "nothing", None)
    ts.install()
    ts.uninstall()


@pytest.mark.skipif(torch.__version__ < "2.13", reason="torch.load does not take these files before torch 2.13")
def test_torch_load_reaches_it(path: Path) -> None:
    def load() -> Any:
        return torch.load(path, map_location="cpu:0")

    with pytest.raises(safetensors.SafetensorError, match="cpu:0 is invalid"):
        load()
    ts.install()
    assert load()["w"].tolist() == [0, 1, 2, 3]


def test_a_module_that_imports_it_compiles(path: Path) -> None:
    """Functions of the reference do not."""
    ts.install()
    filename = str(path)  # torch 2.11 takes no other form within a graph

    @torch.compile(fullgraph=True, backend="eager")
    def double() -> torch.Tensor:
        return 2 * safetensors.torch.load_file(filename)["w"]

    assert double().tolist() == [0, 2, 4, 6]


# --- errors -------------------------------------------------------------------------------------------


def test_errors_are_caught_by_the_name_of_the_reference(client, path: Path, tmp_path: Path) -> None:
    """Also where that was put somewhere else before."""
    module = client("catches", CLIENT + "ERRORS = (SafetensorError, KeyError)")
    (tmp_path / "bad").write_bytes(b"bad")
    ts.install()
    for error in (safetensors.SafetensorError, module.SafetensorError, module.ERRORS):
        with pytest.raises(error, match="bad: header too small"):
            module.load_file(tmp_path / "bad")
    with pytest.raises(safetensors.SafetensorError, match="tensor 'zz': not in this file"):
        module.safe_open(path, "pt").get_tensor("zz")
    error = ts.SafetensorError("text")
    assert isinstance(error, RuntimeError)
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


def test_errors_are_no_longer_the_reference_s_after(tmp_path: Path) -> None:
    ts.install()
    assert issubclass(ts.SafetensorError, safetensors.SafetensorError)
    ts.uninstall()
    assert not issubclass(ts.SafetensorError, safetensors.SafetensorError)
    assert ts.SafetensorError.__bases__ == (RuntimeError,)


def test_errors_of_the_reference_are_caught_too(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"bad")
    ts.install()
    with pytest.raises(safetensors.SafetensorError, match="header too small"):
        safetensors.safe_open(tmp_path / "bad", framework="np")


# --- other frameworks ---------------------------------------------------------------------------------


def test_other_frameworks_are_the_reference_s(path: Path) -> None:
    with pytest.raises(ValueError, match="framework: 'np' is not one of"):
        ts.safe_open(path, framework="np")
    ts.install()
    for options in {}, {"backend": "pread"}:
        with safetensors.safe_open(path, framework="np", device="cpu", **options) as file:
            assert type(file) is REFERENCE["safe_open"]
            assert isinstance(file.get_tensor("w"), np.ndarray)
    with safetensors.safe_open(filename=path, framework="pt") as file:
        assert type(file) is ts.safe_open
    ts.uninstall()
    with pytest.raises(ValueError, match="framework: 'np' is not one of"):
        ts.safe_open(path, framework="np")


def test_modules_for_other_frameworks_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported before, since, and after."""

    def import_numpy() -> Any:
        monkeypatch.delitem(sys.modules, "safetensors.numpy")
        return importlib.import_module("safetensors.numpy")

    before = sys.modules["safetensors.numpy"]
    functions_before = dict(vars(before))
    ts.install()
    assert dict(vars(before)) == functions_before
    since = import_numpy()
    for module in before, since:
        assert module.load_file(path)["w"].tolist() == [0, 1, 2, 3]
    ts.uninstall()
    for module in before, since, import_numpy():
        assert module.load_file(path)["w"].tolist() == [0, 1, 2, 3]
        assert module.safe_open is REFERENCE["safe_open"]


@pytest.mark.parametrize("is_installed", [False, True])
def test_handles_are_copied_as_ever(path: Path, is_installed: bool) -> None:
    if is_installed:
        ts.install()
    handle = ts.safe_open(path, backend="pread")
    for other in copy.copy(handle), copy.deepcopy(handle), pickle.loads(pickle.dumps(handle)):
        assert other.get_tensor("w").tolist() == [0, 1, 2, 3]


# --- threads and processes ----------------------------------------------------------------------------


def test_threads_agree(client) -> None:
    modules = [client(f"module_{i}") for i in range(4)]
    failures = []

    def work(seed: int) -> None:
        try:
            for i in range(20):
                (ts.install if (i + seed) % 2 else ts.uninstall)()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    ts.install()
    assert [functions(module) for module in modules] == [OURS] * 4
    ts.uninstall()
    assert [functions(module) for module in modules] == [REFERENCE] * 4


def run(code: str, path: list[str | Path], *options: str, **popen: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, *options, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, **popen)


ROOT = Path(ts.__file__).parent.parent


def test_it_comes_before_the_reference_was_imported() -> None:
    code = """
import sys, torch_safetensors
assert not any(name.startswith("safetensors") for name in sys.modules)
torch_safetensors.install()
from safetensors import safe_open, numpy
from safetensors.torch import load_file
assert (safe_open, load_file) == (torch_safetensors.safe_open, torch_safetensors.load_file)
"""
    done = run(code, [ROOT])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reference_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "safetensors").mkdir()
    (tmp_path / "safetensors/__init__.py").write_text("raise ImportError('a library is missing')")
    code = """
import sys, torch_safetensors
before = list(sys.meta_path)
for _ in range(2):
    try:
        torch_safetensors.install()
    except ImportError as error:
        print(error)
torch_safetensors.uninstall()
assert sys.meta_path == before
"""
    done = run(code, [tmp_path, ROOT])
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "a library is missing\n" * 2)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What fails in a Python that has every package but the reference."""
    packages = link_packages(tmp_path_factory.mktemp("packages"))
    folder = str(tmp_path_factory.mktemp("without"))
    code = f"import sys; sys.argv[1:] = [{folder!r}]; import without_reference; without_reference.main()"
    done = run(code, [HERE, ROOT, packages], "-S")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("check", CHECKS)
def test_without_the_reference(outcomes: dict[str, str], check: str) -> None:
    assert check not in outcomes, outcomes[check]
