"""The parser of the command line, and what becomes of errors, interrupts and closed pipes."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .._library import __version__
from . import bench, convert, diff, extract, info, merge, rename, split, verify
from ._errors import one_line
from ._interrupts import noted_interrupts

__all__ = ["entry", "main"]

#: Exit codes; 1 says that files differ (`diff`) or that one is bad (`verify`).
_TROUBLE = 2
_INTERRUPTED = 130
_PIPE_CLOSED = 141

_COMMANDS = (info, verify, diff, convert, split, merge, extract, rename, bench)
_RUN_HELP = "run a Python script, or a module with -m, with safetensors' names answered by this package"
_EPILOG = """\
PATH is a safetensors file, the index of a checkpoint in several files (*.safetensors.index.json), or
a directory with either. Tables are coloured on a terminal; in a pipe they are plain text, a tensor a line.

exit status: 0 done, 1 files differ (diff) or one is bad (verify), 2 an error, 130 interrupted

examples:
  torch-safetensors info model.safetensors --tree
  torch-safetensors diff old.safetensors new.safetensors
  torch-safetensors convert pytorch_model.bin model.safetensors
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; a command's function is ``options.command``."""
    parser = _new_parser(argparse.ArgumentParser, "torch-safetensors", "Look at and change safetensors files.", _EPILOG)
    parser.add_argument("--version", action="version", version=f"torch-safetensors {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _COMMANDS:
        name = module.__name__.rpartition(".")[2]
        command = _new_parser(commands.add_parser, name, module.HELP, module.EPILOG, help=module.HELP)
        module.add_arguments(command)
        command.add_argument("--traceback", action="store_true", help="show where an error comes from")
        command.set_defaults(command=module.run)
    # For `--help` alone: _run gets its arguments as they are.
    script = _new_parser(commands.add_parser, "run", _RUN_HELP, "", help=_RUN_HELP)
    script.usage = "%(prog)s SCRIPT [ARGUMENT ...]"
    script.set_defaults(command=lambda options: script.error("SCRIPT is missing"))
    return parser


def _new_parser(
    make: Callable[..., argparse.ArgumentParser], name: str, description: str, epilog: str, **options: Any
) -> argparse.ArgumentParser:
    return make(
        name,
        description=f"{description[:1].upper()}{description[1:].removesuffix('.')}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status. Errors are printed on stderr, in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["run"] and arguments[1:2] not in ([], ["-h"], ["--help"]):
        importlib.import_module("torch_safetensors._run").run(arguments[1:])
        return 0
    try:
        options = make_parser().parse_args(arguments)
        with noted_interrupts() as interrupts:
            return _run(options, interrupts)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(options: argparse.Namespace, interrupts: list[int]) -> int:
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return _PIPE_CLOSED
    except Exception as error:
        if interrupts:
            return _INTERRUPTED
        if options.traceback:
            raise
        print(f"torch-safetensors: {one_line(error)}", file=sys.stderr)
        return _TROUBLE
    return status


def _discard_output() -> None:
    """What is still buffered has no reader, and would be complained of when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def entry() -> NoReturn:
    """The console script."""
    if sys.argv[1:2] == ["run"]:
        sys.exit(main())  # What a program does with its streams is its own affair.
    for stream in sys.stdout, sys.stderr:
        # Names may be anything, and a terminal's encoding, too.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    status = main()
    try:
        sys.stdout.flush()
    except OSError:  # A full disk, which main has told of.
        _discard_output()
    sys.exit(status)
