"""``torch-safetensors rename``: the same tensors under other names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from .._errors import printable
from .._safe_open import safe_open
from .._text import printable_name
from ._copy import copy_tensors
from ._errors import CommandError
from ._grid import Column, print_grid
from ._output import add_force, check_new

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "write the tensors under other names"
EPILOG = """\
The changes are made in the order of the options; each may be given more than once.

examples:
  torch-safetensors rename compiled.safetensors model.safetensors --strip-prefix _orig_mod.
  torch-safetensors rename a.safetensors b.safetensors --map old.weight=new.weight --add-prefix model.
  torch-safetensors rename a.safetensors b.safetensors --regex 's/^h\\.(\\d+)/layers.\\1/' --dry-run
"""

_Step: TypeAlias = Callable[[str], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="a file, an index, or a directory")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument("--dry-run", action="store_true", help="print what would be renamed, write nothing")
    add_force(parser)

    def add_step(option: str, metavar: str, step: Callable[[str], _Step], text: str) -> None:
        parser.add_argument(option, dest="steps", action="append", metavar=metavar, type=step, help=text)

    add_step("--map", "OLD=NEW", _mapping, "this name becomes that one")
    add_step("--strip-prefix", "PREFIX", lambda prefix: lambda name: name.removeprefix(prefix), "take it from names")
    add_step("--add-prefix", "PREFIX", lambda prefix: lambda name: prefix + name, "put it in front of all names")
    add_step("--regex", "s/OLD/NEW/", _substitution, "replace a regular expression, as sed and Python's re.sub do")


def run(options: argparse.Namespace) -> int:
    """Writes the file, or shows what would be in it."""
    if not options.steps:
        raise CommandError("nothing to rename: pass --map, --strip-prefix, --add-prefix or --regex")
    check_new(options.target, options.force or options.dry_run)
    with safe_open(options.path) as handle:
        stored, metadata = handle.offset_keys(), handle.metadata()
    names = _new_names(options.path, stored, options.steps)
    if options.dry_run:
        rows = [[printable_name(old), printable_name(new)] for old, new in names.items() if old != new]
        print_grid((Column("old", fold=True), Column("new", fold=True)), rows)
        return 0
    copy_tensors(options.path, names, options.target, _renamed_ties(metadata, names, options.steps))
    return 0


def _new_names(path: str, stored: Sequence[str], steps: Sequence[_Step]) -> dict[str, str]:
    names = {name: _apply(steps, name) for name in stored}
    taken: dict[str, str] = {}
    for old, new in names.items():
        if new in taken:
            raise CommandError(f"{printable(path)}: {taken[new]!r} and {old!r} would both be named {new!r}")
        taken[new] = old
    if all(old == new for old, new in names.items()):
        raise CommandError(f"{printable(path)}: no name would change")
    return names


def _apply(steps: Sequence[_Step], name: str) -> str:
    for step in steps:
        name = step(name)
    return name


def _renamed_ties(
    metadata: dict[str, str] | None, names: dict[str, str], steps: Sequence[_Step]
) -> dict[str, str] | None:
    """The metadata, in which `dropped -> kept` records the ties of a model, in the new names."""
    return metadata and {
        _apply(steps, key) if value in names and key not in names else key: names.get(value, value)
        for key, value in metadata.items()
    }


def _mapping(text: str) -> _Step:
    old, separator, new = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW")
    return lambda name: new if name == old else name


def _substitution(text: str) -> _Step:
    """``s/OLD/NEW/`` with any delimiter, which stands in neither; ``g`` replaces every match."""
    parts = text[2:].split(text[1]) if len(text) > 1 and text[0] == "s" else []
    if len(parts) != 3 or parts[2] not in ("", "g"):
        raise argparse.ArgumentTypeError(f"{text!r} is not s/OLD/NEW/ or s/OLD/NEW/g")
    try:
        pattern = re.compile(parts[0])
        pattern.sub(parts[1], "")
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return lambda name: pattern.sub(parts[1], name, count=0 if parts[2] else 1)
