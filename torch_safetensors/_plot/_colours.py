"""One colour per dtype, dark enough for white text."""

from __future__ import annotations

from collections.abc import Iterable

from .._listing import Tensor
from ._strips import HEADER

__all__ = ["colours_of", "lighter"]

_PALETTE = (
    *("#3b6fa6", "#c4641f", "#4a8f50", "#b24a4b", "#7a60a6"),
    *("#8a6550", "#b9608f", "#5f7682", "#86812b", "#2f8990"),
)
_HEADER = "#30343b"


def colours_of(tensors: Iterable[Tensor]) -> dict[str, str]:
    """The colours of the dtypes that there are, most bytes first, and of headers."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
    ordered = sorted(sizes, key=lambda dtype: (-sizes[dtype], dtype))
    return {dtype: _PALETTE[rank % len(_PALETTE)] for rank, dtype in enumerate(ordered)} | {HEADER: _HEADER}


def lighter(colour: str, share: float) -> str:
    """The colour, mixed with white; so that neighbours of a kind can be told apart."""
    channels = (int(colour[begin : begin + 2], 16) for begin in (1, 3, 5))
    return "#" + "".join(f"{round(channel + (255 - channel) * share):02x}" for channel in channels)
