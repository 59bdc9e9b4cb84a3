"""The operators, ``torch.ops.safetensors``, under names that editors and type checkers know: see ``ops.pyi``.

>>> from torch_safetensors import ops
>>> tensors = ops.load_file("model.safetensors")

They are the operators themselves, and so usable in eager code, in graphs and in TorchScript alike. They take ``str``
and ``torch.device`` only and raise torch's own exceptions; the functions of the package take more forms and raise
Python's.
"""

from __future__ import annotations

import torch

from ._library import needs_build

__all__ = [  # noqa: F822 (set below)
    "SafeOpen",
    "keys",
    "load",
    "load_file",
    "load_into",
    "load_tensor",
    "load_tensors",
    "metadata",
    "prefetch",
    "save",
    "save_file",
    "save_tensors",
]

_ops = torch.ops.safetensors

for _name in __all__:
    if hasattr(_ops, _name):
        globals()[_name] = getattr(_ops, _name)
if hasattr(_ops, "load_file"):
    SafeOpen = torch.classes.safetensors.SafeOpen


def __getattr__(name: str) -> object:
    """For what the library on torch's stable ABI has not: an error of one line."""
    if name in __all__:
        raise AttributeError(str(needs_build(f"torch_safetensors.ops.{name}")))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
