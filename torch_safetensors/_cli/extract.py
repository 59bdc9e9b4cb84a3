"""``torch-safetensors extract``: some tensors of a checkpoint, in a file of their own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .._errors import printable
from .._safe_open import safe_open
from .._selection import choose
from ._checksums import KEPT, add_checksum
from ._copy import copy_tensors
from ._errors import CommandError
from ._output import add_force, check_new

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "copy some tensors into a file of their own"
EPILOG = f"""\
NAME is a name or a pattern with *, ? and [...]; quote patterns, or the shell takes them for files.
{KEPT}
examples:
  torch-safetensors extract model.safetensors 'encoder.layer.0.*' -o layer0.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="a file, an index, or a directory")
    parser.add_argument("names", metavar="NAME", nargs="+", help="names or patterns")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write")
    add_checksum(parser)
    add_force(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the file."""
    check_new(options.output, options.force)
    with safe_open(options.path) as handle:
        stored, metadata = handle.offset_keys(), handle.metadata()
    names = _matching(options.path, stored, options.names)
    kept = _kept(metadata, stored, names)
    copy_tensors(options.path, dict(zip(names, names, strict=True)), options.output, kept, checksum=options.checksum)
    return 0


def _matching(path: str, stored: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The names that are asked for, each once, in the order of the file."""
    chosen, missed = choose(stored, wanted)
    if missed is not None:
        raise CommandError(f"{printable(path)}: no tensor is named or matches {missed!r}")
    return chosen


def _kept(metadata: dict[str, str] | None, stored: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    """The metadata without the ties of tensors that are not there any more."""
    gone = {*stored} - {*names}
    return metadata and {key: value for key, value in metadata.items() if value not in gone}
