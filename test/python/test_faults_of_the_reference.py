"""Saves that go wrong, ours beside the reference's, as docs/security.md tells; its results are facts and no goals."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import faults
import pytest
import safetensors.torch
import torch
from conftest import Worker

import torch_safetensors

PACKAGES: dict[str, Any] = {"ours": torch_safetensors, "reference": safetensors.torch}
TENSORS = {"w": torch.arange(1000.0)}

package = pytest.mark.parametrize("package", PACKAGES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.safetensors"


@package
def test_mode_of_a_new_file(path: Path, package: str) -> None:
    code = f"""
import os, torch
from {PACKAGES[package].__name__} import save_file
os.umask(0o022)
save_file({{"w": torch.ones(3)}}, {str(path)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert stat.S_IMODE(path.stat().st_mode) == {"ours": 0o644, "reference": 0o600}[package]


@package
def test_mode_of_a_file_that_was_there(path: Path, package: str) -> None:
    path.touch()
    path.chmod(0o664)
    PACKAGES[package].save_file(TENSORS, path)
    assert stat.S_IMODE(path.stat().st_mode) == {"ours": 0o664, "reference": 0o600}[package]


@package
def test_symbolic_link(tmp_path: Path, path: Path, package: str) -> None:
    target = tmp_path / "target"
    target.touch()
    path.symlink_to(target)
    PACKAGES[package].save_file(TENSORS, path)
    assert path.is_symlink() == {"ours": True, "reference": False}[package]
    assert (target.stat().st_size > 0) == {"ours": True, "reference": False}[package]


@package
def test_order_of_metadata(path: Path, package: str) -> None:
    metadata = {f"key{i}": str(i) for i in range(10)}
    files = {PACKAGES[package].save(TENSORS, metadata) for _ in range(10)}
    assert (len(files) == 1) == {"ours": True, "reference": False}[package]


@package
def test_a_name_that_stands_twice(path: Path, package: str) -> None:
    entry = '"w":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    header = ("{" + entry % (0, 1) + "," + entry % (0, 1) + "}").encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\1")
    if package == "reference":
        assert list(PACKAGES[package].load_file(path)) == ["w"]
    else:
        with pytest.raises(torch_safetensors.SafetensorError, match="'w'"):
            PACKAGES[package].load_file(path)


def save_with(package: str, path: Path, call: str, error: int) -> str:
    with faults.faults(**{call: error}):
        try:
            PACKAGES[package].save_file(TENSORS, path)
        except Exception as caught:
            return f"{type(caught).__name__}: {caught}"
    return ""


@package
def test_a_mount_that_refuses_to_set_sizes(path: Path, worker: Worker, package: str) -> None:
    """As FUSE and object-store mounts do (#787, #792, #842 of the reference)."""
    path.write_bytes(b"old")
    failure = worker(save_with, package, path, "ftruncate", errno.EPERM)
    if package == "ours":
        assert failure == ""
        assert torch_safetensors.load_file(path).keys() == TENSORS.keys()
    else:
        assert "Operation not permitted" in failure
        assert path.read_bytes() == b"old"


def kill_a_save(package: str, path: Path) -> int:
    """Before the file has its name; returns the signal that ended it. The reference's rename cannot be seen here."""
    child = os.fork()
    if child == 0:
        save_with(package, path, {"ours": "rename", "reference": "ftruncate"}[package], faults.KILL)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@package
def test_what_a_killed_save_leaves(path: Path, worker: Worker, package: str) -> None:
    """Until the next save."""
    assert worker(kill_a_save, package, path) == signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 1
    PACKAGES[package].save_file(TENSORS, path)
    assert (list(path.parent.iterdir()) == [path]) == {"ours": True, "reference": False}[package]


@package
def test_the_error_names_the_path(path: Path, package: str) -> None:
    path = path.parent / "missing" / path.name
    with pytest.raises((OSError, safetensors.SafetensorError)) as caught:
        PACKAGES[package].save_file(TENSORS, path)
    assert (f"'{path}'" in str(caught.value)) == {"ours": True, "reference": False}[package]
    assert isinstance(caught.value, OSError) == {"ours": True, "reference": False}[package]
