from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Peer, Tensors

if TYPE_CHECKING:
    from torch import Tensor, nn


class _Package(Peer):
    distribution = "torch_safetensors"
    backend: ClassVar[str] = "auto"

    def start(self) -> None:
        import torch_safetensors

        self._package: Any = torch_safetensors

    def version(self) -> str:
        return str(self._package.__version__)

    def load_file(self, path: Path) -> Tensors:
        return self._package.load_file(path, backend=self.backend)

    def load_to(self, path: Path, device: str) -> Tensors:
        return self._package.load_file(path, device, backend=self.backend)

    def read_rows(self, path: Path, name: str, begin: int, end: int) -> Tensor:
        with self._package.safe_open(path, backend=self.backend) as file:
            return file.get_slice(name)[begin:end]


class Ours(_Package):
    name = "ours"

    def load_operator(self, path: Path) -> Tensors:
        import torch

        return torch.ops.safetensors.load_file(str(path))

    def keys(self, path: Path) -> list[str]:
        with self._package.safe_open(path, framework="pt") as file:
            return file.keys()

    def load_bytes(self, data: bytes) -> Tensors:
        return self._package.load(data)

    def alias_bytes(self, data: bytearray) -> Tensors:
        return self._package.load(data, copy=False)

    def save_file(self, tensors: Tensors, path: Path) -> None:
        self._package.save_file(tensors, path)

    def save_durably(self, tensors: Tensors, path: Path) -> None:
        self._package.save_file(tensors, path, fsync=True)

    def save_bytes(self, tensors: Tensors) -> bytes:
        return self._package.save(tensors)

    def load_model(self, model: nn.Module, path: Path) -> None:
        self._package.load_model(model, path)

    def save_model(self, model: nn.Module, path: Path) -> None:
        self._package.save_model(model, path)

    def patch_transformers(self) -> None:
        from transformers import modeling_utils

        modeling_utils.safe_open = self._package.safe_open

    def import_code(self) -> str:
        return "import torch_safetensors"

    def load_code(self) -> str:
        return "from torch_safetensors import load_file; tensors = load_file(path)"


class OursMmap(_Package):
    name = "ours-mmap"
    backend = "mmap"
    variant = True


class OursPread(_Package):
    name = "ours-pread"
    backend = "pread"
    variant = True


def prefetched(safe_open: Callable[..., Any], path: Path, device: str) -> Tensors:
    """All tensors of a file by ``safe_open.prefetch``, which ours and the reference's candidate have in common."""
    file = safe_open(path, framework="pt", device=device)
    if not hasattr(file, "prefetch"):
        from ..case import CannotRunError

        raise CannotRunError("safe_open has no prefetch")
    with file, file.prefetch(device=device) as loader:
        return dict(iter(loader))


class OursPrefetch(Peer):
    name = "ours-prefetch"
    distribution = "torch_safetensors"
    variant = True

    def start(self) -> None:
        import torch_safetensors

        self._safe_open = torch_safetensors.safe_open

    def version(self) -> str:
        import torch_safetensors

        return str(torch_safetensors.__version__)

    def load_to(self, path: Path, device: str) -> Tensors:
        return prefetched(self._safe_open, path, device)
