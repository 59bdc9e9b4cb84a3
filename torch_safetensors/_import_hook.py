"""Calls of ours when a module of torch was imported, without importing it ourselves, which takes seconds."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

__all__ = ["after_import"]


def after_import(name: str, callback: Callable[[ModuleType], None], without: str) -> Callable[[], None]:
    """Calls back when the module of that name was executed: now if it is there, or else when others import it.

    Args:
        name: of the module.
        callback: gets the module, once for each time that it is executed up to its first import.
        without: what is different if the callback fails, for a warning. The import succeeds: it is not ours.

    Returns:
        What calls back where the module is there by now and has not come by, since others took the hook away.
    """
    done: list[ModuleType] = []

    def call(module: ModuleType) -> None:
        try:
            callback(module)
        except Exception as error:
            warnings.warn(
                f"torch {torch.__version__}: {without} ({name}: {type(error).__name__}: {error})", stacklevel=2
            )
        done[:] = [module]

    def make_up() -> None:
        if name in sys.modules and sys.modules[name] not in done:
            call(importlib.import_module(name))  # waits for another thread that is in the middle of it

    if name in sys.modules:
        make_up()
    else:
        sys.meta_path.insert(0, _Finder(name, call))
    return make_up


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as the finders after it do, with a loader that calls back.

    It stays until the module was executed: whoever looks a module up (``importlib.util.find_spec``, ``pkgutil``) need
    not import it, and an import may fail and be tried again.
    """

    def __init__(self, name: str, callback: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._callback = callback

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        finders = list(sys.meta_path)
        # Only those after it: those before were asked, and may be hooks that ask this one.
        for finder in finders[finders.index(self) + 1 :] if self in finders else ():
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._executed)
                return spec
        return None

    def _executed(self, module: ModuleType) -> None:
        self._callback(module)
        if sys.modules.get(self._name) is module:
            # Another list, since other threads may be going through this one.
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]


class _Loader(importlib.abc.Loader):
    """A module's loader, which calls back when it has executed the module, and is gone by then."""

    def __init__(self, loader: Any, executed: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._executed = executed

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_loader"), name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._executed(module)
