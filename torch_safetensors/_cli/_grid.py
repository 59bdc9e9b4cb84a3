"""Tables: rich ones on a terminal, plain ones in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO, TypeAlias

from .._text import format_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Cell", "Column", "Size", "console", "heading", "is_terminal", "line", "print_grid"]


class Size(int):
    """A number of bytes."""


#: Text; or a number, which a pipe gets plainly and a terminal with separators, a size in units.
Cell: TypeAlias = str | int

#: Rich needs seconds for tables that are longer than anyone reads.
_MAX_RICH_ROWS = 2000


class Column(NamedTuple):
    """A column of a table."""

    title: str
    style: str = ""
    right: bool = False
    #: Text that is broken over lines where the terminal is too narrow.
    fold: bool = False


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at it, or has asked for what a person would see (``FORCE_COLOR``)."""
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def console() -> Console:
    """A console for stdout as it is now; on terminals alone."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def line(text: str, style: str = "") -> None:
    """Prints a line, styled on a terminal."""
    if is_terminal(sys.stdout):
        console().print(text, style=style, soft_wrap=True)
    else:
        print(text)


def heading(text: str) -> None:
    """Prints what stands above a table."""
    line("")
    line(text, "bold")


def print_grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Prints a table. Nothing is ever cut off; in a pipe a row is a line."""
    if is_terminal(sys.stdout) and len(rows) <= _MAX_RICH_ROWS:
        console().print(rich_grid(columns, rows))
    else:
        _print_plain(columns, rows, in_units=is_terminal(sys.stdout))


def rich_grid(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    """The table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.title, justify=justify, style=column.style, no_wrap=not column.fold, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(cell, in_units=True)) for cell in row))
    return table


def _print_plain(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, in_units: bool) -> None:
    texts = [[column.title for column in columns], *([_text(cell, in_units=in_units) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        padded = (
            text.rjust(width) if column.right else text.ljust(width)
            for column, text, width in zip(columns, row, widths, strict=True)
        )
        print("  ".join(padded).rstrip())


def _text(cell: Cell, *, in_units: bool) -> str:
    if isinstance(cell, str):
        return cell
    if not in_units:
        return str(int(cell))
    return format_bytes(cell) if isinstance(cell, Size) else f"{cell:,}"
