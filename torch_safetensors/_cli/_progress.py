"""Progress bars on stderr, where a person looks at it and something takes longer than a second."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

__all__ = ["is_watched", "progress"]


def is_watched() -> bool:
    """Whether to show progress: the ``progress`` of loads and saves."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def progress(what: str, nbytes: int) -> Iterator[Callable[[int], object]]:
    """Yields a function to be called with the number of bytes that have been done since the last call."""
    if not is_watched():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(desc=what, total=nbytes, unit="B", unit_scale=True, delay=1, leave=False) as bar:
        yield bar.update
