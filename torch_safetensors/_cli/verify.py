"""``torch-safetensors verify``: whether files are valid, and undamaged as far as they can tell."""

from __future__ import annotations

import argparse

from .._errors import SafetensorError, printable
from .._listing import list_tensors
from .._safe_open import safe_open
from .._text import count_of
from ._errors import one_line
from ._grid import line

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "check headers completely, and data against the checksums that were saved with it"
EPILOG = """\
save_file(..., checksum=True) records checksums. A file without them is good if its header is: what its
data should be, nobody knows. Of a checkpoint in several files, some may record checksums and others not.

exit status: 0 all are good, 1 one is not

examples:
  torch-safetensors verify model.safetensors
  torch-safetensors verify --require-checksums *.safetensors
"""


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
            what = _check_data(handle, require_checksums)
    except (OSError, ValueError, SafetensorError) as error:
        line(f"BAD  {one_line(error)}", "red")
        return 1
    line(f"ok   {printable(path)}: {tensors}, {what}", "green")
    return 0


def _check_data(handle: safe_open, require_checksums: bool) -> str:
    files = list_tensors(handle).files
    recorded = handle._call("_files_with_checksums")
    missing = [file.path for number, file in enumerate(files) if number not in recorded]
    if missing and require_checksums:
        others = f", and {len(missing) - 1} more of {len(files)} files" if len(missing) > 1 else ""
        raise SafetensorError(f"{missing[0]}: no checksums to verify{others}: save it with checksum=True")
    handle._call("_verify_recorded")
    if not recorded:
        return "header checked; no checksums are recorded"
    if missing:
        return f"headers checked, checksums of {len(recorded)} of {len(files)} files; the others record none"
    return "header and checksums checked"
