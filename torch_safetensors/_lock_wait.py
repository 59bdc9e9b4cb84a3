"""What Python does while the library waits for the lock of a file."""

from __future__ import annotations

import warnings

import torch

__all__: list[str] = []

_ops = torch.ops.safetensors


def _on_lock_wait(notice: str) -> None:
    """The operator that the library calls between attempts, on the thread that waits.

    That it is called is enough for signals: Python calls their handlers before it goes on, and what they raise, as
    KeyboardInterrupt, ends the wait.
    """
    if notice:
        warnings.warn(notice, stacklevel=2)


_library = torch.library.Library("safetensors", "IMPL")  # type: ignore[no-untyped-call]  # torch leaves it unannotated
if hasattr(_ops, "_on_lock_wait"):  # not in an older library, which was loaded before
    _library.impl("_on_lock_wait", _on_lock_wait, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
