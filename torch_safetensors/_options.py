"""Checks of options, the same in every function: a wrong value is an error also where the option would have no effect.

Each error names the option. They come before anything is opened, read or written.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

__all__ = [
    "check_alignment",
    "check_backend",
    "check_flags",
    "check_progress",
    "check_storage_options",
    "checked_count",
]

_BACKENDS = ("auto", "mmap", "pread")
_ALIGNMENTS = (0, *(1 << power for power in range(3, 13)))
_INT64 = 2**63


def check_flags(**flags: object) -> None:
    """Refuse what is neither True nor False, instead of guessing what ``"no"`` or ``0`` means.

    Raises:
        TypeError: Names the first such option.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected bool, not {type(value).__name__}")


def checked_count(name: str, value: Any) -> int | None:
    """Return a number of threads or bytes as an int; None stands for the default.

    Raises:
        TypeError: Not an integer, or a bool.
        ValueError: Not positive, or larger than any memory.
    """
    if value is None:
        return None
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name}: expected int or None, not {type(value).__name__}")
    if number < 1:
        raise ValueError(f"{name} must be positive, not {number}")
    if number >= _INT64:
        raise ValueError(f"{name} must be less than 2**63, not {number}")
    return number


def check_alignment(alignment: object) -> None:
    """Refuse what is no alignment, in the words of the library, which saves that make a folder first ask too late.

    Raises:
        TypeError: Not an int.
        ValueError: Another number.
    """
    if not isinstance(alignment, int):
        raise TypeError(f"alignment: expected int, not {type(alignment).__name__}")
    if alignment not in _ALIGNMENTS:
        raise ValueError(f"alignment must be 0 or a power of two from 8 to 4096, not {int(alignment)}")


def check_backend(backend: object) -> None:
    """Refuse what is no backend, in the words of the library.

    Raises:
        TypeError: Not a str.
        ValueError: Another name.
    """
    if not isinstance(backend, str):
        raise TypeError(f"backend: expected str, not {type(backend).__name__}")
    if backend not in _BACKENDS:
        raise ValueError(f"backend {backend!r} is not one of {', '.join(map(repr, _BACKENDS))}")


def check_progress(progress: object) -> None:
    """Refuse what is neither a bool nor a function.

    Raises:
        TypeError: Anything else.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress: expected a bool or a callable, not {type(progress).__name__}")


def check_storage_options(options: Mapping[str, Any] | None, *, is_url: bool) -> None:
    """Refuse options for a file system that is not asked, and what are no options.

    Raises:
        TypeError: Neither None nor a mapping of str.
        ValueError: Options without a URL that they could be for.
    """
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise TypeError(f"storage_options: expected a mapping or None, not {type(options).__name__}")
    for key in options:
        if not isinstance(key, str):
            raise TypeError(f"storage_options: key {key!r} is {type(key).__name__}, not str")
    if options and not is_url:
        raise ValueError("storage_options are for URLs that fsspec knows, and this is not one; leave them out")
