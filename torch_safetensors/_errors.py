"""The exceptions of the package, and how errors of the operators become them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch

__all__ = ["SafetensorError", "is_out_of_memory", "translate", "translated"]


class SafetensorError(RuntimeError):
    """A malformed file or buffer, or one that does not hold what was asked of it.

    The message reads ``<file>: tensor '<name>': <what is wrong, with the numbers>``.
    """


#: What torch says where an argument is not of the type that the operator's schema has.
_WRONG_TYPE = re.compile(r"\S+\(\) Expected a value of type '(.+)' for argument '(.+)' but instead found type '(.+)'\.")
_NO_MEMORY = re.compile("out of memory|allocate memory")
_OS_ERROR = re.compile(r"\[Errno (\d+)\] (.*): '(.*)'", re.DOTALL)


def translate(error: RuntimeError, source: str | os.PathLike[str] = "bytes") -> Exception:
    """The exception that a caller of the package expects for one that an operator raised.

    Operators raise torch's own types with our text, since C++ cannot raise Python's others: what the
    operating system reported reads as ``str(OSError)``, and a malformed file's error begins with its name.

    Args:
        error: what the operator raised.
        source: the file it was about, as the caller named it; or the index or directory of a checkpoint, of which the
            error may name a file.

    Returns:
        ``OSError`` or the subclass for its errno, :class:`SafetensorError`, or ``TypeError`` for an argument that the
        operator's schema refuses.

    Raises:
        ``error`` itself, where it is something else: returned, it would lose its cause to ``raise ... from None``.
    """
    if type(error) is not RuntimeError or not _is_of_operator(error):
        raise error
    text = str(error)
    if match := _OS_ERROR.fullmatch(text):
        is_of_checkpoint = match[3].startswith(tuple(_folders(source)))
        return OSError(int(match[1]), match[2], match[3] if is_of_checkpoint else os.fspath(source))
    if text.startswith((f"{printable(source)}: ", *_folders(source))):
        return SafetensorError(text)
    if match := _WRONG_TYPE.match(text):
        return TypeError(f"{match[2]}: expected {match[1]}, not {match[3]}")
    raise error


def _is_of_operator(error: BaseException) -> bool:
    """False for what the caller's own code raised, which an operator called: a function that is told of progress."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "torch" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] in ("torch", "torch_safetensors")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get memory: on the CPU that is said by the text alone."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))


@contextlib.contextmanager
def translated(source: str | os.PathLike[str]) -> Iterator[None]:
    """Has what operators raise about ``source`` leave the block as callers of the package expect it."""
    try:
        yield
    except RuntimeError as error:
        raise translate(error, source) from None


def _folders(source: str | os.PathLike[str]) -> list[str]:
    """What paths of the files of a checkpoint begin with; nothing for a checkpoint that is one file."""
    path = os.fsdecode(source)
    if path.endswith(".json"):
        folder = os.path.dirname(path)  # noqa: PTH120 (a Path would take "./" away)
        return [printable(os.path.join(folder, ""))] if folder else [""]  # noqa: PTH118
    return [printable(os.path.join(path, ""))] if os.path.isdir(path) else []  # noqa: PTH112, PTH118


def printable(source: str | os.PathLike[str]) -> str:
    """A path as it stands in front of the operators' messages: what is not printable, escaped."""
    text = os.fsencode(source).decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", text)
