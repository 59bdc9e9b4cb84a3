from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Peer, Tensors
from .ours import prefetched

if TYPE_CHECKING:
    from torch import Tensor, nn


def make_durable(path: Path) -> None:
    """What a peer without an option for it leaves to its user: fsync of the file and of its folder."""
    for name in path, path.parent:
        file = os.open(name, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


class _Package(Peer):
    distribution = "safetensors"
    backend: ClassVar[str] = "mmap"

    def start(self) -> None:
        import safetensors
        import safetensors.torch

        self._open: Any = safetensors.safe_open
        self._torch: Any = safetensors.torch

    def load_file(self, path: Path) -> Tensors:
        return self._torch.load_file(path, backend=self.backend)

    def load_to(self, path: Path, device: str) -> Tensors:
        return self._torch.load_file(path, device=device, backend=self.backend)

    def read_rows(self, path: Path, name: str, begin: int, end: int) -> Tensor:
        with self._open(path, framework="pt", backend=self.backend) as file:
            return file.get_slice(name)[begin:end]


class Reference(_Package):
    name = "reference"

    def load_operator(self, path: Path) -> Tensors:
        return self.load_file(path)

    def keys(self, path: Path) -> list[str]:
        with self._open(path, framework="pt") as file:
            return file.keys()

    def load_bytes(self, data: bytes) -> Tensors:
        return self._torch.load(data)

    def alias_bytes(self, data: bytearray) -> Tensors:
        """It cannot alias, and takes bytes only: the least it can do with a bytearray is copy it twice."""
        return self._torch.load(bytes(data))

    def save_file(self, tensors: Tensors, path: Path) -> None:
        self._torch.save_file(tensors, path)

    def save_durably(self, tensors: Tensors, path: Path) -> None:
        self._torch.save_file(tensors, path)
        make_durable(path)

    def save_bytes(self, tensors: Tensors) -> bytes:
        return self._torch.save(tensors)

    def load_model(self, model: nn.Module, path: Path) -> None:
        self._torch.load_model(model, path)

    def save_model(self, model: nn.Module, path: Path) -> None:
        self._torch.save_model(model, path)

    def patch_transformers(self) -> None:
        """It uses the reference already."""

    def import_code(self) -> str:
        return "import safetensors.torch"

    def load_code(self) -> str:
        return "from safetensors.torch import load_file; tensors = load_file(path)"


class ReferencePread(_Package):
    name = "reference-pread"
    backend = "pread"
    variant = True


class Candidate(Reference):
    """What the reference will be next."""

    name = "candidate"
    folder = "safetensors-0.9.0rc1"


class CandidatePrefetch(Peer):
    name = "candidate-prefetch"
    distribution = "safetensors"
    folder = "safetensors-0.9.0rc1"
    variant = True

    def start(self) -> None:
        import safetensors

        self._open = safetensors.safe_open

    def load_to(self, path: Path, device: str) -> Tensors:
        return prefetched(self._open, path, device)
