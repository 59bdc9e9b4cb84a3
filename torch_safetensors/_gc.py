"""The cyclic garbage collector around the making of many objects."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["gc_paused"]


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Makes no collection within: none of the objects that are being made can be garbage yet.

    For short work only, as it holds for all threads. Nothing else that turns the collector off is undone.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
