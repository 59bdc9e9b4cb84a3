"""``torch-safetensors rename``: the same tensors under other names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .._errors import printable
from .._safe_open import safe_open
from .._text import printable_name
from ._checksums import KEPT, add_checksum
from ._copy import copy_tensors
from ._errors import CommandError
from ._grid import Column, print_grid
from ._output import add_force, check_new

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "write the tensors under other names"
EPILOG = f"""\
The changes are made in the order of the options; each may be given more than once, and has to change a name.
{KEPT}
examples:
  torch-safetensors rename compiled.safetensors model.safetensors --strip-prefix _orig_mod.
  torch-safetensors rename a.safetensors b.safetensors --map old.weight=new.weight --add-prefix model.
  torch-safetensors rename a.safetensors b.safetensors --regex 's/^h\\.(\\d+)/layers.\\1/' --dry-run
"""


class _Step(NamedTuple):
    """What one option does to each name."""

    option: str
    text: str
    change: Callable[[str], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="a file, an index, or a directory")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument("--dry-run", action="store_true", help="print what would be renamed, write nothing")
    add_checksum(parser)
    add_force(parser)

    def add_step(option: str, metavar: str, change: Callable[[str], Callable[[str], str]], text: str) -> None:
        def step(value: str) -> _Step:
            return _Step(option, value, change(value))

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
    ties = _ties(metadata, stored)
    new_names = _new_names(options.path, stored, ties, options.steps)
    names = {name: new_names[name] for name in stored}
    if options.dry_run:
        rows = [[printable_name(old), printable_name(new)] for old, new in names.items() if old != new]
        print_grid((Column("old", fold=True), Column("new", fold=True)), rows)
        return 0
    if metadata is not None:
        metadata = {new_names[key] if key in ties else key: names.get(text, text) for key, text in metadata.items()}
    copy_tensors(options.path, names, options.target, metadata, checksum=options.checksum)
    return 0


def _ties(metadata: dict[str, str] | None, stored: Sequence[str]) -> list[str]:
    """Names of a model that are not stored: the metadata has them, each with the one that is."""
    names = set(stored)
    return [key for key, kept in (metadata or {}).items() if kept in names and key not in names]


def _new_names(path: str, stored: Sequence[str], ties: Sequence[str], steps: Sequence[_Step]) -> dict[str, str]:
    """All names, with what the steps make of them.

    Raises:
        CommandError: a step that changes none, which is misspelled; two that would be alike; none that changes.
    """
    old = [*stored, *ties]
    new = old
    without_effect = []
    for step in steps:
        before, new = new, list(map(step.change, new))
        if new == before:
            without_effect.append(f"{step.option} {step.text!r}")
    if without_effect:
        raise CommandError(f"{printable(path)}: no tensor has a name that would change by {', '.join(without_effect)}")
    if new == old:
        raise CommandError(f"{printable(path)}: no name would change")
    taken: dict[str, str] = {}
    for name, new_name in zip(stored, new, strict=False):  # without the ties
        if new_name in taken:
            raise CommandError(f"{printable(path)}: {taken[new_name]!r} and {name!r} would both be named {new_name!r}")
        taken[new_name] = name
    return dict(zip(old, new, strict=True))


def _mapping(text: str) -> Callable[[str], str]:
    old, separator, new = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW")
    return lambda name: new if name == old else name


def _substitution(text: str) -> Callable[[str], str]:
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
