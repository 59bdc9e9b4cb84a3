"""Loading from a file system that answers late, as networks do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from .. import contents
from ..case import Action, Case
from ..peers.base import Peer, Tensors
from ..raw import Raw
from ..settings import Settings
from ..slow_fs import BANDWIDTH, mounted
from .load import LoadCase, read_every_byte


class SlowFileSystem(LoadCase):
    what = "load_file, 34 MB, every byte read, on FUSE: 1 ms a request, 400 MB/s in all (limit: those 400 MB/s)"
    variants = True
    memory = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.on_slow_disk(settings), read=True)
        self._folder = settings.disk / "behind-slow"
        self._mount = settings.disk / "slow"
        self._folder.mkdir(exist_ok=True)
        self.path = self._folder / self.path.name

    def surroundings(self) -> contextlib.AbstractContextManager[Any]:
        return mounted(self.settings, self._folder, self._mount)

    def prepare(self, peer: Peer) -> Action:
        load: Callable[..., Tensors] = getattr(peer, self.verb)
        path = self._mount / peer.own_file(self.path, self.content).name

        def action() -> Tensors:
            tensors = load(path)
            read_every_byte(tensors.values())
            return tensors

        return action

    def limit(self, raw: Raw) -> Action:
        del raw
        return lambda: time.sleep(self.content.nbytes / BANDWIDTH)


CASES: dict[str, Callable[..., Case]] = {"slow-fs": SlowFileSystem}
