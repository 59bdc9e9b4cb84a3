"""The same work at many sizes; the size stands in the name of the case."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import contents
from ..case import Action, Case
from ..content import Content
from ..peers.base import Peer
from ..settings import Settings
from .load import Keys, LoadCase, read_every_byte
from .models import ModelIn
from .save import SaveCase


class ScaledLoad(LoadCase):
    what = "load_file, so many tensors of 16 bytes"

    def __init__(self, settings: Settings, count: str) -> None:
        super().__init__(settings, contents.many(settings, int(count)))


class ScaledKeys(Keys):
    what = "the names in a header of so many tensors"

    def __init__(self, settings: Settings, count: str) -> None:
        LoadCase.__init__(self, settings, contents.many(settings, int(count)))


class ScaledSave(SaveCase):
    what = "save_file, so many tensors of 16 bytes"

    def __init__(self, settings: Settings, count: str) -> None:
        super().__init__(settings, contents.many(settings, int(count)))


class ScaledModel(ModelIn):
    what = "load_model, so many names, half of them ties"

    def __init__(self, settings: Settings, count: str) -> None:
        half = int(count) // 2
        super().__init__(settings, contents.tied_model(settings, 1, half, half))


class Threads(Case):
    what = "load_file of a file of 256 MB in each of so many threads, every byte read"
    verb = "load_file"
    memory = False

    def __init__(self, settings: Settings, count: str) -> None:
        super().__init__(settings)
        self._contents = [contents.shard(settings, index) for index in range(int(count))]

    def files(self) -> list[tuple[Path, Content]]:
        folder = self.settings.disk
        return [(folder / f"{content.name}.safetensors", content) for content in self._contents]

    def prepare(self, peer: Peer) -> Action:
        load: Callable[[Path], Any] = getattr(peer, self.verb)
        results: list[Any] = []

        def one(path: Path) -> None:
            tensors = load(path)
            read_every_byte(tensors.values())
            results.append(tensors)

        def action() -> list[Any]:
            results.clear()
            threads = [threading.Thread(target=one, args=(path,)) for path, _ in self.files()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return list(results)

        return action

    def check(self, result: Any) -> None:
        first_names = {min(tensors): tensors for tensors in result}
        for content in self._contents:
            content.check(first_names[content.entries[0].name])


CASES: dict[str, Callable[..., Case]] = {
    "scale-load": ScaledLoad,
    "scale-save": ScaledSave,
    "scale-keys": ScaledKeys,
    "scale-model": ScaledModel,
    "threads": Threads,
}
