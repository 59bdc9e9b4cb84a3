"""The fenced blocks of README.md and docs/, and the programs that they make up."""

from __future__ import annotations

import contextlib
import doctest
import functools
import io
import os
import re
import subprocess
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What runs in the order of the page, in one process and one folder.
RUNS = ("python", "sh", "console")
_FENCE = re.compile(r"( *)(```+|~~~+) *([^\s`]*)")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it opens and closes (lines from 1), and what it says, without indentation."""

    page: str
    language: str
    opens: int
    closes: int
    text: str
    #: Of the block of output right after it.
    output: str | None = None
    #: True for such a block.
    is_output: bool = False

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.opens}"


def pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


@functools.cache
def blocks(page: str) -> list[Block]:
    lines = (ROOT / page).read_text().splitlines()
    found: list[Block] = []
    for block in _fenced(page, lines):
        between = "".join(lines[found[-1].closes : block.opens - 1]).strip() if found else "the beginning"
        if block.language == "text" and not between and found[-1].language in RUNS:
            found[-1] = Block(**{**vars(found[-1]), "output": block.text})
            block = Block(**{**vars(block), "is_output": True})
        found.append(block)
    return found


def _fenced(page: str, lines: list[str]) -> Iterator[Block]:
    opening: re.Match[str] | None = None
    opened = 0
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if opening is None and fence:
            opening, opened = fence, number
        elif opening is not None and line.strip() == opening[2]:
            text = textwrap.dedent("\n".join(lines[opened : number - 1])) + "\n"
            yield Block(page, opening[3], opened, number, text)
            opening = None
    assert opening is None, f"{page}:{opened}: the block is not closed"


def module_name(page: str) -> str:
    return re.sub(r"\W", "_", page)


def program(page: str, run: list[Block]) -> str:
    """A Python program that runs these blocks of a page. Its lines have the page's numbers."""
    lines = ["import documented", *[""] * (run[-1].closes - 1)]
    for block in run:
        if block.language == "python":
            lines[block.opens - 1] = f"_block = documented.begin({page!r}, {block.opens})"
            lines[block.opens : block.closes - 1] = block.text.splitlines()
            lines[block.closes - 1] = "_block.close()"
        else:
            lines[block.opens - 1] = f"documented.shell({page!r}, {block.opens})"
    return "\n".join(lines) + "\n"


# --- called by such a program ---------------------------------------------------------------------


def _block(page: str, line: int) -> Block:
    (block,) = [block for block in blocks(page) if block.opens == line]
    return block


def begin(page: str, line: int) -> contextlib.ExitStack:
    """To be closed after the block: compares what it printed. A warning of it, or of this package, is an error."""
    block = _block(page, line)
    stack = contextlib.ExitStack()
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("error", module=rf"torch_safetensors|{module_name(page)}")  # torch's compiler has its own
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", DeprecationWarning)
    printed = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.callback(lambda: _compare(block, printed.getvalue()))
    return stack


def shell(page: str, line: int) -> None:
    block = _block(page, line)
    command = block.text
    if block.language == "console":
        command = "".join(line[2:] + "\n" for line in command.splitlines() if line.startswith("$ "))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    )
    assert done.returncode == 0, f"{block}: {done.stdout}"
    if block.language == "console":
        output = "".join(f"{line}\n" for line in block.text.splitlines() if not line.startswith("$ "))
        block = Block(**{**vars(block), "output": output})
    _compare(block, done.stdout)


def _compare(block: Block, printed: str) -> None:
    """``...`` in the output of the page stands for anything."""
    if block.output is not None:
        lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
        same = doctest.OutputChecker().check_output(block.output, lines, doctest.ELLIPSIS)
        assert same, f"{block} says\n{block.output}and it is\n{lines}"
