"""``torch-safetensors diff``: what two checkpoints differ in, tensor by tensor."""

from __future__ import annotations

import argparse
import math
from typing import NamedTuple

from .._errors import printable
from .._listing import Listing, Tensor, list_tensors
from .._safe_open import safe_open
from .._text import count_of, format_shape, printable_name
from ._compare import Difference, compare
from ._errors import CommandError
from ._grid import Column, line, print_grid
from ._progress import progress

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "compare names, shapes, dtypes and values"
EPILOG = """\
Elements are the same if their bits are, so that NaNs may be, or if |a - b| <= atol + rtol * |b|. One tensor
of each file is in memory at a time. Tensors of the same shape and other dtypes are different; how far their
values are apart is shown all the same.

exit status: 0 nothing differs, 1 something does, 2 an error

examples:
  torch-safetensors diff a.safetensors b.safetensors
  torch-safetensors diff --atol 1e-3 float32.safetensors bfloat16.safetensors --ignore-dtype
  torch-safetensors diff --names-only checkpoint-1/ checkpoint-2/
"""

_COLUMNS = (
    Column("name", fold=True),
    Column("differs in", "red"),
    Column("A"),
    Column("B"),
    Column("elements", right=True),
    Column("max |A-B|", "magenta", right=True),
)


class _Row(NamedTuple):
    name: str
    what: str
    a: str = ""
    b: str = ""
    elements: str = ""
    largest: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("a", metavar="A", help="a file, an index, or a directory")
    parser.add_argument("b", metavar="B", help="another one")
    parser.add_argument("--atol", type=_tolerance, help="absolute tolerance (0)")
    parser.add_argument("--rtol", type=_tolerance, help="relative tolerance (0)")
    parser.add_argument("--names-only", action="store_true", help="compare names, shapes and dtypes, no values")
    parser.add_argument("--ignore-dtype", action="store_true", help="other dtypes alone are no difference")
    parser.add_argument("--metadata", action="store_true", help="compare the metadata, too")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing; the exit status tells")


def run(options: argparse.Namespace) -> int:
    """Prints what differs; returns whether anything does."""
    for option, given in ("--atol", options.atol), ("--rtol", options.rtol):
        if options.names_only and given is not None:
            raise CommandError(f"{option} has no effect with --names-only; leave one of them out")
    with safe_open(options.a) as a, safe_open(options.b) as b:
        listings = list_tensors(a), list_tensors(b)
        rows = _metadata_rows(*listings) if options.metadata else []
        rows += _tensor_rows(options, a, b, *listings)
    if not options.quiet:
        if rows:
            print_grid(_COLUMNS, rows)
        _print_summary(options, rows, *listings)
    return int(bool(rows))


def _tolerance(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def _print_summary(options: argparse.Namespace, rows: list[_Row], a: Listing, b: Listing) -> None:
    files = f"{printable(options.a)} and {printable(options.b)}"
    if rows:
        line(f"{files} differ: {count_of(len(rows), 'difference')}", "red")
    else:
        of_what = "are the same" if not options.names_only else "have the same names, shapes and dtypes"
        line(f"{files} {of_what}: {count_of(len(a.tensors), 'tensor')}", "green")


def _metadata_rows(a: Listing, b: Listing) -> list[_Row]:
    old, new = a.metadata or {}, b.metadata or {}
    return [
        _Row(f"__metadata__ {printable_name(key)}", "metadata", _presence(key in old), _presence(key in new))
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def _presence(there: bool) -> str:
    return "there" if there else "missing"


def _tensor_rows(options: argparse.Namespace, a: safe_open, b: safe_open, in_a: Listing, in_b: Listing) -> list[_Row]:
    others = {tensor.name: tensor for tensor in in_b.tensors}
    rows = []
    with progress("comparing", in_a.nbytes) as advance:
        for tensor in in_a.tensors:
            other = others.pop(tensor.name, None)
            row = _Row(printable_name(tensor.name), "only in A", _form(tensor)) if other is None else None
            if other is not None:
                row = _compare(options, a, b, tensor, other)
            if row is not None:
                rows.append(row)
            advance(tensor.nbytes)
    return rows + [_Row(printable_name(tensor.name), "only in B", b=_form(tensor)) for tensor in others.values()]


def _compare(options: argparse.Namespace, a: safe_open, b: safe_open, old: Tensor, new: Tensor) -> _Row | None:
    name, forms = printable_name(old.name), (_form(old), _form(new))
    if old.shape != new.shape:
        return _Row(name, "shape", *forms)
    is_other_dtype = old.dtype != new.dtype and not options.ignore_dtype
    if options.names_only:
        return _Row(name, "dtype", *forms) if is_other_dtype else None
    values = compare(a.get_tensor(old.name), b.get_tensor(new.name), options.atol or 0, options.rtol or 0)
    what = [*["dtype"] * is_other_dtype, *["values"] * (values.elements > 0)]
    return _Row(name, ", ".join(what), *forms, *_numbers(values)) if what else None


def _numbers(values: Difference) -> tuple[str, str]:
    nans = f" ({values.nans} NaN)" if values.nans else ""
    largest = f"{values.largest:.6g}" if isinstance(values.largest, float) else str(values.largest)
    return f"{values.elements}{nans}", largest


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype}{format_shape(tensor.shape)}"
