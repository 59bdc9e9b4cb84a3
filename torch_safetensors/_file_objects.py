"""Bytes of open files and of whatever else can be read like one."""

from __future__ import annotations

import io
import mmap
import os
import stat
from typing import Any, BinaryIO, Protocol, TypeGuard

__all__ = ["DescriptorReader", "Reader", "StreamReader", "ended", "is_file_object", "open_file_object"]

#: What reads a descriptor as it is.
_PLAIN = (io.FileIO, io.BufferedReader, io.BufferedRandom)

#: So much at a time is read of what nobody wants, where it cannot be skipped.
_SKIPPED = 1 << 20


class Reader(Protocol):
    """A source of bytes: one file, from its first byte to its last."""

    @property
    def source(self) -> str:
        """How it is called in messages."""

    @property
    def size(self) -> int | None:
        """In bytes; None where only reading to the end tells."""

    @property
    def threads(self) -> int:
        """How many threads are of use by default; any number may then read at a time, and in any order.

        1: no more than one reads, from the beginning to the end.
        """

    @property
    def max_gap(self) -> int:
        """So many bytes that nobody wants are cheaper to read than to leave out."""

    def read_into(self, offset: int, memory: memoryview) -> int:
        """Fills the memory with the bytes from ``offset`` on; returns how many, which are fewer only at the end."""

    def measure(self, expected: int) -> int:
        """The size, as far as it matters: of more bytes than expected, one more tells. Called at the end."""

    def close(self) -> None:
        """Gives up what was opened for it; never what the caller opened."""


def ended(reader: Reader, begin: int, count: int, wanted: int) -> OSError:
    """What to raise where a source is not as long as it said."""
    return OSError(
        f"{reader.source}: gave {count} of the {wanted} bytes from byte {begin} on, though it had {reader.size} bytes "
        "when it was opened"
    )


def is_file_object(source: object) -> TypeGuard[BinaryIO]:
    """True for what is read by ``read``: neither a path nor memory, though ``mmap.mmap`` has a ``read``, too."""
    return hasattr(source, "read") and not isinstance(source, (str, os.PathLike, mmap.mmap))


def open_file_object(file: BinaryIO | io.FileIO, source: str | None = None) -> Reader:
    """A reader of what is left of a file object, from its position to its end.

    Args:
        file: stays the caller's.
        source: its name for messages; by default what the object says.

    Raises:
        TypeError: a file of text.
        ValueError: closed, or not open for reading (``io.UnsupportedOperation``, which is an ``OSError``, too).
    """
    if hasattr(file, "encoding"):  # also of wrappers, which are no io.TextIOBase
        raise _is_text(_name_of(file))
    if getattr(file, "closed", False):
        raise ValueError(f"{_name_of(file)}: I/O operation on closed file")
    if hasattr(file, "readable") and not file.readable():
        raise io.UnsupportedOperation(f"{_name_of(file)}: not open for reading")
    if _is_plain(file) and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return DescriptorReader(file, source or _name_of(file))
    return StreamReader(file, source or _name_of(file))


def _is_plain(file: object) -> bool:
    """True where the descriptor has the very bytes that reading the object gives.

    Objects that decompress have a descriptor, too, and so may subclasses with ideas of their own.
    """
    if not hasattr(os, "preadv"):
        return False
    raw = file.raw if isinstance(file, (io.BufferedReader, io.BufferedRandom)) else file
    return type(file) in _PLAIN and type(raw) is io.FileIO


def _is_text(source: str) -> TypeError:
    return TypeError(f"{source}: a file of text has no bytes to load from; open it with mode 'rb'")


def _name_of(file: object) -> str:
    name = getattr(file, "name", None)
    if isinstance(name, (str, bytes)) and name:
        return os.fsdecode(name)
    return f"<{type(file).__name__}>"


class DescriptorReader:
    """An open regular file, read in parallel through its descriptor, so that its position is in nobody's way."""

    threads = min(8, os.cpu_count() or 1)  # memory or disk are the limit soon
    max_gap = 0

    def __init__(self, file: BinaryIO | io.FileIO, source: str) -> None:
        if file.writable():
            file.flush()
        self.source = source
        self._file = file
        self._descriptor = file.fileno()
        self._begin = file.tell()
        self.size = max(0, os.fstat(self._descriptor).st_size - self._begin)

    def read_into(self, offset: int, memory: memoryview) -> int:
        done = 0
        while done < len(memory):
            try:
                count = os.preadv(self._descriptor, [memory[done:]], self._begin + offset + done)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self.source) from None
            if count == 0:
                break
            done += count
        return done

    def measure(self, expected: int) -> int:
        self._file.seek(self._begin + self.size)  # where reading it would have led
        return self.size

    def close(self) -> None:
        """The file is the caller's."""


class StreamReader:
    """Any other file object, read once from its position to its end: what it gives may be made on the way.

    Args:
        file: an object with ``read``, and better with ``readinto``.
        source: its name for messages.
        size: in bytes, where that is known.
        owned: it was opened for this reader.
        can_seek: whether it can be moved forwards without reading; by default what it says.
    """

    threads = 1
    max_gap = 0

    def __init__(
        self, file: Any, source: str, *, size: int | None = None, owned: bool = False, can_seek: bool | None = None
    ) -> None:
        self.source = source
        self.size = size
        self._file = file
        self._owned = owned
        self._position = 0
        if can_seek is None:
            can_seek = hasattr(file, "seekable") and bool(file.seekable())
        self._can_seek = can_seek
        self._begin = file.tell() if self._can_seek else 0

    def read_into(self, offset: int, memory: memoryview) -> int:
        if not self._skip_to(offset):
            return 0
        done = 0
        while done < len(memory):
            count = self._read_some(memory[done:])
            if count == 0:
                break
            done += count
        return done

    def _skip_to(self, offset: int) -> bool:
        """Moves on; False where the end comes first."""
        if self._can_seek and offset != self._position:
            self._file.seek(self._begin + offset)
            self._position = offset
        while self._position < offset:
            if self._read_some(memoryview(bytearray(min(_SKIPPED, offset - self._position)))) == 0:
                return False
        return True

    def _read_some(self, memory: memoryview) -> int:
        """Fills the beginning of the memory; returns how much of it, 0 only at the end."""
        try:
            count = self._read_once(memory)
        except (OSError, TypeError, ValueError, MemoryError):
            raise
        except Exception as error:  # what decompresses has errors of its own
            raise OSError(f"{self.source}: cannot be read at byte {self._position}: {error!r}") from error
        self._position += count
        return count

    def _read_once(self, memory: memoryview) -> int:
        if hasattr(self._file, "readinto"):
            count: int | None = self._file.readinto(memory)
        else:
            data = self._file.read(len(memory))
            if isinstance(data, str):
                raise _is_text(self.source)
            count = None if data is None else len(data)
            if count is not None and count <= len(memory):
                memory[:count] = data
        if count is None:
            raise BlockingIOError(f"{self.source}: has no bytes yet at byte {self._position}; make it a blocking one")
        if not 0 <= count <= len(memory):
            raise OSError(f"{self.source}: gave {count} bytes at byte {self._position} where {len(memory)} were asked")
        return count

    def measure(self, expected: int) -> int:
        if self.size is not None:
            return self.size
        if self._can_seek:
            return int(self._file.seek(0, os.SEEK_END)) - self._begin
        if self._skip_to(expected):
            self._read_some(memoryview(bytearray(1)))
        return self._position

    def close(self) -> None:
        if self._owned:
            self._file.close()
