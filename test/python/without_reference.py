"""What test_install.py checks in a process whose Python has no package ``safetensors``.

It runs each function whose name begins with ``check_`` and prints, as JSON, the traceback of each that failed. The
argument is a folder to write to.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import torch_safetensors as ts


def link_packages(folder: Path) -> Path:
    """Fills a folder for ``PYTHONPATH`` with all packages of this Python but ``safetensors``, for ``python -S``."""
    for site in [Path(entry) for entry in sys.path if Path(entry).name == "site-packages"]:
        for entry in site.iterdir():
            link = folder / entry.name
            if not (entry.name.startswith("safetensors") or link.is_symlink()):
                link.symlink_to(entry)
    return folder


TENSORS = {"w": torch.arange(4.0), "b": torch.ones(2, dtype=torch.bfloat16)}


@contextlib.contextmanager
def installed() -> Iterator[None]:
    ts.install()
    try:
        yield
    finally:
        ts.uninstall()


def same(loaded: dict[str, torch.Tensor]) -> bool:
    return loaded.keys() == TENSORS.keys() and all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


def check_it_is_really_not_there(folder: Path) -> None:
    assert importlib.util.find_spec("safetensors") is None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("safetensors")


def check_imports_reach_this_package(folder: Path) -> None:
    with installed():
        import safetensors
        import safetensors.torch
        from safetensors import SafetensorError, safe_open
        from safetensors._safetensors_rust import safe_open as safe_open_of_rust
        from safetensors.torch import load_file, save_file, storage_ptr

        assert safe_open is safe_open_of_rust is safetensors.torch.safe_open is ts.safe_open
        assert (SafetensorError, load_file, save_file) == (ts.SafetensorError, ts.load_file, ts.save_file)
        assert storage_ptr(TENSORS["w"]) == TENSORS["w"].data_ptr()
        save_file(TENSORS, folder / "imports")
        assert same(load_file(folder / "imports"))
        data = safetensors.serialize({"w": safetensors.TensorSpec(dtype="uint8", shape=[0], data_ptr=0, data_len=0)})
        assert safetensors.deserialize(data) == [("w", {"dtype": "U8", "shape": [0], "data": bytearray()})]


def check_torch_load_takes_such_files(folder: Path) -> None:
    if torch.__version__ < "2.13":
        return  # it does not with the reference, either
    path = str(folder / "w.safetensors")
    ts.save_file(TENSORS, path)
    with installed():
        assert same(torch.load(path))
    with pytest.raises(RuntimeError, match="safetensors is not installed"):
        torch.load(path)


def check_packages_find_a_distribution(folder: Path) -> None:
    with installed():
        import safetensors

        spec = importlib.util.find_spec("safetensors")
        assert spec is not None
        assert spec.submodule_search_locations == []
        assert importlib.util.find_spec("safetensors.torch") is not None
        assert importlib.metadata.version("safetensors") == safetensors.__version__ == "0.8.0"
        assert importlib.metadata.metadata("SafeTensors")["Name"] == "safetensors"
        assert importlib.metadata.requires("safetensors") is None
        assert importlib.metadata.packages_distributions()["safetensors"] == ["safetensors"]
        assert [d.version for d in importlib.metadata.distributions() if d.name == "safetensors"] == ["0.8.0"]
        assert torch.__version__.startswith(importlib.metadata.version("torch"))


def check_probes_change_nothing(folder: Path) -> None:
    with installed():
        before = list(sys.meta_path)
        for _ in range(2):
            assert importlib.util.find_spec("safetensors") is not None
            assert importlib.util.find_spec("safetensors.torch") is not None
            assert "safetensors" not in [module.name for module in pkgutil.iter_modules()]  # it is in no folder
            assert importlib.metadata.version("safetensors") == "0.8.0"
        spec = importlib.util.find_spec("safetensors")
        assert spec is not None
        importlib.util.module_from_spec(spec)
        package = importlib.import_module("safetensors")
        assert list(pkgutil.walk_packages(package.__path__, "safetensors.")) == []
        assert sys.meta_path == before
        assert importlib.import_module("safetensors.torch").load_file is ts.load_file
        elsewhere = importlib.metadata.distributions(path=[str(folder)])
        assert [found.metadata["Name"] for found in elsewhere] == []


def check_uninstall_after_others_replaced_the_list_of_finders(folder: Path) -> None:
    with installed():
        sys.meta_path = list(sys.meta_path)
    check_it_is_really_not_there(folder)
    with installed():
        del sys.meta_path[0]
    check_it_is_really_not_there(folder)


def check_a_module_without_a_spec_is_put_aside(folder: Path) -> None:
    made = sys.modules["safetensors"] = ModuleType("safetensors")
    try:
        with installed():
            from safetensors import safe_open

            assert safe_open is ts.safe_open
        assert sys.modules["safetensors"] is made
    finally:
        del sys.modules["safetensors"]


def check_modules_for_other_frameworks_are_missing(folder: Path) -> None:
    with installed():
        with pytest.raises(ImportError, match=r"safetensors\.numpy: .*; install the package safetensors for other"):
            importlib.import_module("safetensors.numpy")
        ts.save_file(TENSORS, folder / "frameworks")
        from safetensors import safe_open

        with pytest.raises(ValueError, match="framework: 'np' is not one of"):
            safe_open(folder / "frameworks", framework="np")


def check_uninstall_leaves_nothing(folder: Path) -> None:
    before = dict(sys.modules), list(sys.meta_path)
    with installed():
        importlib.import_module("safetensors.torch")
        ts.install()
        assert len(sys.meta_path) == len(before[1]) + 1
    assert (dict(sys.modules), list(sys.meta_path)) == before
    with pytest.raises(ModuleNotFoundError, match="safetensors"):
        importlib.import_module("safetensors.torch")
    check_it_is_really_not_there(folder)


def check_a_folder_of_that_name_is_not_the_reference(folder: Path) -> None:
    (folder / "safetensors").mkdir()
    sys.path.insert(0, str(folder))
    try:
        import safetensors as a_folder

        assert not hasattr(a_folder, "safe_open")
        with installed():
            from safetensors import safe_open

            assert safe_open is ts.safe_open
        assert sys.modules["safetensors"] is a_folder
    finally:
        del sys.modules["safetensors"]
        sys.path.remove(str(folder))
        (folder / "safetensors").rmdir()


CHECKS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("check_"): function for name, function in list(globals().items()) if name.startswith("check_")
}


def main() -> None:
    failed = {}
    for name, check in CHECKS.items():
        try:
            check(Path(sys.argv[1]))
        except Exception:
            failed[name] = traceback.format_exc()
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
