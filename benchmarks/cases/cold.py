"""Loading a file of which nothing is in memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import contents
from ..case import Action, CannotRunError, Case
from ..peers.base import Peer
from ..raw import Memory, Raw
from ..settings import Settings
from .load import LargeSlice, LoadCase


def drop_from_cache(path: Path) -> None:
    """Raises CannotRunError where the pages stay: on a tmpfs, or while somebody maps them."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
    left = cached_bytes(path)
    if left > path.stat().st_size // 100 + (1 << 16):
        raise CannotRunError(f"{left / 1e6:.1f} MB of the file stay in the page cache")


def cached_bytes(path: Path) -> int:
    """How much of the file is in the page cache, by mincore."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        size = len(mapping)
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        buffer = ctypes.c_char.from_buffer(mapping)
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(buffer)), ctypes.c_size_t(size), pages
        )
        del buffer
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(byte & 1 for byte in pages.raw[: len(pages)]) * mmap.PAGESIZE


class Cold(LoadCase):
    what = "load_file, 1 GB, out of the page cache, then every byte read"
    variants = True
    memory = False  # half of that of read

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.gigabyte(settings), read=True)

    def prepare(self, peer: Peer) -> Action:
        self._dropped = peer.own_file(self.path, self.content)
        return super().prepare(peer)

    def before(self) -> None:
        drop_from_cache(self._dropped)

    def limit(self, raw: Raw) -> Action:
        self._dropped = self.path
        memory = Memory.warm(self.path.stat().st_size // mmap.PAGESIZE * mmap.PAGESIZE)
        return lambda: raw.read(self.path, memory, direct=True)


class ColdSlice(LargeSlice):
    what = "the same rows, the file out of the page cache"
    short = False
    memory = False

    def before(self) -> None:
        drop_from_cache(self.path)

    def limit(self, raw: Raw) -> Action:
        memory = Memory.warm(self.nbytes)
        return lambda: raw.read(self.path, memory, len(self.content.header) + self._begin * self._columns * 4)

    def check(self, result: Any) -> None:
        super().check(result)
        self.notes.append(f"{cached_bytes(self.path) / 1e6:.1f} MB read for rows of {self.nbytes / 1e6:.1f} MB")


CASES: dict[str, Callable[..., Case]] = {"slice-cold": ColdSlice, "cold": Cold}
