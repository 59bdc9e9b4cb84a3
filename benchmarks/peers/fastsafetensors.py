from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Peer, Tensors


class FastSafetensors(Peer):
    """Without GPUDirect Storage, which needs a driver that few machines have."""

    name = "fastsafetensors"
    distribution = "fastsafetensors"
    folder = "fastsafetensors"

    def start(self) -> None:
        import fastsafetensors

        self._package: Any = fastsafetensors

    def load_file(self, path: Path) -> Tensors:
        return self.load_to(path, "cpu")

    def load_to(self, path: Path, device: str) -> Tensors:
        loader = self._package.SafeTensorsFileLoader(self._package.SingleGroup(), device, nogds=True)
        try:
            loader.add_filenames({0: [str(path)]})
            buffers = loader.copy_files_to_device()
            tensors = {name: buffers.get_tensor(name) for name in loader.get_keys()}
            buffers.close()
            return tensors
        finally:
            loader.close()

    def load_code(self) -> str:
        return (
            "from fastsafetensors import SafeTensorsFileLoader, SingleGroup\n"
            "loader = SafeTensorsFileLoader(SingleGroup(), 'cpu', nogds=True)\n"
            "loader.add_filenames({0: [path]})\n"
            "buffers = loader.copy_files_to_device()\n"
            "tensors = {name: buffers.get_tensor(name) for name in loader.get_keys()}"
        )
