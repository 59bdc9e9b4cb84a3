from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..content import Content
from .base import Peer, Tensors
from .reference import make_durable

if TYPE_CHECKING:
    from torch import nn


class _Pickle(Peer):
    distribution = "torch"
    mmap: ClassVar[bool] = False

    def start(self) -> None:
        import torch

        self._torch: Any = torch

    def own_file(self, path: Path, content: Content) -> Path:
        own = path.with_suffix(".pt")
        if not own.exists():
            tensors = content.tensors()
            names = {**{entry.name: entry.name for entry in content.entries}, **(content.metadata or {})}
            self._torch.save({name: tensors[kept] for name, kept in names.items()}, own)
        return own

    def load_file(self, path: Path) -> Tensors:
        return self._torch.load(path, mmap=self.mmap)

    def load_to(self, path: Path, device: str) -> Tensors:
        return self._torch.load(path, map_location=device, mmap=self.mmap)

    def load_model(self, model: nn.Module, path: Path) -> None:
        model.load_state_dict(self._torch.load(path, mmap=self.mmap))


class TorchPickle(_Pickle):
    """torch.load and torch.save."""

    name = "torch"

    def load_bytes(self, data: bytes) -> Tensors:
        return self._torch.load(io.BytesIO(data))

    def save_file(self, tensors: Tensors, path: Path) -> None:
        self._torch.save(tensors, path)

    def save_durably(self, tensors: Tensors, path: Path) -> None:
        self._torch.save(tensors, path)
        make_durable(path)

    def save_bytes(self, tensors: Tensors) -> bytes:
        buffer = io.BytesIO()
        self._torch.save(tensors, buffer)
        return buffer.getvalue()

    def save_model(self, model: nn.Module, path: Path) -> None:
        self._torch.save(model.state_dict(), path)

    def check_file(self, path: Path, content: Content) -> None:
        self._check(self._torch.load(path), content)

    def check_bytes(self, data: bytes, content: Content) -> None:
        self._check(self._torch.load(io.BytesIO(data)), content)

    @staticmethod
    def _check(tensors: Tensors, content: Content) -> None:
        second_names = content.metadata or {}
        content.check({name: tensor for name, tensor in tensors.items() if name not in second_names})

    def load_code(self) -> str:
        return "import torch; tensors = torch.load(path)"


class TorchMmap(_Pickle):
    name = "torch-mmap"
    mmap = True
    variant = True
