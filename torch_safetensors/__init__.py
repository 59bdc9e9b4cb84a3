"""The safetensors format for PyTorch, as operators that eager code, TorchScript, compiled graphs and C++ share.

>>> from torch_safetensors import load_file, save_file
>>> save_file({"embedding": torch.zeros((512, 1024))}, "model.safetensors")
>>> tensors = load_file("model.safetensors")

The same functions are operators, ``torch.ops.safetensors``, and a C++ library; README.md shows each.
"""

from ._library import __version__, cmake_prefix_path, library_path, uses_stable_abi  # isort: skip (registers the operators)
from . import _graphs, _lock_wait, ops  # noqa: F401 (_lock_wait: an operator in Python)
from ._errors import SafetensorError
from ._files import load, load_file, load_tensor, save, save_file
from ._install import install, uninstall
from ._iterate import iter_tensors
from ._models import load_model, save_model
from ._replace import recover, replace_tensor
from ._safe_open import safe_open
from ._sharded import save_sharded
from ._writer import Writer

_graphs.register()

__all__ = [
    "SafetensorError",
    "Writer",
    "__version__",
    "cmake_prefix_path",
    "install",
    "iter_tensors",
    "library_path",
    "load",
    "load_file",
    "load_model",
    "load_tensor",
    "ops",
    "recover",
    "replace_tensor",
    "safe_open",
    "save",
    "save_file",
    "save_model",
    "save_sharded",
    "uninstall",
]

if uses_stable_abi:
    from . import _stable

    _stable.serve(globals(), __all__)
