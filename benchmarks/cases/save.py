"""Saving to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import contents
from ..case import Action, Case
from ..content import Content
from ..peers.base import Peer
from ..raw import Memory, Raw
from ..settings import Settings


class SaveCase(Case):
    """Tensors in memory to a file that is not there yet."""

    verb = "save_file"

    def __init__(self, settings: Settings, content: Content, *, on_tmpfs: bool = False) -> None:
        super().__init__(settings)
        self.content = content
        self._folder = settings.tmpfs if on_tmpfs else settings.disk
        self._peer = Peer()
        self._target = self._folder / "saved-by-limit"

    @property
    def nbytes(self) -> int:
        return self.content.nbytes

    @property
    def resident(self) -> int:
        return self.content.nbytes

    def prepare(self, peer: Peer) -> Action:
        self._peer = peer
        self._target = self._folder / f"saved-by-{peer.name}"
        save: Callable[[Any, Path], None] = getattr(peer, self.verb)
        tensors = self._tensors()
        return lambda: save(tensors, self._target)

    def _tensors(self) -> Any:
        return self.content.tensors()

    def before(self) -> None:
        self._target.unlink(missing_ok=True)

    def limit(self, raw: Raw) -> Action:
        size = len(self.content.header) + self.content.nbytes
        memory = Memory.warm(max(1, size // 4096) * 4096)  # whole pages, as O_DIRECT wants them
        durable = self.verb == "save_durably"
        return lambda: raw.write(self._target, memory, durable=durable)

    def check(self, result: Any) -> None:
        del result
        self._peer.check_file(self._target, self.content)

    def finish(self) -> None:
        self._target.unlink(missing_ok=True)


class WriteTmpfs(SaveCase):
    what = "save_file, 1 GB, tmpfs"
    memory = False  # that of write-disk

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.gigabyte(settings), on_tmpfs=True)


class WriteDisk(SaveCase):
    what = "save_file, 1 GB, disk, not flushed"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.gigabyte(settings))


class WriteDurable(WriteDisk):
    what = "save_file, 1 GB, disk, flushed (fsync=True; others: os.fsync of file and folder)"
    verb = "save_durably"


class ManySaveFile(SaveCase):
    what = "save_file, 100,000 tensors of 16 bytes"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.many(settings))


class SmallSaveFile(SaveCase):
    what = "save_file over the file before, 10 tensors of 4 KB, tmpfs"
    short = True
    memory = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.small(settings), on_tmpfs=True)


CASES: dict[str, Callable[..., Case]] = {
    "write-tmpfs": WriteTmpfs,
    "write-disk": WriteDisk,
    "write-durable": WriteDurable,
    "many-save-file": ManySaveFile,
    "small-save-file": SmallSaveFile,
}
