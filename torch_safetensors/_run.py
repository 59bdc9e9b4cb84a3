"""Runs a program with this package in the place of the reference."""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import runpy
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

from ._install import install

__all__ = ["run"]


def run(arguments: list[str]) -> None:
    """Runs a script, or with ``-m`` a module, as ``python`` would, after :func:`install`.

    ``sys.argv``, ``sys.path[0]`` and ``__main__`` are what they are there; so are the traceback and the exit status of
    a program that fails. Processes that it starts are not affected, unless they are forked.

    Args:
        arguments: ``[script, ...]`` or ``["-m", module, ...]``, with the program's own arguments. A script is a file
            or, as for ``python``, a folder or zip file with a ``__main__.py``.

    Raises:
        SystemExit: what the program exits with; 2 without a program, or if its file cannot be read.
    """
    is_module = arguments[:1] == ["-m"]
    program = arguments[is_module:]
    if not program:
        print("usage: torch_safetensors run (script | -m module) [argument ...]", file=sys.stderr)
        sys.exit(2)
    install()
    sys.argv[:] = program
    try:
        if is_module:
            _set_first_path([os.getcwd()])  # noqa: PTH109 (sys.path holds strings)
            runpy.run_module(program[0], run_name="__main__", alter_sys=True)
        elif pkgutil.get_importer(program[0]) is not None:  # a folder or zip file, which runpy puts into sys.path
            _set_first_path([])
            runpy.run_path(program[0], run_name="__main__")
        else:
            _run_script(Path(program[0]))
    except SystemExit:
        raise
    except BaseException:
        _begin_tracebacks_in_the_program()
        raise


def _run_script(script: Path) -> None:
    name = str(script.absolute())
    try:
        with io.open_code(name) as file:
            source = file.read()
    except OSError as error:
        print(f"error: can't open file {name!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        sys.exit(2)
    _set_first_path([str(script.resolve().parent)])
    # A module that stays: threads, pickle and multiprocessing look for it after the script's last line, too.
    main = ModuleType("__main__")
    loader = SourceFileLoader("__main__", name)
    vars(main).update(__file__=name, __builtins__=builtins, __cached__=None, __loader__=loader, __annotations__={})
    sys.modules["__main__"] = main
    exec(compile(source, name, "exec", dont_inherit=True), vars(main))


def _set_first_path(folders: list[str]) -> None:
    # Options -I and -P keep the program's folder out.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path[:1] = folders


def _begin_tracebacks_in_the_program() -> None:
    hook = sys.excepthook  # the program may have set one

    def show(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        traceback = _in_program(error.__traceback__)
        hook(kind, error.with_traceback(traceback), traceback)

    sys.excepthook = show


def _in_program(traceback: TracebackType | None) -> TracebackType | None:
    """Without the frames before those of the program; None for one that could not begin, as after a SyntaxError."""
    while traceback is not None and traceback.tb_frame.f_code is not run.__code__:
        traceback = traceback.tb_next
    own = __file__, runpy.run_path.__code__.co_filename
    while traceback is not None and traceback.tb_frame.f_code.co_filename in own:
        traceback = traceback.tb_next
    return traceback
