"""Puts this package in the place of the reference, ``safetensors``, and back."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from . import _substitute
from . import torch as torch_module
from ._errors import SafetensorError
from ._safe_open import safe_open

__all__ = ["install", "uninstall"]

#: What the reference's modules get of ours. The rest there is for all frameworks, or belongs to that.
_REPLACED = (
    "load",
    "load_file",
    "load_model",
    "safe_open",
    "save",
    "save_file",
    "save_model",
    "storage_ptr",
    "storage_size",
    "_end_ptr",
    "_filter_shared_not_shared",
    "_find_shared_tensors",
    "_getdtype",
    "_is_complete",
    "_remove_duplicate_names",
    "_view2torch",
)
#: The modules of the reference in which that is replaced: those for other frameworks go on with their own.
_REFERENCE = ("safetensors", "safetensors.torch", "safetensors._safetensors_rust")

_lock = threading.RLock()
#: What puts everything back, if installed.
_installed: contextlib.ExitStack | None = None


def install() -> None:
    """Makes code written for the ``safetensors`` package use this one.

    From then on ``from safetensors.torch import load_file``, ``from safetensors import safe_open`` and
    ``torch.load("x.safetensors")`` reach the functions of this package, in every module that runs.

    * If ``safetensors`` is installed, its functions for torch are replaced: in its modules and in all that have
      imported them before. Other frameworks go on working; ``safe_open(..., framework="np")`` is the reference's.
      ``except safetensors.SafetensorError`` also catches errors of this package.
    * If it is not, ``import safetensors`` and ``import safetensors.torch`` work all the same, and
      ``importlib.metadata`` knows a version, 0.8.0, the release whose functions these are. Modules for other
      frameworks are not there.

    What keeps a function elsewhere than in a module's variables (a dict, a class, ``functools.partial``) keeps it, so
    this is best called first. Calling it again changes nothing. Processes that the program starts have to call it
    themselves, unless they are forked.

    Raises:
        ImportError: ``safetensors`` is installed, and importing it fails.
    """
    global _installed
    with _lock, contextlib.ExitStack() as undo:
        if _installed is not None:
            return
        reference = _import_reference()
        if reference is None:
            _substitute.provide(undo)
        else:
            _replace(reference, undo)
        _installed = undo.pop_all()


def uninstall() -> None:
    """Undoes :func:`install`, also in modules that have imported from ``safetensors`` since.

    Without :func:`install` before it does nothing. Where ``safetensors`` is not installed, it cannot be imported any
    more, and functions that modules have already are left to them.
    """
    global _installed
    with _lock:
        if _installed is not None:
            _installed.close()
            _installed = None


def _import_reference() -> ModuleType | None:
    """``safetensors.torch`` of the reference, or None if that is not installed."""
    if "safetensors.torch" not in sys.modules:
        try:
            spec = importlib.util.find_spec("safetensors")
        except ValueError:  # a module that a program made itself, without a spec
            spec = None
        if spec is None or spec.origin is None:  # nothing, or a folder that only has the name
            return None
    return importlib.import_module("safetensors.torch")


def _replace(reference: ModuleType, undo: contextlib.ExitStack) -> None:
    package = sys.modules["safetensors"]
    pairs = [(getattr(reference, name), getattr(torch_module, name)) for name in _REPLACED if hasattr(reference, name)]
    SafetensorError.__bases__ = (RuntimeError, package.SafetensorError)
    undo.callback(setattr, SafetensorError, "__bases__", (RuntimeError,))
    safe_open._for_other_frameworks = reference.safe_open
    undo.callback(setattr, safe_open, "_for_other_frameworks", None)

    # By name, not by object: a module that has our functions because it asked for ours shall keep them.
    own = {(module, name) for module, _, name, _ in _bindings([ours for _, ours in pairs])}
    undo.callback(_rebind, [(ours, theirs) for theirs, ours in pairs], lambda *place: place not in own)
    undo.callback(_put_back, _rebind(pairs, lambda module, _: not _is_for_other_framework(module)))


def _is_for_other_framework(module: str) -> bool:
    return module.startswith("safetensors.") and module not in _REFERENCE


def _rebind(pairs: list[tuple[Any, Any]], applies: Callable[[str, str], bool]) -> list[tuple[Any, str, Any]]:
    """Replaces the first of each pair by the second in all modules and variables, by their names, where it applies.

    Returns:
        The variables of the modules, the names, and what was there.
    """
    replacement = {id(old): new for old, new in pairs}
    changed = []
    for module, variables, name, old in _bindings([old for old, _ in pairs]):
        if applies(module, name):
            variables[name] = replacement[id(old)]
            changed.append((variables, name, old))
    return changed


def _put_back(changed: list[tuple[Any, str, Any]]) -> None:
    """Also in modules that are in sys.modules no more, as that of a script which runpy has run."""
    ours = {id(getattr(torch_module, name)) for name in _REPLACED}
    for variables, name, old in changed:
        if id(variables.get(name)) in ours:
            variables[name] = old


def _bindings(objects: list[Any]) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Where modules hold one of the objects: the module's name, its variables, the variable and the object."""
    wanted = set(map(id, objects))
    for module, variables in _modules():
        variables_now = variables.copy()  # other threads may change it
        if not wanted.isdisjoint(map(id, variables_now.values())):  # in few modules
            for name, value in variables_now.items():
                if id(value) in wanted:
                    yield module, variables, name, value


def _modules() -> Iterator[tuple[str, dict[str, Any]]]:
    """Modules but ours, with their variables: first the reference's, from which others import meanwhile."""
    for name in dict.fromkeys((*_REFERENCE, *list(sys.modules))):
        module = sys.modules.get(name)
        # Some replace themselves by an object of their own, or are loaded as soon as an attribute is asked for.
        if issubclass(type(module), ModuleType) and name.partition(".")[0] != "torch_safetensors":
            yield name, object.__getattribute__(module, "__dict__")
