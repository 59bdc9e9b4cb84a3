from __future__ import annotations

from pathlib import Path
from typing import Any

from .base import Peer, Tensors


class RunaiStreamer(Peer):
    name = "runai"
    distribution = "runai-model-streamer"
    folder = "runai-model-streamer"

    def start(self) -> None:
        import runai_model_streamer

        self._package: Any = runai_model_streamer

    def load_file(self, path: Path) -> Tensors:
        return self.load_to(path, "cpu")

    def load_to(self, path: Path, device: str) -> Tensors:
        with self._package.SafetensorsStreamer() as streamer:
            streamer.stream_file(str(path), device=device)
            return dict(streamer.get_tensors())

    def load_code(self) -> str:
        return (
            "from runai_model_streamer import SafetensorsStreamer\n"
            "with SafetensorsStreamer() as streamer:\n"
            "    streamer.stream_file(path)\n"
            "    tensors = dict(streamer.get_tensors())"
        )
