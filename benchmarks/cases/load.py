"""Loading files that are in the page cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import contents
from ..case import Action, Case
from ..content import Content, WrongError, check_data
from ..peers.base import Peer, Tensors
from ..raw import Memory, Raw
from ..settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


def read_every_byte(tensors: Iterable[Tensor]) -> None:
    """As fast as torch can; tensors of whole eight bytes only."""
    import torch

    for tensor in tensors:
        tensor.reshape(-1).view(torch.int64).sum()


class LoadCase(Case):
    """All tensors of a file.

    Args:
        content: what is in the file.
        read: whether every byte is then read. Without, a lazy mapping has not touched the data yet.
        on_tmpfs: where the file lies.
    """

    verb = "load_file"

    def __init__(self, settings: Settings, content: Content, *, read: bool = False, on_tmpfs: bool = False) -> None:
        super().__init__(settings)
        self.content = content
        self.read = read
        self.path = (settings.tmpfs if on_tmpfs else settings.disk) / f"{content.name}.safetensors"

    def files(self) -> list[tuple[Path, Content]]:
        return [(self.path, self.content)]

    def prepare(self, peer: Peer) -> Action:
        load: Callable[[Path], Tensors] = getattr(peer, self.verb)
        path = peer.own_file(self.path, self.content)

        def action() -> Tensors:
            tensors = load(path)
            if self.read:
                read_every_byte(tensors.values())
            return tensors

        return action

    def limit(self, raw: Raw) -> Action:
        if not self.read:
            return lambda: raw.parse_header(self.path)
        import torch

        memory = Memory.of_file(self.path)
        header = len(self.content.header)
        data = torch.frombuffer(memory.view, dtype=torch.uint8, count=self.content.nbytes, offset=header)
        tensors = [data[begin : begin + entry.nbytes] for entry, begin in self.content.places()]
        return lambda: read_every_byte(tensors)

    def check(self, result: Any) -> None:
        self.content.check(result)


class Open(LoadCase):
    what = "load_file, 2.3 GB, 290 tensors, nothing touched"
    variants = True
    short = True
    memory = False  # that of read

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.language_model(settings))


class Read(LoadCase):
    what = "the same, then every byte read"
    variants = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.language_model(settings), read=True)


class Many(LoadCase):
    what = "load_file, 100,000 tensors of 16 bytes"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.many(settings))


class ManyOperator(LoadCase):
    what = "the same by the bare operator"
    verb = "load_operator"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.many(settings))


class Keys(LoadCase):
    what = "the names of those 100,000"
    verb = "keys"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.many(settings))

    def prepare(self, peer: Peer) -> Action:
        keys: Callable[[Path], list[str]] = getattr(peer, self.verb)
        return lambda: keys(self.path)

    def check(self, result: Any) -> None:
        # In the order of the data, in that of the header or sorted: here all the same, but for an unordered map.
        if sorted(result) != [entry.name for entry in self.content.entries]:
            raise WrongError("these are not the names in the file")


class MixtureOfExperts(LoadCase):
    what = "load_file, 18,867 tensors named as a mixture of experts"
    variants = True
    memory = False  # a fifth of that of many

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.mixture_of_experts(settings))


class SmallLoad(LoadCase):
    what = "load_file, 10 tensors of 4 KB, tmpfs"
    short = True
    memory = False

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.small(settings), on_tmpfs=True)

    def limit(self, raw: Raw) -> Action:
        memory = Memory.warm(self.path.stat().st_size)
        return lambda: raw.read(self.path, memory)


class Slice(LoadCase):
    what = "16 rows (256 KB) out of the middle of a tensor of 1 GB, read"
    verb = "read_rows"
    variants = True
    short = True
    rows = 16

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.one_tensor(settings))
        (rows, self._columns) = self.content.entries[0].shape
        self._begin, self._end = rows // 2, rows // 2 + settings.scaled(self.rows, 10)

    @property
    def nbytes(self) -> int:
        return (self._end - self._begin) * self._columns * 4

    def prepare(self, peer: Peer) -> Action:
        read_rows: Callable[[Path, str, int, int], Tensor] = getattr(peer, self.verb)

        def action() -> Tensor:
            rows = read_rows(self.path, "weight", self._begin, self._end)
            read_every_byte([rows])
            return rows

        return action

    def limit(self, raw: Raw) -> Action:
        import torch

        memory = Memory.warm(self.nbytes)
        rows = torch.frombuffer(memory.view, dtype=torch.uint8)

        def action() -> None:
            raw.read(self.path, memory, len(self.content.header) + self._begin * self._columns * 4)
            read_every_byte([rows])

        return action

    def check(self, result: Any) -> None:
        import torch

        if (result.dtype, tuple(result.shape)) != (torch.float32, (self._end - self._begin, self._columns)):
            raise WrongError(f"the rows are {result.dtype} {tuple(result.shape)}")
        check_data(result.contiguous().view(-1).view(torch.uint8), self._begin * self._columns * 4, "of the rows")


class LargeSlice(Slice):
    """Where summing up what was read takes longer than finding it."""

    what = "1,000 rows (16 MB) of the same tensor, read"
    rows = 1000


CASES: dict[str, Callable[..., Case]] = {
    "open": Open,
    "read": Read,
    "many": Many,
    "many-op": ManyOperator,
    "keys": Keys,
    "moe": MixtureOfExperts,
    "small-load": SmallLoad,
    "slice": Slice,
    "slice-16MB": LargeSlice,
}
