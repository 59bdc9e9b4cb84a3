"""What a handle looks like where it is printed: in a REPL, and in a notebook."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING

from ._errors import SafetensorError, printable
from ._listing import Listing, Tensor, list_tensors
from ._text import count_of, format_bytes, format_shape, printable_name, shortened

if TYPE_CHECKING:
    from ._safe_open import safe_open

__all__ = ["html_summary", "summary"]

#: A handful in a REPL, a screen in a notebook.
_ROWS = 5
_HTML_ROWS = 30
_NAME_LENGTH = 80


def summary(handle: safe_open) -> str:
    """File, number of tensors, bytes, dtypes, and the first few tensors; a handful of lines."""
    source = f"<safe_open {str(handle._filename)!r}"
    if handle._file is None:
        return f"{source}: closed>"
    try:
        listing = list_tensors(handle)
    except (OSError, SafetensorError) as error:
        return f"{source}: {error}>"
    if not listing.tensors:
        return f"{source}: 0 tensors>"
    shown = listing.tensors[:_ROWS]
    names = [shortened(printable_name(tensor.name), _NAME_LENGTH) for tensor in shown]
    width = max(map(len, names))
    lines = [f"{source}: {_sizes(listing)}", _dtypes(listing)]
    lines += [
        f"{name:{width}} {tensor.dtype} {format_shape(tensor.shape)}" for name, tensor in zip(names, shown, strict=True)
    ]
    lines += _more(listing, _ROWS)
    return "\n  ".join(lines) + ">"


def html_summary(handle: safe_open) -> str:
    """The same as a table, for notebooks. What comes from the file is escaped."""
    if handle._file is None:
        return f"<pre>{html.escape(summary(handle))}</pre>"
    try:
        listing = list_tensors(handle)
    except (OSError, SafetensorError):
        return f"<pre>{html.escape(summary(handle))}</pre>"
    title = f"<b>{html.escape(printable(handle._filename))}</b>: {_sizes(listing)}"
    rows = "".join(map(_row, listing.tensors[:_HTML_ROWS]))
    head = "<tr><th>name</th><th>dtype</th><th>shape</th><th>bytes</th></tr>"
    below = "".join(f"<p>{line}</p>" for line in _more(listing, _HTML_ROWS))
    return f"<div><p>{title}<br>{_dtypes(listing)}</p><table>{head}{rows}</table>{below}</div>"


def _sizes(listing: Listing) -> str:
    files = f" in {len(listing.files)} files" if len(listing.files) > 1 else ""
    return f"{count_of(len(listing.tensors), 'tensor')}, {format_bytes(listing.nbytes)}{files}"


def _dtypes(listing: Listing) -> str:
    """Most bytes first."""
    sizes: Counter[str] = Counter()
    counts = Counter(tensor.dtype for tensor in listing.tensors)
    for tensor in listing.tensors:
        sizes[tensor.dtype] += tensor.nbytes
    return ", ".join(f"{dtype}: {counts[dtype]:,} ({format_bytes(size)})" for dtype, size in sizes.most_common())


def _more(listing: Listing, shown: int) -> list[str]:
    return [f"and {len(listing.tensors) - shown:,} more"] if len(listing.tensors) > shown else []


def _row(tensor: Tensor) -> str:
    name = html.escape(shortened(printable_name(tensor.name), _NAME_LENGTH))
    cells = [tensor.dtype, format_shape(tensor.shape), format_bytes(tensor.nbytes)]
    return f'<tr><td style="text-align:left">{name}</td>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
