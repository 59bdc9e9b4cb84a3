"""Errors on their way to other ranks, where they arrive whatever they are."""

from __future__ import annotations

import functools
import io
import pickle
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from .._errors import SafetensorError

__all__ = ["make_portable", "portable_errors", "trace_of"]

P = ParamSpec("P")
T = TypeVar("T")

#: The most bytes of a pickled error, and characters of its text: every rank gets those of all ranks.
_MOST = 1 << 16
_REDUCE = "__reduce_ex__"
#: Of so many errors that caused one another the text tells.
_CAUSES = 8


def make_portable(error: BaseException) -> None:
    """Makes an error that can be pickled, and read again by any process, out of any error.

    It arrives as itself, or as a RuntimeError with its type and text: where it cannot be pickled, would say something
    else when read, is large or has tensors (which would take memory of a device), or where its class is unknown.
    """
    vars(error).pop(_REDUCE, None)
    arguments = _pickled(error), isinstance(error, SafetensorError), _text(error)
    # Of the instance, which pickle asks first: an error of another class would not be caught as this one is.
    vars(error)[_REDUCE] = lambda _protocol: (_revived, arguments)


def portable_errors(method: Callable[P, T]) -> Callable[P, T]:
    """For functions that torch calls, which pickles what they raise, and leaves the other ranks alone if that fails."""

    @functools.wraps(method)
    def raising(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            make_portable(error)
            raise

    return raising


def trace_of(error: BaseException) -> str:
    """Where an error was raised, and the errors that caused it, as Python prints them."""
    try:
        return _shortened("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    except Exception:  # of the error's own code
        return type(error).__qualname__


def _pickled(error: BaseException) -> bytes | None:
    """None unless what is read again says the same."""
    file = _Limited()
    try:
        _Pickler(file).dump(error)
        data = file.getvalue()
        copy = pickle.loads(data)
        return data if type(copy) is type(error) and str(copy) == str(error) else None
    except Exception:
        return None


def _revived(data: bytes | None, is_ours: bool, text: str) -> BaseException:
    if data is not None:
        try:
            error = pickle.loads(data)
        except Exception:  # also of classes that only the other process has
            pass
        else:
            if isinstance(error, BaseException):
                return error
    return SafetensorError(text) if is_ours else RuntimeError(text)


class _Limited(io.BytesIO):
    """Takes no more than is sent."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > _MOST:
            raise pickle.PicklingError("too large")
        return super().write(data)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        if isinstance(value, torch.Tensor):
            raise pickle.PicklingError("a tensor")
        return NotImplemented


def _text(error: BaseException) -> str:
    """Type, text and notes of an error, and of those that caused it."""
    lines = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen and len(seen) < _CAUSES:
        seen.add(id(cause))
        lines.append(("caused by " if len(seen) > 1 else "") + _only(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    text = "\n".join(lines)
    # Ours reads as it does here, where only the size is in the way.
    return _shortened(text.partition(": ")[2] if isinstance(error, SafetensorError) else text)


def _only(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception_only(type(error), error)).strip()
    except Exception:  # of the error's own code
        return type(error).__qualname__


def _shortened(text: str) -> str:
    if len(text) <= _MOST:
        return text
    return f"{text[: _MOST // 2]}\n... {len(text) - _MOST} characters more ...\n{text[-_MOST // 2 :]}"
