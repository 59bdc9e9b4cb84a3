"""From and to bytes in memory, with and without memory at hand that was used before."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import contents
from ..case import Action, Case
from ..content import Content
from ..memory import Usage
from ..peers.base import Peer
from ..raw import Memory, Raw
from ..settings import Settings


class _BufferCase(Case):
    """``fresh``: what the run before used was given back to the system, so that new pages have to come from there."""

    fresh = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.content = contents.gigabyte(settings)
        self.path = settings.disk / f"{self.content.name}.safetensors"
        self._peer = Peer()
        self._least = 0

    def files(self) -> list[tuple[Path, Content]]:
        return [(self.path, self.content)]

    @property
    def resident(self) -> int:
        return self.nbytes

    def before(self) -> None:
        if not self.fresh:
            return
        self._peer.release()
        trim_heap()
        used = Usage.now().own
        self._least = min(self._least, used) if self._least else used
        kept = used - self._least
        note = "memory of the run before was kept: not fresh"
        if kept > self.content.nbytes // 10 + (16 << 20) and note not in self.notes:
            self.notes.append(note)

    def limit(self, raw: Raw) -> Action:
        source = Memory.of_file(self.path)

        def copied(target: Memory) -> Memory:
            raw.copy(target, source)
            return target

        if not self.fresh:
            target = Memory.warm(source.size)
            return lambda: copied(target)
        return lambda: copied(Memory.fresh(source.size))


def trim_heap() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


class BytesInWarm(_BufferCase):
    what = "load(bytes), 1 GB, into memory that was used before"
    verb = "load_bytes"

    def prepare(self, peer: Peer) -> Action:
        self._peer = peer
        load: Callable[[bytes], Any] = getattr(peer, self.verb)
        data = self._data(peer.own_file(self.path, self.content))
        return lambda: load(data)

    def _data(self, path: Path) -> Any:
        return path.read_bytes()

    def check(self, result: Any) -> None:
        self.content.check(result)


class BytesInFresh(BytesInWarm):
    what = "load(bytes), 1 GB, into fresh memory"
    fresh = True
    memory = False  # always measured with fresh memory: see the other


class BytesInAlias(BytesInWarm):
    what = "load(bytearray, copy=False), 1 GB (the reference: load(bytes(data)))"
    verb = "alias_bytes"
    short = True

    def _data(self, path: Path) -> Any:
        return bytearray(path.read_bytes())

    def limit(self, raw: Raw) -> Action:
        return lambda: raw.parse_header(self.path)


class BytesOutWarm(_BufferCase):
    what = "save(), 1 GB, into memory that was used before"
    verb = "save_bytes"

    def prepare(self, peer: Peer) -> Action:
        self._peer = peer
        save: Callable[[Any], bytes] = getattr(peer, self.verb)
        tensors = self.content.tensors()
        return lambda: save(tensors)

    def check(self, result: Any) -> None:
        self._peer.check_bytes(result, self.content)


class BytesOutFresh(BytesOutWarm):
    what = "save(), 1 GB, into fresh memory"
    fresh = True
    memory = False


class ManySave(BytesOutWarm):
    what = "save(), 100,000 tensors of 16 bytes"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.content = contents.many(settings)
        self.path = settings.disk / f"{self.content.name}.safetensors"


class SmallSave(BytesOutWarm):
    what = "save(), 10 tensors of 4 KB"
    short = True
    memory = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.content = contents.small(settings)
        self.path = settings.tmpfs / f"{self.content.name}.safetensors"

    def limit(self, raw: Raw) -> Action:
        del raw
        data = bytearray(self.path.read_bytes())
        return lambda: bytes(data)


CASES: dict[str, Callable[..., Case]] = {
    "bytes-in-fresh": BytesInFresh,
    "bytes-in-warm": BytesInWarm,
    "bytes-in-alias": BytesInAlias,
    "bytes-out-fresh": BytesOutFresh,
    "bytes-out-warm": BytesOutWarm,
    "many-save": ManySave,
    "small-save": SmallSave,
}
