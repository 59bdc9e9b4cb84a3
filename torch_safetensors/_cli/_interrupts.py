"""Ctrl-C, also where it strikes in code that makes another error of it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["noted_interrupts"]


@contextlib.contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """Yields a list that is empty until there was an interrupt, which raises KeyboardInterrupt as ever.

    Native code may swallow that: torch.asarray does, which the reference calls, and says that its argument is wrong.
    """
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    # Who ignores interrupts, as a shell does for what runs in its background, or handles them, goes on to do so.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield seen
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
