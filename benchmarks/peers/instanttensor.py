from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Peer, Tensors


class InstantTensor(Peer):
    """For CUDA alone."""

    name = "instanttensor"
    distribution = "instanttensor"
    folder = "instanttensor"

    def start(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise ImportError("instanttensor needs CUDA")
        import instanttensor

        self._package: Any = instanttensor

    def load_to(self, path: Path, device: str) -> Tensors:
        with self._package.safe_open([str(path)], framework="pt", device=device) as file:
            return dict(file.tensors())
