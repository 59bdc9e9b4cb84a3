"""``torch-safetensors verify``: whether files are valid, and undamaged as far as they can tell."""

from __future__ import annotations

import argparse

from .._errors import SafetensorError, printable
from .._models import _verify
from .._safe_open import safe_open
from .._text import count_of
from ._errors import one_line
from ._grid import line

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "check headers completely, and data against the checksums that were saved with it"
EPILOG = """\
save_file(..., checksum=True) records checksums. A file without them is good if its header is: what its
data should be, nobody knows.

exit status: 0 all are good, 1 one is not

examples:
  torch-safetensors verify model.safetensors
  torch-safetensors verify --require-checksums *.safetensors
"""

_NO_CHECKSUMS = "no checksums to verify"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file, an index, or a directory")
    parser.add_argument("--require-checksums", action="store_true", help="a file without checksums is bad")


def run(options: argparse.Namespace) -> int:
    """A line for each; all are checked, whatever is wrong with others."""
    return max([_check(path, options.require_checksums) for path in options.paths])


def _check(path: str, require_checksums: bool) -> int:
    try:
        with safe_open(path) as handle:
            tensors = count_of(len(handle), "tensor")
        what = _check_data(path, require_checksums)
    except (OSError, ValueError, SafetensorError) as error:
        line(f"BAD  {one_line(error)}", "red")
        return 1
    line(f"ok   {printable(path)}: {tensors}, {what}", "green")
    return 0


def _check_data(path: str, require_checksums: bool) -> str:
    try:
        _verify(path)
    except SafetensorError as error:
        if _NO_CHECKSUMS not in str(error) or require_checksums:
            raise
        return "header checked; no checksums are recorded"
    return "header and checksums checked"
