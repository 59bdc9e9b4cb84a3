"""The operators, ``torch.ops.safetensors``, under names that editors and type checkers know: see ``ops.pyi``.

>>> from torch_safetensors import ops
>>> tensors = ops.load_file("model.safetensors")

They are the operators themselves, and so usable in eager code, in graphs and in TorchScript alike. They take ``str``
and ``torch.device`` only and raise torch's own exceptions; the functions of the package take more forms and raise
Python's.
"""

from __future__ import annotations

import torch

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

globals().update({name: getattr(_ops, name) for name in __all__ if hasattr(_ops, name)})


def __getattr__(name: str) -> object:
    """The class, which torch looks up when it is used; and what only some libraries have, for its error."""
    if name == "SafeOpen":
        return torch.classes.safetensors.SafeOpen
    if name in __all__:
        return getattr(_ops, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
