"""Checksums on their way through a command: what a file records is compared with its data, and recorded anew."""

from __future__ import annotations

import argparse

from .._listing import list_tensors
from .._safe_open import safe_open

__all__ = ["KEPT", "add_checksum", "names_with_checksums"]

#: For the texts that explain a command.
KEPT = """\
If the input records checksums, its data is checked against them, and the output records checksums, too.
"""


def add_checksum(parser: argparse.ArgumentParser) -> None:
    """The option to record checksums also where the input has none."""
    parser.add_argument(
        "--checksum", action="store_true", help="record checksums, for `verify`, also where the input has none"
    )


def names_with_checksums(handle: safe_open) -> set[str]:
    """The tensors that a file of the checkpoint records a checksum of; some files may, and others not."""
    files = set(handle._call("_files_with_checksums"))
    return {tensor.name for tensor in list_tensors(handle).tensors if tensor.file in files} if files else set()
