"""Files that commands write: never over another one unasked, and whole or not at all."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .._errors import printable
from ._errors import CommandError

__all__ = ["add_force", "check_new", "replacing"]


def add_force(parser: argparse.ArgumentParser) -> None:
    """The option that :func:`check_new` takes."""
    parser.add_argument("-f", "--force", action="store_true", help="replace the output where it exists")


def check_new(path: str, force: bool) -> None:
    """Refuses an output that exists, a directory with something in it included.

    Raises:
        CommandError: it exists, and ``force`` is not set.
    """
    target = Path(path)
    if force or not os.path.lexists(target):
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    raise CommandError(f"{printable(path)}: exists already; pass --force to replace it")


@contextlib.contextmanager
def replacing(path: str) -> Iterator[Path]:
    """A file beside ``path`` to be written, which takes its place when the block has ended well."""
    target = Path(path).resolve()
    if target.parent.name == "blobs" and (target.parent.parent / "snapshots").is_dir():
        target = Path(path).absolute()  # a link into a Hugging Face cache is replaced: others share the file
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
