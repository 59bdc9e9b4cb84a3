"""The cyclic garbage collector around the making of many objects."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Iterator

__all__ = ["gc_paused"]

#: The threshold of a collector that is paused: more objects than there will be, and a number that nobody else sets.
#: Whether the collector is enabled is left alone: other threads may change that in the meantime.
_PAUSED = 2**31 - 1


class _Pause:
    """Of all threads: begins with the first, and ends with the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._before = gc.get_threshold()

    def begin(self) -> None:
        with self._lock:
            self._threads += 1
            before = gc.get_threshold()
            if before[0] not in (0, _PAUSED):  # 0 is off
                self._before = before
                gc.set_threshold(_PAUSED, *before[1:])

    def end(self) -> None:
        with self._lock:
            self._threads = max(0, self._threads - 1)
            if self._threads == 0 and gc.get_threshold()[0] == _PAUSED:
                gc.set_threshold(*self._before)

    def end_in_child(self) -> None:
        """The threads that paused it are not there, nor is one that held the lock."""
        self._lock = threading.Lock()
        self._threads = 0
        self.end()


_pause = _Pause()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pause.end_in_child)


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Makes no collection within: none of the objects that are being made can be garbage yet.

    For short work only, as it holds for all threads. Nothing else that turns the collector off is undone.
    """
    _pause.begin()
    try:
        yield
    finally:
        _pause.end()
