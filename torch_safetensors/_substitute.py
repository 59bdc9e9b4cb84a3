"""A package ``safetensors`` for programs that import it where the reference is not installed."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import torch as torch_module
from ._errors import SafetensorError

__all__ = ["VERSION", "provide"]

#: The release of the reference whose API this is, which packages compare with what they need.
VERSION = "0.8.0"

_METADATA = f"""\
Metadata-Version: 2.1
Name: safetensors
Version: {VERSION}
Summary: The API of safetensors, provided by torch_safetensors.install()
"""


def provide(undo: contextlib.ExitStack) -> None:
    """Makes ``safetensors`` importable, and known as a distribution, until ``undo`` is closed."""
    # Such as a folder of that name where a program runs, which Python takes for a package without files.
    _put_aside(undo)
    undo.callback(_forget)
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    undo.callback(_take_away, finder)


def _take_away(finder: _Finder) -> None:
    """From the list that there is by then, which need not be the one it was put into."""
    with contextlib.suppress(ValueError):
        sys.meta_path.remove(finder)


def _put_aside(undo: contextlib.ExitStack) -> None:
    for name in _names_in_sys_modules():
        undo.callback(sys.modules.__setitem__, name, sys.modules.pop(name))


def _forget() -> None:
    for name in _names_in_sys_modules():
        del sys.modules[name]


def _names_in_sys_modules() -> list[str]:
    return [name for name in list(sys.modules) if name.partition(".")[0] == "safetensors"]


def _content(module: str) -> dict[str, Any]:
    if module == "safetensors.torch":
        return {name: value for name, value in vars(torch_module).items() if not name.startswith("__")}
    names = "TensorSpec", "deserialize", "safe_open", "serialize", "serialize_file"
    return {
        "SafetensorError": SafetensorError,
        "__version__": VERSION,
        **{name: getattr(torch_module, name) for name in names},
    }


class _Loader(importlib.abc.Loader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_content(module.__name__))


class _Distribution(importlib.metadata.Distribution):
    def read_text(self, filename: str) -> str | None:
        return {"METADATA": _METADATA, "top_level.txt": "safetensors\n"}.get(filename)

    def locate_file(self, path: str | os.PathLike[str]) -> Any:
        raise FileNotFoundError(f"safetensors is provided by torch_safetensors.install() and has no file {path}")


class _Finder(importlib.metadata.DistributionFinder):
    """Finds the modules, and the distribution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in ("safetensors", "safetensors.torch", "safetensors._safetensors_rust"):
            return ModuleSpec(fullname, _Loader(), origin=__name__, is_package=fullname == "safetensors")
        if fullname.startswith("safetensors."):
            raise ModuleNotFoundError(
                f"{fullname}: torch_safetensors.install() provides safetensors and safetensors.torch alone; install "
                "the package safetensors for other frameworks",
                name=fullname,
            )
        return None

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context | None = None
    ) -> Iterable[importlib.metadata.Distribution]:
        context = context or importlib.metadata.DistributionFinder.Context()
        if context.path != sys.path:  # a search in certain folders, where it is not
            return []
        return [_Distribution()] if context.name is None or context.name.lower() == "safetensors" else []
