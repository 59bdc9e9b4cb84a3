"""One safetensors file that comes from a :class:`Reader`.

What to read comes from the library, which parses the header and plans the pieces; the bytes come from the reader, by
several threads where it can.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import torch

from ._arguments import split_names
from ._buffers import as_tensor, memory_of
from ._errors import printable, translate
from ._file_objects import Reader, ended
from ._gc import gc_paused
from ._progress import Total

__all__ = ["RemoteFile"]

_ops = torch.ops.safetensors
_classes = torch.classes.safetensors

#: So many bytes are read at a time, by each thread: what a request costs beside them is little, and what is done in
#: vain when one fails, too.
_PIECE = 8 << 20


class RemoteFile:
    """A file whose header is valid.

    Args:
        reader: of its bytes.
        close: closes the reader.
        open_again: gives another reader and what closes it, once that is closed.

    Raises:
        OSError: what cannot be read.
        SafetensorError: malformed.
    """

    def __init__(
        self,
        reader: Reader,
        close: Callable[[], None],
        open_again: Callable[[], tuple[Reader, Callable[[], None]]] | None = None,
    ) -> None:
        self.reader = reader
        self._close: Callable[[], None] | None = close
        self._open_again = open_again
        try:
            self._header = self._read_header()
        except RuntimeError as error:
            raise translate(error, reader.source) from None
        #: Those that count, in the order of their data.
        self.names = split_names(*self._header.keys())
        self._count = len(self.names)

    def close(self) -> None:
        """Gives up what is open, until it is needed again."""
        if self._close is not None:
            close, self._close = self._close, None
            close()

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Opens the file again for the time of the context, if it was closed.

        Raises:
            OSError: it cannot be opened any more, or has another size.
        """
        if self._close is not None or self._open_again is None:
            yield
            return
        size = self.reader.size
        self.reader, self._close = self._open_again()
        try:
            if self.reader.size != size:
                text = f"had {size} bytes when it was opened but has {self.reader.size} now"
                raise OSError(f"{self.reader.source}: {text}: it was replaced")
            yield
        finally:
            self.close()

    def nbytes(self, names: Collection[str]) -> int:
        """Bytes of those of the tensors that this file has."""
        return int(self._header.nbytes([name for name in self.names if name in names]))

    def load(
        self,
        names: list[str],
        devices: list[torch.device],
        *,
        threads: int | None,
        verify: bool,
        total: Total | None = None,
    ) -> dict[str, torch.Tensor]:
        """Loads tensors; a stream is read to its end, and only once.

        Args:
            names: those to load.
            devices: one for each name.
            threads: so many read at a time; by default ``$TORCH_SAFETENSORS_THREADS``, or what suits the reader. A
                stream is read by the caller's.
            verify: compare them with their checksums.
            total: is told of every piece, by the thread that read it.

        Returns:
            The tensors by name, in the order of their data.

        Raises:
            OSError: what cannot be read, or is not as long as it said.
            SafetensorError: a name that is not there, bytes that are too few or too many, a damaged tensor.
        """
        try:
            # What says the same in fewer words converts faster.
            to = devices if len(set(devices)) > 1 else [*devices, torch.device("cpu")][:1]
            chosen = None if len(to) == 1 and len(names) == self._count else names
            load = _classes._PiecewiseLoad(self._header, chosen, to, verify, _PIECE, self.reader.max_gap)
            self._fill(load, total, load.threads(threads, self.reader.threads) if self.reader.threads > 1 else 1)
            self._check_size()
            with gc_paused():
                joined, separator, tensors = load.take()
                return dict(zip(split_names(joined, separator), tensors, strict=True))
        except RuntimeError as error:
            raise translate(error, self.reader.source) from None

    def _read_header(self) -> Any:
        """The header, as an object of the library."""
        reader, source = self.reader, printable(self.reader.source)
        prefix = bytearray(8)
        count = reader.read_into(0, memoryview(prefix))
        size = count if reader.size is None and count < len(prefix) else reader.size
        with as_tensor(prefix[:count], writable=False) as tensor:
            json = bytearray(_ops._header_size(source, tensor, size))
            count = reader.read_into(len(prefix), memoryview(json))
            if count < len(json):
                if size is None:
                    _ops._header_size(source, tensor, len(prefix) + count)  # raises, with the numbers
                raise ended(reader, len(prefix), count, len(json))
        with as_tensor(json, writable=False) as tensor:
            data_size = None if size is None else size - len(prefix) - len(json)
            return _classes._SourceHeader(source, tensor, data_size)

    def _fill(self, load: Any, total: Total | None, threads: int) -> None:
        """Fills all pieces; raises the first error of any thread, after which no piece is begun."""
        stopped = threading.Event()

        def work() -> None:
            while not stopped.is_set() and (piece := load.next()) is not None:
                begin, memory = piece
                count = self.reader.read_into(begin, memory_of(memory))
                if count < memory.numel():
                    self._check_size()
                    raise ended(self.reader, begin, count, memory.numel())
                wanted = load.finish(begin)
                if total is not None:
                    total.add(wanted)

        if threads <= 1:
            work()
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="torch_safetensors") as pool:
            try:
                working = [pool.submit(work) for _ in range(threads)]
                wait(working, return_when=FIRST_EXCEPTION)
            finally:
                stopped.set()  # also when Ctrl-C ends the waiting
        for done in working:
            done.result()

    def _check_size(self) -> None:
        """Holds what did not know its size to the rule that tensors cover the file exactly."""
        size = self.reader.measure(self._header.end())
        if self.reader.size is None:
            self._header.check_data_size(size - self._header.data_begin())
