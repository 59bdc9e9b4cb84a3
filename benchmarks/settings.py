"""What a run is told; sent to every worker."""

from __future__ import annotations

import dataclasses
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Settings:
    #: For temporary files, made for this run and deleted after it: one on a disk, one on a tmpfs.
    disk: Path
    tmpfs: Path
    #: Each peer's packages lie in a folder of their own below it.
    peers: Path = ROOT / "build/peers"
    #: The files of a real model, for the case that uses transformers.
    model: Path = ROOT / "build/model"
    #: Everything a hundredth of its size, to try the code.
    small: bool = False
    rounds: int = 7
    seed: int = 0
    #: Seconds that the rounds of one case should take; peers that are too slow for it take part in fewer rounds.
    budget: float = 10.0
    #: Seconds after which a worker that does not answer is ended.
    timeout: float = 120.0
    #: Whether to measure peak memory, which takes a fresh process for each case and peer.
    memory: bool = True
    #: Where the accelerator's cases load to.
    device: str = "cpu"

    def scaled(self, large: int, small: int) -> int:
        return small if self.small else large
