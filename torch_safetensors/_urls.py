"""Bytes of what fsspec has a URL for."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from ._file_objects import Reader, StreamReader
from ._torch_private import constant_while_compiling

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["is_index", "is_url", "open_url", "printable_url", "sibling", "version_of"]

#: The first request asks for so much: the header of most files, since each request costs a round trip.
_FIRST = 1 << 18


@constant_while_compiling
def is_url(source: object) -> bool:
    """True for a str with a protocol that fsspec knows, also one after another: ``simplecache::https://...``.

    ``os.PathLike`` objects are paths whatever they contain.
    """
    if not isinstance(source, str) or "://" not in source:
        return False
    from fsspec.registry import known_implementations, registry

    protocol = re.split("::|://", source, maxsplit=1)[0]
    return protocol in known_implementations or protocol in registry  # the latter has those that others added


def is_index(url: str) -> bool:
    """True for the index of a checkpoint in several files, which is told by its name as everywhere."""
    return _without_query(url)[0].endswith(".json")


def sibling(url: str, name: str) -> str:
    """The URL of another file in the same folder."""
    path, query = _without_query(url)
    return f"{path.rpartition('/')[0]}/{name}{query}"


def _without_query(url: str) -> tuple[str, str]:
    """A URL and what follows it from the question mark on, which elsewhere than in HTTP is part of a name."""
    match = re.fullmatch(r"(.*?https?://[^?#]*)([?#].*)", url, re.DOTALL)
    return (match[1], match[2]) if match else (url, "")


def open_url(url: str, storage_options: Mapping[str, Any] | None = None) -> Reader | str:
    """A reader of a URL; or a path, where it is a local file or a local copy was made for it.

    Args:
        url: of one file.
        storage_options: what fsspec's file system takes, e.g. ``headers`` or credentials.

    Raises:
        ImportError: a package that fsspec needs for the protocol is missing.
        OSError: what the file system reports.
    """
    from fsspec.core import open_local, url_to_fs

    options = dict(storage_options or {})
    source = printable_url(url)
    try:
        file_system, path = url_to_fs(url, **options)
        if "file" in _protocols(file_system):
            return str(path)
        if getattr(file_system, "local_file", False):
            return str(open_local(url, mode="rb", **options))
        return _open(file_system, path, source)
    except ImportError as error:
        hint = "pip install aiohttp" if "aiohttp" in str(error) else str(error)
        raise ImportError(f"{source}: fsspec needs another package for such a URL: {hint}") from error
    except Exception as error:
        _raise_as_os_error(error, source)


def version_of(url: str, storage_options: Mapping[str, Any] | None = None) -> str:
    """What the file system says of a file: a date, an ETag; it tells files apart that are equally long."""
    from fsspec.core import url_to_fs

    try:
        file_system, path = url_to_fs(url, **dict(storage_options or {}))
        file_system.invalidate_cache()
        return repr(sorted(file_system.info(path).items()))
    except Exception:  # who cannot tell cannot be opened, or has no versions
        return ""


def _protocols(file_system: AbstractFileSystem) -> tuple[str, ...]:
    protocol = file_system.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _open(file_system: AbstractFileSystem, path: str, source: str) -> Reader:
    info = file_system.info(path)
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), source)
    size = info.get("size")
    if "http" in _protocols(file_system):
        return _open_http(file_system, path, source, size, info.get("partial", True))
    if size is None or not getattr(file_system, "async_impl", False):
        # File systems that are not asynchronous may have one connection, or decompress from the beginning for
        # every range (zip); what they open is read by one thread, and forwards.
        return StreamReader(file_system.open(path, "rb"), source, size=size, owned=True)
    return RangeReader(file_system, path, source, size, file_system.cat_file(path, start=0, end=min(_FIRST, size)))


def _open_http(
    file_system: AbstractFileSystem, path: str, source: str, size: int | None, may_have_ranges: bool
) -> Reader:
    """Servers need not know ranges, and nothing but trying tells.

    Asked for one, such a server sends the whole file. What ``open`` gives stops reading then, and ``cat_file`` does
    not.
    """
    if size and may_have_ranges:
        with file_system.open(path, "rb", size=size, block_size=_FIRST, cache_type="none") as file:
            first = file.read(_FIRST)
            if len(first) == size or _has_ranges(file, len(first)):
                return RangeReader(file_system, path, source, size, first)
    # Some servers say 0 where they do not know the size.
    file = file_system.open(path, "rb", block_size=0)
    return StreamReader(file, source, size=size or None, owned=True, can_seek=False)


def _has_ranges(file: Any, offset: int) -> bool:
    file.seek(offset)
    try:
        file.read(1)
    except ValueError:
        return False
    return True


class RangeReader:
    """A file of an asynchronous file system, whose requests run side by side.

    Args:
        file_system: of fsspec.
        path: within it.
        source: its name for messages.
        size: in bytes.
        first: its first bytes, which are not requested again.
    """

    threads = 8
    max_gap = 1 << 16  # about what goes over a line while a request is on its way

    def __init__(self, file_system: AbstractFileSystem, path: str, source: str, size: int, first: bytes) -> None:
        self.source = source
        self.size = size
        self._file_system = file_system
        self._path = path
        self._first = memoryview(first)

    def read_into(self, offset: int, memory: memoryview) -> int:
        had = self._first[offset : offset + len(memory)]
        memory[: len(had)] = had
        wanted = memoryview(memory)[len(had) : max(len(had), self.size - offset)]
        if len(wanted) == 0:
            return len(had)
        begin = offset + len(had)
        end = begin + len(wanted)
        try:
            data = self._file_system.cat_file(self._path, start=begin, end=end)
        except Exception as error:
            _raise_as_os_error(error, self.source, f"bytes [{begin}, {end}): ")
        if len(data) > len(wanted):
            raise OSError(f"{self.source}: gave {len(data)} bytes for the {len(wanted)} bytes [{begin}, {end})")
        wanted[: len(data)] = data
        return len(had) + len(data)

    def measure(self, expected: int) -> int:
        return self.size

    def close(self) -> None:
        """Nothing is open."""


def printable_url(url: str) -> str:
    """The URL without what may be a secret: a password, and the signature in the query of a signed one."""
    path, query = _without_query(re.sub(r"(?<=://)[^/?#@]*@", "", url))
    return f"{path}?..." if query else path


#: What servers say, in the system's words.
_STATUS = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT}


def _raise_as_os_error(error: Exception, source: str, where: str = "") -> NoReturn:
    """Raises what :func:`_as_os_error` makes of an error, which may be the error itself, or its cause."""
    known = _as_os_error(error, source, where)
    if known is error:
        raise error
    outer: BaseException | None = error
    while outer is not None:
        if outer.__cause__ is known:  # none is to be its own cause, over however many others
            outer.__cause__ = outer.__context__ = None
            raise known from known.__cause__
        outer = outer.__cause__
    raise known from error


def _as_os_error(error: Exception, source: str, where: str = "") -> Exception:
    """What a file system raised, as an ``OSError`` that names the source; mistakes in arguments as they are."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        # fsspec's HTTP says so of everything that goes wrong with its first request, and keeps the reason.
        return _as_os_error(error.__cause__, source, where)
    if isinstance(error, (TypeError, ValueError, NotImplementedError)) and not isinstance(error, OSError):
        return error
    number = _STATUS.get(getattr(error, "status", 0)) or getattr(error, "errno", None)
    if isinstance(error, FileNotFoundError):
        number = errno.ENOENT
    if isinstance(number, int) and number > 0:
        return OSError(number, os.strerror(number), source)
    kinds = {PermissionError: PermissionError, asyncio.TimeoutError: TimeoutError}
    kind = next((kinds[known] for known in kinds if isinstance(error, known)), OSError)
    return kind(f"{source}: {where}{str(error) or repr(error)}")
