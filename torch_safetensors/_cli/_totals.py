"""Sums over the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .._listing import Tensor

__all__ = ["Total", "by_dtype", "by_module", "module_prefix", "total"]


@dataclass
class Total:
    """Of some tensors."""

    tensors: int = 0
    #: How many numbers they hold.
    elements: int = 0
    nbytes: int = 0

    def add(self, tensor: Tensor) -> None:
        """Counts one more."""
        self.tensors += 1
        self.elements += tensor.elements
        self.nbytes += tensor.nbytes


def total(tensors: Iterable[Tensor]) -> Total:
    """Of all of them."""
    result = Total()
    for tensor in tensors:
        result.add(tensor)
    return result


def by_dtype(tensors: Iterable[Tensor]) -> dict[str, Total]:
    """Per dtype, most bytes first."""
    return _by(tensors, lambda tensor: tensor.dtype)


def by_module(tensors: Iterable[Tensor], depth: int) -> dict[str, Total]:
    """Per module, of which ``depth`` parts count, most bytes first."""
    return _by(tensors, lambda tensor: module_prefix(tensor, depth))


def module_prefix(tensor: Tensor, depth: int) -> str:
    """The first parts of the name of its module; empty for a tensor outside of any."""
    return ".".join(tensor.module.split(".", depth)[:depth])


def _by(tensors: Iterable[Tensor], key: Callable[[Tensor], str]) -> dict[str, Total]:
    totals: dict[str, Total] = {}
    for tensor in tensors:
        totals.setdefault(key(tensor), Total()).add(tensor)
    return dict(sorted(totals.items(), key=lambda item: (-item[1].nbytes, item[0])))
