"""Has system calls of the process fail; for functions that run in the worker of conftest.py."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

KILL = -1

_library = ctypes.CDLL(None)


def _function(name: str, result: object) -> ctypes._CFuncPtr:
    function = getattr(_library, name)
    function.restype = result
    return function


@contextlib.contextmanager
def faults(**errors: int) -> Iterator[None]:
    """Calls of these names fail with these errnos, or kill the process."""
    _function("faults_reset", None)()
    for call, error in errors.items():
        _function("faults_add", None)(call.encode(), error)
    try:
        yield
    finally:
        _function("faults_reset", None)()


def hang_reads(hang: bool) -> None:
    """Has pread and preadv wait until it is called again, or ``faults`` ends."""
    _function("faults_hang_reads", None)(int(hang))


def calls() -> list[str]:
    """What was called since ``faults`` began."""
    return _function("faults_log", ctypes.c_char_p)().decode().splitlines()


def trace() -> list[str]:
    """What changed names or flushed folders and files since ``faults`` began, each with the path, by whomever."""
    return _function("faults_trace", ctypes.c_char_p)().decode().splitlines()


def bytes_read() -> int:
    """By pread and preadv."""
    return _function("faults_bytes_read", ctypes.c_longlong)()


@contextlib.contextmanager
def failing_call(index: int, error: int, count: int = 1) -> Iterator[None]:
    """The call of that number (from 0) among all system calls that the library makes fails, or kills the process; so
    do those after it, as many as ``count``.
    """
    _function("faults_reset", None)()
    _library.faults_fail_call(ctypes.c_long(index), ctypes.c_long(count), error)
    try:
        yield
    finally:
        _library.faults_fail_call(ctypes.c_long(-1), ctypes.c_long(0), 0)


def failed_call() -> str | None:
    """Its name; nothing if there were not so many."""
    return _function("faults_failed", ctypes.c_char_p)().decode() or None
