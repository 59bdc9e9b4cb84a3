"""The least work that the machine could do: copies of memory, bare system calls, a parser that keeps nothing."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

THREADS = min(2, os.cpu_count() or 1)
CHUNK = 8 << 20
#: macOS has neither; Linux has both.
_O_DIRECT = getattr(os, "O_DIRECT", 0)
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)


class Memory:
    """Pages of our own, or those of a file."""

    def __init__(self, mapping: mmap.mmap, size: int) -> None:
        self._mapping = mapping
        self.size = size
        self.view = memoryview(mapping)

    @property
    def address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    @classmethod
    def fresh(cls, size: int) -> Memory:
        """Pages that nobody has touched yet, huge ones where the system has them."""
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if _HUGE_PAGES is not None:
            mapping.madvise(_HUGE_PAGES)
        return cls(mapping, size)

    @classmethod
    def warm(cls, size: int) -> Memory:
        memory = cls.fresh(size)
        ctypes.memset(memory.address, 1, size)
        return memory

    @classmethod
    def of_file(cls, path: Path) -> Memory:
        """The file's pages in the page cache, already mapped one by one."""
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
        size = len(mapping)
        for begin in range(0, size, mmap.PAGESIZE):
            mapping[begin]
        return cls(mapping, size)


def in_threads(work: Callable[[int, int], object], size: int) -> None:
    """Calls work(begin, end) for consecutive parts, each a multiple of CHUNK but for the last, at the same time."""
    part = -(-size // THREADS // CHUNK) * CHUNK
    threads = [
        threading.Thread(target=work, args=(begin, min(begin + part, size))) for begin in range(part, size, part)
    ]
    for thread in threads:
        thread.start()
    work(0, min(part, size))
    for thread in threads:
        thread.join()


class Raw:
    """What cases build their limits from."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._parse_header: Callable[[bytes], int] | None = None

    def copy(self, target: Memory, source: Memory) -> None:
        to, origin = target.address, source.address
        in_threads(lambda begin, end: ctypes.memmove(to + begin, origin + begin, end - begin), source.size)

    def read(self, path: Path, target: Memory, offset: int = 0, *, direct: bool = False) -> None:
        """Fills the memory from a file; direct: past the page cache, from its beginning."""
        file = os.open(path, os.O_RDONLY | (_O_DIRECT if direct else 0))

        def part(begin: int, end: int) -> None:
            while begin < end:
                count = os.preadv(file, [target.view[begin : min(begin + CHUNK, end)]], offset + begin)
                if count == 0:
                    return
                begin += count

        try:
            in_threads(part, target.size) if direct else part(0, target.size)
        finally:
            os.close(file)

    def write(self, path: Path, source: Memory, *, durable: bool = False) -> None:
        """A plain write; durable: past the page cache, two threads at once, then fsync."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        direct = durable and _O_DIRECT != 0
        file = os.open(path, flags | (_O_DIRECT if direct else 0), 0o666)

        def part(begin: int, end: int) -> None:
            while begin < end:
                begin += os.pwrite(file, source.view[begin : min(begin + CHUNK, end)], begin)

        try:
            in_threads(part, source.size) if direct else part(0, source.size)
            if durable:
                os.fsync(file)
        finally:
            os.close(file)

    def parse_header(self, path: Path) -> int:
        """The number of keys of every level in the header."""
        if self._parse_header is None:
            self._parse_header = _compile(self._scratch)
        keys = self._parse_header(os.fsencode(path))
        if keys < 0:
            raise OSError(f"{path}: the header cannot be read")
        return keys


def _compile(scratch: Path) -> Callable[[bytes], int]:
    source = Path(__file__).with_name("header_limit.cpp")
    library = scratch / "header_limit.so"
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise ImportError("the limit of parsing needs a C++ compiler")
    include = os.environ.get("RAPIDJSON_INCLUDE_DIR")
    options = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", *([f"-I{include}"] if include else [])]
    built = subprocess.run([compiler, *options, source, "-o", library], capture_output=True, text=True)
    if built.returncode:
        raise ImportError(f"the limit of parsing does not compile: {built.stderr[-300:]}")
    function = ctypes.CDLL(str(library)).parse_header
    function.restype = ctypes.c_int64
    function.argtypes = [ctypes.c_char_p]
    return function
