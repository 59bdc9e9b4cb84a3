"""Ctrl-C and other signals whose handlers raise, where a rank must not leave the others alone."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["hear", "hear_if_urgent", "signals_heard", "signals_held"]

#: Seconds that others may take to come and be told.
_PATIENCE = 5.0


class _Hold:
    """Stands in for the handlers of the process, which run when they may raise."""

    def __init__(self) -> None:
        self.is_heard = False
        self._came: list[tuple[int, FrameType | None]] = []
        self._first = 0.0
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def install(self) -> None:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._take)

    def remove(self) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._take:
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self._came:
            self._first = time.monotonic()
        self._came.append((number, frame))
        if self.is_heard:
            self.is_heard = False  # until whoever catches what is raised has done so
            self.hear()
            self.is_heard = True

    def hear(self) -> None:
        while self._came:
            number, frame = self._came.pop(0)
            self._handlers[number](number, frame)

    def is_urgent(self) -> bool:
        return len(self._came) > 1 or (bool(self._came) and time.monotonic() - self._first > _PATIENCE)


class _Thread(threading.local):
    hold: _Hold | None = None


_thread = _Thread()


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keeps signal handlers from raising within, except in :func:`signals_heard`. They run at its end.

    Signals are for the main thread; in others it does nothing.
    """
    hold = _thread.hold
    if hold is not None:
        with _heard_or_not(hold, False):
            yield
        if hold.is_heard:
            hold.hear()
        return
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _thread.hold = hold = _Hold()
    try:
        hold.install()
        yield
    finally:
        _thread.hold = None
        hold.remove()
        hold.hear()


@contextlib.contextmanager
def signals_heard() -> Iterator[None]:
    """Within :func:`signals_held`: has signals handled as ever, those first that have come before."""
    hold = _thread.hold
    if hold is None:
        yield
        return
    hold.hear()
    with _heard_or_not(hold, True):
        yield


@contextlib.contextmanager
def _heard_or_not(hold: _Hold, is_heard: bool) -> Iterator[None]:
    before, hold.is_heard = hold.is_heard, is_heard
    try:
        yield
    finally:
        hold.is_heard = before


def hear() -> None:
    """Handles the signals that have come, and raises what their handlers do."""
    if _thread.hold is not None:
        _thread.hold.hear()


def hear_if_urgent() -> None:
    """The same where there were two of them, or one came long ago."""
    if _thread.hold is not None and _thread.hold.is_urgent():
        _thread.hold.hear()
