"""Failures of the command line, and how any failure reads as one line."""

from __future__ import annotations

from .._errors import printable
from .._text import printable_name

__all__ = ["CommandError", "one_line"]


class CommandError(Exception):
    """What a command refuses to do; the message goes to the user as it is."""


def one_line(error: BaseException) -> str:
    """The message on one line, as ``<file>: <what is wrong>``."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{printable(error.filename)}: {error.strerror}"
    text = printable_name(" ".join(str(error).split()))
    if isinstance(error, MemoryError):
        return f"not enough memory: {text}" if text else "not enough memory"
    return text or type(error).__name__
