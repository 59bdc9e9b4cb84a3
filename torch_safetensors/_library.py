"""Finds and loads the library that registers the operators."""

from __future__ import annotations

import importlib.metadata
import warnings
from pathlib import Path

import torch

from . import _stable_library

__all__ = ["__version__", "cmake_prefix_path", "library_path", "needs_build", "uses_stable_abi"]

_HERE = Path(__file__).resolve().parent

#: Of the torch at hand, as 2.13.
_RELEASE = ".".join(torch.__version__.split(".")[:2])
#: The oldest release whose stable ABI is enough.
_OLDEST = (2, 11)

#: Where CMake finds ``torch_safetensorsConfig.cmake``: append it to ``CMAKE_PREFIX_PATH``, as torch's own
#: ``torch.utils.cmake_prefix_path``.
cmake_prefix_path: str = str(_HERE / "share/cmake")


def library_path() -> str:
    """The absolute path of ``libtorch_safetensors.so``, for programs that link or ``dlopen`` it.

    Raises:
        NotImplementedError: the package holds no build for this release of torch.
    """
    path = _path_for(_RELEASE)
    if not path.exists():
        raise needs_build("library_path")
    return str(path)


def _path_for(release: str) -> Path:
    """A library works with the release of torch that it was built with alone, and lies in a folder named after it."""
    return _HERE / f"lib/torch{release.replace('.', '_')}/libtorch_safetensors.so"


def _builds() -> str:
    """The releases that this package holds builds for, for messages."""
    folders = [path.parent.name for path in _HERE.glob("lib/torch*_*/libtorch_safetensors.so")]
    releases = sorted(tuple(map(int, name.removeprefix("torch").split("_"))) for name in folders)
    return ", ".join(f"{major}.{minor}" for major, minor in releases)


def needs_build(what: str) -> NotImplementedError:
    """What to raise where only the library that was built for this release of torch will do. One line."""
    rebuild = "build it in its source folder: pip install --no-build-isolation --force-reinstall --no-deps ."
    there, remedy = "none", rebuild
    if builds := _builds():
        there, remedy = f"those for {builds}", f"install one of these releases of torch, or {rebuild}"
    return NotImplementedError(
        f"{what} needs a build for torch {_RELEASE}, and this torch_safetensors holds {there}: {remedy}"
    )


def _load() -> bool:
    """Loads a library, unless a program that embeds Python has loaded its own: its operators serve.

    Returns:
        True where it is the library on torch's stable ABI, since no build is there for this torch.

    Raises:
        ImportError: none works here. One line that says what to install.
    """
    if hasattr(torch.ops.safetensors, "load_tensors"):
        _warn_of_other_version()
        return not hasattr(torch.ops.safetensors, "load_file")
    path = _path_for(_RELEASE)
    if path.exists():
        _load_build(path)
        return False
    stable = _HERE / "lib/stable/libtorch_safetensors_stable.so"
    if stable.exists() and tuple(map(int, _RELEASE.split("."))) >= _OLDEST:
        _stable_library.load(stable)
        return True
    raise ImportError(str(needs_build("torch_safetensors")))


def _load_build(path: Path) -> None:
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    except OSError as error:
        raise ImportError(
            f"{path} does not load with torch {torch.__version__}: {error}. It works with the torch it was "
            "built with: rebuild with `pip install --no-build-isolation --force-reinstall --no-deps .`"
        ) from error


def _warn_of_other_version() -> None:
    try:
        ours = importlib.metadata.version("torch_safetensors").partition("+")[0]
    except importlib.metadata.PackageNotFoundError:  # imported from its source folder
        return
    theirs = torch.ops.safetensors._version()
    if theirs != ours:
        warnings.warn(
            f"torch_safetensors {ours} was imported after version {theirs} of its library, whose operators stay in "
            "use; load one version only",
            stacklevel=2,
        )


#: True where the torch at hand is of a release that this package has no build for: see :mod:`._stable`.
uses_stable_abi: bool = _load()

__version__: str = torch.ops.safetensors._version()
