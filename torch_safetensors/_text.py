"""How names, shapes and sizes are shown to people."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["count_of", "format_bytes", "format_shape", "is_number", "natural_order", "printable_name", "shortened"]


def format_bytes(nbytes: float) -> str:
    """A size in decimal units, as ``90.9 MB``; whole below a kilobyte."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        nbytes /= 1000
        if nbytes < 999.95:
            return f"{nbytes:.1f} {unit}"
    return f"{nbytes / 1000:.1f} PB"


def format_shape(shape: Sequence[int]) -> str:
    """``[2,3]``: without blanks, so that it is one word."""
    return f"[{','.join(map(str, shape))}]"


def count_of(number: int, noun: str) -> str:
    """``1 tensor``, ``1,000 tensors``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_number(label: str) -> bool:
    """Whether it is the number of a layer, or another one of a sane length."""
    return label.isascii() and label.isdigit() and len(label) < 10


def natural_order(label: str) -> tuple[bool, int, str]:
    """A key that sorts labels with numbers first, as numbers."""
    return (False, int(label), "") if is_number(label) else (True, 0, label)


def printable_name(name: str) -> str:
    """A name on one line, without what a terminal would act on; a file may hold any text for a name."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def shortened(text: str, most: int) -> str:
    """At most so many characters, the middle left out."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[len(text) - half :]}"
