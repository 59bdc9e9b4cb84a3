"""``torch-safetensors info``: what is in a checkpoint, of which the headers alone are read."""

from __future__ import annotations

import argparse

from .._errors import printable
from .._listing import Listing, list_tensors
from .._safe_open import safe_open
from .._text import count_of, format_bytes, format_shape, printable_name, shortened
from ._copy import say
from ._errors import CommandError
from ._grid import Cell, Column, Size, heading, line, print_grid
from ._info_json import print_json
from ._totals import Total, by_dtype, by_module, total
from ._tree import COLUMNS, tree_rows

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "show tensors, metadata, and where the bytes are; reads the header alone"
EPILOG = """\
examples:
  torch-safetensors info model.safetensors
  torch-safetensors info model.safetensors --tree --depth 3
  torch-safetensors info checkpoint/ --sort bytes | head
  torch-safetensors info model.safetensors --json | jq '.totals.by_dtype'
  torch-safetensors info model.safetensors --plot model.html

--json prints one object; what it has stays as it is, more may be added:
  path        as given
  files       [{path, header_bytes, bytes}]
  metadata    {key: text}, or null
  tensors     [{name, dtype, shape, bytes, file, begin}], in the order of the data: file is an index into
              files, begin where the tensor's bytes begin in it
  totals      {tensors, elements, bytes, by_dtype, by_module}, of which the last two have the first three
              per dtype, and per module (of --depth parts; "" for tensors outside of any)
"""

#: Metadata may hold whole configurations; --json has all of it.
_MAX_METADATA = 200

_TENSOR_COLUMNS = (
    Column("name", fold=True),
    Column("dtype", "cyan"),
    Column("shape", "green"),
    Column("bytes", "magenta", right=True),
)
_ORDERS = {
    "offset": lambda tensor: (tensor.file, tensor.begin),
    "name": lambda tensor: tensor.name,
    "bytes": lambda tensor: (-tensor.nbytes, tensor.name),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="a file, an index, or a directory")
    parser.add_argument(
        "--tree", action="store_true", help="show the tree of modules, numbered ones that are alike once"
    )
    parser.add_argument(
        "--depth", type=_positive, metavar="N", help="sum up modules of N parts (2); cut the tree there"
    )
    parser.add_argument(
        "--sort", choices=_ORDERS, help="order of the tensors in the table (offset: as in the file, the default)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    parser.add_argument("--plot", metavar="OUT", help="draw where the bytes are, to OUT.html or OUT.png")


def run(options: argparse.Namespace) -> int:
    """Prints, or draws."""
    _check_together(options)
    with safe_open(options.path) as handle:
        listing = list_tensors(handle)
    depth = options.depth or 2
    if options.plot:
        from .._plot import plot

        plot(listing, printable(options.path), options.plot)
        if options.json:  # which programs read from stdout
            say(f"{printable(options.plot)}: written")
        else:
            line(f"{printable(options.plot)}: written")
    if options.json:
        print_json(options.path, listing, depth)
    elif not options.plot:
        _print(options, listing, depth)
    return 0


def _check_together(options: argparse.Namespace) -> None:
    """Raises CommandError for options that would have no effect beside others."""
    for option, given, others in (
        ("--tree", options.tree, {"--json": options.json, "--plot": options.plot}),
        ("--sort", options.sort, {"--tree": options.tree, "--json": options.json, "--plot": options.plot}),
        ("--depth", options.depth, {"--plot": options.plot and not options.json}),
    ):
        for other, is_given in others.items():
            if given and is_given:
                raise CommandError(f"{option} has no effect with {other}; leave one of them out")


def _print(options: argparse.Namespace, listing: Listing, depth: int) -> None:
    _print_title(options.path, listing)
    _print_metadata(listing)
    line("")
    if options.tree:
        print_grid(COLUMNS, tree_rows(listing.tensors, options.depth))
    else:
        rows: list[list[Cell]] = [
            [printable_name(tensor.name), tensor.dtype, format_shape(tensor.shape), Size(tensor.nbytes)]
            for tensor in sorted(listing.tensors, key=_ORDERS[options.sort or "offset"])
        ]
        print_grid(_TENSOR_COLUMNS, rows)
    _print_totals("dtype", by_dtype(listing.tensors))
    _print_totals("module", by_module(listing.tensors, depth))


def _print_title(path: str, listing: Listing) -> None:
    whole = total(listing.tensors)
    header = sum(file.header_bytes for file in listing.files)
    line(
        f"{printable(path)}: {count_of(whole.tensors, 'tensor')}, {count_of(whole.elements, 'element')}, "
        f"{format_bytes(whole.nbytes)}, header {format_bytes(header)}",
        "bold",
    )
    if len(listing.files) > 1:
        heading("files")
        files: list[list[Cell]] = [[file.path, Size(file.nbytes)] for file in listing.files]
        print_grid((Column("path", fold=True), Column("bytes", "magenta", right=True)), files)


def _print_metadata(listing: Listing) -> None:
    if not listing.metadata:
        return
    heading("metadata")
    rows = [[printable_name(key), _metadata_text(value)] for key, value in listing.metadata.items()]
    print_grid((Column("key", "yellow"), Column("text", fold=True)), rows)


def _metadata_text(value: str) -> str:
    if len(value) <= _MAX_METADATA:
        return printable_name(value)
    return f"{printable_name(shortened(value, _MAX_METADATA))} ({len(value):,} characters)"


def _print_totals(what: str, totals: dict[str, Total]) -> None:
    heading(f"by {what}")
    columns = (
        Column(what, "cyan" if what == "dtype" else "", fold=what == "module"),
        Column("tensors", right=True),
        Column("elements", right=True),
        Column("bytes", "magenta", right=True),
        Column("share", right=True),
    )
    whole = sum(part.nbytes for part in totals.values()) or 1
    rows: list[list[Cell]] = [
        [
            printable_name(key) or "(none)",
            part.tensors,
            part.elements,
            Size(part.nbytes),
            f"{part.nbytes / whole:.1%}",
        ]
        for key, part in totals.items()
    ]
    print_grid(columns, rows)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number
