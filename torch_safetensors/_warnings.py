"""Warnings that point to the caller's code, however deep in this package they come from."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

#: Dynamo's wrapper stands between two of our functions where something is kept out of graphs.
_INNER = ("torch_safetensors.", "torch._dynamo.")


def warn(text: str) -> None:
    """Warn at the first line outside of this package; does nothing if there is nothing to say."""
    if not text:
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_INNER):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
