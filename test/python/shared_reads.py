"""What tests of distributed loads put between the ranks and their files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from torch_safetensors.distributed import _boxes, _checkpoint_reader, _load, _share

__all__ = ["choices", "read_by", "sizes_read", "small_blocks"]


@contextlib.contextmanager
def small_blocks(size: int = 4096) -> Iterator[None]:
    """So that tensors and their rows are cut, and there are several rounds."""
    with mock.patch.object(_share, "block_of", return_value=size):
        yield


@contextlib.contextmanager
def read_by(function: Callable[..., None]) -> Iterator[None]:
    """With another function in place of read_boxes."""
    with contextlib.ExitStack() as stack:
        for module in (_checkpoint_reader, _load, _share):
            stack.enter_context(mock.patch.object(module, "read_boxes", function))
        yield


@contextlib.contextmanager
def sizes_read() -> Iterator[list[int]]:
    """The bytes of each part that this rank reads from a file."""
    sizes: list[int] = []

    def counted(handle: Any, reads: list[_boxes.Read]) -> None:
        sizes.extend(read.out.nbytes for read in reads)
        _boxes.read_boxes(handle, reads)

    with read_by(counted):
        yield sizes


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def choices() -> list[str]:
    """What is said from now on about the strategies that are chosen."""
    kept = _Kept()
    _load.log.addHandler(kept)
    _load.log.setLevel(logging.INFO)
    return kept.messages
