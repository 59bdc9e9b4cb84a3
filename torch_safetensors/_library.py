"""Finds and loads the library that registers the operators."""

from __future__ import annotations

import importlib.metadata
import warnings
from pathlib import Path

import torch

__all__ = ["__version__", "cmake_prefix_path", "library_path"]

_HERE = Path(__file__).resolve().parent

#: Where CMake finds ``torch_safetensorsConfig.cmake``: append it to ``CMAKE_PREFIX_PATH``, as torch's own
#: ``torch.utils.cmake_prefix_path``.
cmake_prefix_path: str = str(_HERE / "share/cmake")


def library_path() -> str:
    """The absolute path of ``libtorch_safetensors.so``, for programs that link or ``dlopen`` it."""
    return str(_HERE / "lib/libtorch_safetensors.so")


def _load() -> None:
    # A program that embeds Python may have loaded its own copy of the library: its operators serve.
    if hasattr(torch.ops.safetensors, "load_file"):
        _warn_of_other_version()
        return
    path = library_path()
    if not Path(path).exists():
        raise ImportError(
            f"{path} is missing: the package was not built. Run "
            "`pip install --no-build-isolation .` in its source folder."
        )
    try:
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    except OSError as error:
        raise ImportError(
            f"{path} does not load with torch {torch.__version__}: {error}. It works with the torch it was "
            "built with: rebuild with `pip install --no-build-isolation --force-reinstall --no-deps .`"
        ) from error


def _warn_of_other_version() -> None:
    try:
        ours = importlib.metadata.version("torch_safetensors")
    except importlib.metadata.PackageNotFoundError:  # imported from its source folder
        return
    theirs = torch.ops.safetensors._version()
    if theirs != ours:
        warnings.warn(
            f"torch_safetensors {ours} was imported after version {theirs} of its library, whose operators stay in "
            "use; load one version only",
            stacklevel=2,
        )


_load()

__version__: str = torch.ops.safetensors._version()
