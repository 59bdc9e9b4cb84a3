"""What is promised of a file that changes while it is used (docs/security.md has the table; graphs are elsewhere)."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers import BACKENDS, assert_same, run_in_process

from torch_safetensors import SafetensorError, load_file, safe_open, save, save_file

each_backend = pytest.mark.parametrize("backend", BACKENDS)
#: Large enough that parts of it are mapped, and not read when it is opened.
OLD = {"x": torch.arange(1 << 20, dtype=torch.float32), "y": torch.ones(300_000)}
#: As long as the old one.
NEW = {"x": -OLD["x"], "y": OLD["y"] * 2}
#: With other offsets for everything.
OTHER = {"y": torch.ones(5), "x": torch.zeros(7, dtype=torch.int64)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(OLD, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


@each_backend
@pytest.mark.parametrize("new", [NEW, OTHER], ids=["alike", "other"])
def test_a_handle_reads_the_file_it_opened(path: Path, backend: str, new: dict[str, torch.Tensor]) -> None:
    with safe_open(path, backend=backend) as file:
        first = file.get_tensor("x")
        save_file(new, path)
        assert_same({"x": file.get_tensor("x"), "y": file.get_tensor("y")}, OLD)
        assert torch.equal(file.get_slice("x")[5:9, None], OLD["x"][5:9, None])
        assert_same(dict(file.prefetch()), OLD)
        assert torch.equal(first, OLD["x"])
    assert_same(load_file(path, backend=backend), new)


@each_backend
def test_tensors_keep_the_content_of_a_file_that_is_replaced(path: Path, backend: str) -> None:
    loaded = load_file(path, backend=backend)
    save_file(OTHER, path)
    path.unlink()
    assert_same(loaded, OLD)


def test_what_was_read_is_not_changed_by_writing_to_the_file(path: Path) -> None:
    loaded = load_file(path, backend="pread")
    with path.open("r+b") as file:
        file.write(save(NEW))
    assert_same(loaded, OLD)
    assert_same(load_file(path), NEW)


def test_pages_that_were_written_to_are_not_changed_by_writing_to_the_file(path: Path) -> None:
    """Of others, mapping promises nothing."""
    loaded = load_file(path, backend="mmap")
    loaded["x"][0] = 7
    with path.open("r+b") as file:
        file.write(save(NEW))
    assert loaded["x"][:2].tolist() == [7, 1]


def test_pread_says_that_a_file_was_truncated(path: Path) -> None:
    file = safe_open(path, backend="pread")
    size = path.stat().st_size
    os.truncate(path, size - 1_300_000)
    with pytest.raises(OSError, match=rf"{size - 1_300_000}|{size}") as error:
        file.get_tensors()
    assert (error.value.errno, error.value.filename) == (errno.EIO, str(path))


def touch_what_is_gone(path: Path) -> None:
    tensors = load_file(path, backend="mmap")
    os.truncate(path, 4096)
    tensors["x"].sum()


def test_a_truncated_mapping_ends_the_process_as_every_mapping_does(path: Path) -> None:
    run_in_process(touch_what_is_gone, path, expected=-signal.SIGBUS)


@each_backend
def test_a_file_that_was_truncated_before_is_refused(path: Path, backend: str) -> None:
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(SafetensorError):
        load_file(path, backend=backend)
