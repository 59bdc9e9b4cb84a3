"""Progress of loads and saves: a bar, or calls of the caller's own function."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch

from ._arguments import PathLike

__all__ = ["Progress", "Total", "bar_or_callable", "reporting"]

_ops = torch.ops.safetensors

#: What functions take as ``progress``: nothing, a bar, or a function that is told the bytes done and all bytes.
Progress: TypeAlias = "bool | Callable[[int, int], object] | None"

_Report: TypeAlias = "Callable[[int, int], object]"


class _Thread(threading.local):
    report: _Report | None = None


_thread = _Thread()


def _call_report(done: int, total: int) -> None:
    """The operator by which the library reports, on the thread that called it."""
    if _thread.report is not None:
        _thread.report(done, total)


_library = torch.library.Library("safetensors", "IMPL")  # type: ignore[no-untyped-call]  # torch leaves it unannotated
if hasattr(_ops, "_report"):  # not in an older library, which was loaded before
    _library.impl("_report", _call_report, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]


_nobody = contextlib.nullcontext()


def reporting(progress: Progress, filename: PathLike) -> contextlib.AbstractContextManager[None]:
    """Has loads and saves within, on this thread, report to what a caller passed as ``progress``.

    Args:
        progress: True shows a bar on stderr with tqdm once it takes over a second. A function is called with the bytes
            that are done and all of them: first with 0, last with all, now and then in between, on this thread. What it
            raises stops the load or save.
        filename: stands in front of the bar.

    Raises:
        ImportError: True, and there is no tqdm.
        TypeError: anything else.
    """
    return _nobody if progress is None or progress is False else _reporting(progress, filename)


@contextlib.contextmanager
def _reporting(progress: Progress, filename: PathLike) -> Iterator[None]:
    with bar_or_callable(progress, filename) as report:
        outer, _thread.report = _thread.report, report
        _ops._report_to_python(True)
        try:
            yield
        finally:
            _thread.report = outer
            _ops._report_to_python(False)


@contextlib.contextmanager
def bar_or_callable(progress: Progress, filename: PathLike) -> Iterator[_Report | None]:
    """What is to be told, for as long as the block lasts; errors as of :func:`reporting`."""
    if progress is None or progress is False:
        yield None
    elif progress is True:
        with _bar(filename) as report:
            yield report
    elif callable(progress):
        yield progress
    else:
        raise TypeError(f"progress: expected a bool or a callable, not {type(progress).__name__}")


@contextlib.contextmanager
def _bar(filename: PathLike) -> Iterator[_Report]:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True shows a bar with tqdm: pip install tqdm, or pass a callable") from None
    name = os.path.basename(os.fsdecode(filename)).encode("utf-8", "replace").decode()  # noqa: PTH119 (of any bytes)
    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, delay=1, file=sys.stderr) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


class Total:
    """Joins operations into one for a report: of several files, or of several threads, one call at a time.

    Args:
        report: is told the bytes of all that is done.
        total: bytes of all operations.
    """

    def __init__(self, report: _Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def part(self) -> _Report:
        """A report for the next operation."""
        seen = 0

        def report(done: int, _total: int) -> None:
            nonlocal seen
            more, seen = done - seen, done
            self.add(more)

        return report

    def start(self) -> Total:
        """Reports that nothing is done yet."""
        self.add(0)
        return self

    def add(self, nbytes: int) -> None:
        """Reports that so many bytes more are done."""
        with self._lock:
            self._done += nbytes
            self._report(self._done, self._total)

    def finish(self) -> None:
        """Reports that all are, if that was not the last word yet."""
        if self._done < self._total:
            self.add(self._total - self._done)
