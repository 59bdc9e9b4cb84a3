"""Tensors of an open file that load in the background."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TypeAlias

import torch

from ._arguments import PathLike, operator_name
from ._errors import translate

__all__ = ["PrefetchLoader", "PrefetchPlan"]

#: Names of tensors, each with None for all of it or a slice of its first dimension, with step 1.
PrefetchPlan: TypeAlias = "Mapping[str, slice | None]"

#: A call into the library waits so long before Python looks for signals.
_PATIENCE = 100


class PrefetchLoader:
    """The tensors of one file as they load in the background, from :meth:`safe_open.prefetch`.

    Each is handed out once, by :meth:`take` or by iterating, ready for the device's stream that is current then. The
    readers pause while ``buffer_size`` bytes are ready and not taken. A loader outlives the ``safe_open`` it came from;
    closed or dropped, it stops its threads.

    Raises:
        SafetensorError: from :meth:`take` and iteration: the loader is closed, or was made before a fork; a name that
            is not among :meth:`names`, or was taken before.
        OSError: from both: what the operating system reported to the readers.
    """

    def __init__(self, loader: Any, filename: PathLike) -> None:
        self._loader = loader
        self._filename = filename
        # Also at the end of the interpreter, since threads must not outlive what they use. Through a method, which
        # gives up the interpreter's lock while the threads end.
        self._close = weakref.finalize(self, loader.close)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._loader, method)(*arguments)
        except RuntimeError as error:
            raise translate(error, self._filename) from None

    def names(self) -> list[str]:
        """The names it hands out, in the order of the data in the file."""
        names: list[str] = self._call("names")
        return names

    def __len__(self) -> int:
        return len(self.names())

    def take(self, name: str) -> torch.Tensor:
        """Waits for a tensor, which is then the caller's. What is waited for is read next."""
        name = operator_name(name)
        while True:
            tensor: torch.Tensor | None = self._call("take", name, _PATIENCE)
            if tensor is not None:
                return tensor

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors in the order in which they become ready, without those that were taken."""
        while True:
            name, tensor = self._call("take_any", _PATIENCE)
            if name is None:
                return
            if tensor is not None:
                yield name, tensor

    def close(self) -> None:
        """Stops loading and drops the tensors not taken; those handed out stay."""
        self._close()

    def __enter__(self) -> PrefetchLoader:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def rows_of(name: str, rows: slice | None, tensor: torch.Tensor) -> tuple[int, int]:
    """Begin and end of what a plan says of a tensor on the meta device; -1 and -1 for all of it.

    Raises:
        TypeError: neither None nor a slice.
        ValueError: a step other than 1, or a tensor without dimensions.
    """
    if rows is None:
        return -1, -1
    if not isinstance(rows, slice):
        raise TypeError(f"plan: {name!r}: expected None or a slice, not {type(rows).__name__}")
    if rows.step is not None and operator.index(rows.step) != 1:
        raise ValueError(f"plan: {name!r}: a slice must have step 1, not {rows.step}")
    if tensor.dim() == 0:
        raise ValueError(f"plan: {name!r}: has no dimension to slice")
    begin, end, _ = rows.indices(tensor.shape[0])
    return begin, max(begin, end)
