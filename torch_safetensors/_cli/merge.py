"""``torch-safetensors merge``: the shards of a checkpoint in one file."""

from __future__ import annotations

import argparse

from .._safe_open import safe_open
from ._checksums import KEPT, add_checksum
from ._copy import copy_tensors
from ._output import add_force, check_new

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "merge the shards of a checkpoint into one file"
EPILOG = f"""\
One tensor is in memory at a time.
{KEPT}
examples:
  torch-safetensors merge checkpoint/ model.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="DIR", help="a directory with shards and their index, or the index")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    add_checksum(parser)
    add_force(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the file."""
    check_new(options.target, options.force)
    with safe_open(options.path) as handle:
        names, metadata = handle.offset_keys(), handle.metadata()
    same = dict(zip(names, names, strict=True))
    copy_tensors(options.path, same, options.target, metadata, checksum=options.checksum)
    return 0
