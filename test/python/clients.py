"""What tests of the reference's users share: each does its work with the reference and then with this package."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest
import safetensors
import torch
from torch import Tensor

import torch_safetensors as ts

os.environ["HF_HUB_OFFLINE"] = "1"  # read when they are imported

T = TypeVar("T")
OURS = str(Path(ts.__file__).parent)
REFERENCE = str(Path(safetensors.__file__).parent)


@dataclass
class Calls:
    """Names of the functions that were called."""

    ours: set[str] = field(default_factory=set)
    reference: set[str] = field(default_factory=set)

    def record(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            path = frame.f_code.co_filename
            if path.startswith(OURS):
                self.ours.add(frame.f_code.co_name)
            elif path.startswith(REFERENCE):
                self.reference.add(frame.f_code.co_name)
        elif event == "c_call":
            qualified = getattr(argument, "__qualname__", "")
            if qualified.startswith(("safe_open.", "PySafeSlice.")):
                self.reference.add(qualified)


@contextlib.contextmanager
def recorded() -> Iterator[Calls]:
    """The calls of this thread and of those begun meanwhile."""
    calls = Calls()
    before = sys.getprofile()
    threading.setprofile(calls.record)
    sys.setprofile(calls.record)
    try:
        yield calls
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def with_both(operation: Callable[[Path], T], folder: Path, reaches: set[str]) -> tuple[T, T]:
    """What it returns with the reference, and what with this package.

    Args:
        operation: gets a folder to work in.
        folder: has one for each.
        reaches: names of functions of this package that it must have called. The reference must not have been, and
            the other way round.
    """
    for name in "reference", "ours":
        (folder / name).mkdir()
    with recorded() as calls:
        expected = operation(folder / "reference")
    assert calls.reference
    assert calls.ours.isdisjoint(reaches)
    ts.install()
    try:
        with recorded() as calls:
            actual = operation(folder / "ours")
    finally:
        ts.uninstall()
    assert calls.reference == set()
    assert reaches <= calls.ours
    return expected, actual


def contents(folder: Path) -> dict[str, bytes | list[Any]]:
    """All files below a folder; of safetensors files with several texts, which the reference writes in random order,
    the header as it reads, and the data.
    """
    return {str(path.relative_to(folder)): content_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def content_of(path: Path) -> bytes | list[Any]:
    content = path.read_bytes()
    if path.suffix != ".safetensors":
        return content
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    if len(header.get("__metadata__", {})) < 2:
        return content
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return [data, header["__metadata__"], list(entries.items()), content[data:]]


def assert_same_files(folder: Path, at_least: int = 1) -> None:
    """Of both, to the byte but for the order of texts; so many of them safetensors files."""
    expected, actual = contents(folder / "reference"), contents(folder / "ours")
    assert actual.keys() == expected.keys()
    assert [name for name in actual if actual[name] != expected[name]] == []
    assert sum(name.endswith(".safetensors") for name in actual) >= at_least


def state_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def needs(package: str) -> Any:
    """The package; skips where it is missing, with what brings it."""
    return pytest.importorskip(package, reason=f"no {package}: scripts/setup.sh clients")
