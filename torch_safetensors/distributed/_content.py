"""What the ranks save together: the same on all of them, but for the parts that each holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from .._arguments import operator_metadata, operator_tensors
from .._memory import state_dict_of
from .._models import without_extra_state
from .._sharded import parse_size, split
from ._parts import Part, part_of, same_tensor, type_of

__all__ = ["Content", "of_dict", "of_model"]

_ops = torch.ops.safetensors


@dataclass(frozen=True)
class Content:
    """What is saved, as one rank sees it."""

    #: On ``meta``, the whole tensors.
    types: dict[str, torch.Tensor]
    parts: dict[str, Part]
    texts: dict[str, str] | None
    #: Bytes of tensors in a file of a directory, or nothing for one file.
    limit: int | None
    #: Names that are not written, each with the one that is.
    ties: dict[str, str]

    def lines(self) -> list[str]:
        """All that the ranks have to agree about, but for where it goes."""
        tensors = [
            f"tensor {name!r} {tensor.dtype} {list(tensor.shape)} {self.parts[name].layout}".rstrip()
            for name, tensor in sorted(self.types.items())
        ]
        texts = [f"metadata {key!r}: {value!r}" for key, value in sorted((self.texts or {}).items())]
        return [*tensors, *texts, f"metadata {self.texts is not None}", f"max_shard_size {self.limit}"]

    def in_order(self, names: list[str], ties: dict[str, str]) -> Content:
        """With tensors in that order, and only those that are no ties."""
        kept = [name for name in names if name not in ties]
        types = {name: self.types[name] for name in kept}
        return replace(self, types=types, parts={name: self.parts[name] for name in kept}, ties=ties)

    def files(self) -> list[tuple[dict[str, torch.Tensor], dict[str, str] | None]]:
        """What each file holds, and its metadata."""
        names = [list(self.types)] if self.limit is None else split(self.types, self.limit)
        return [({name: self.types[name] for name in shard}, self._texts_of(shard)) for shard in names]

    def _texts_of(self, shard: list[str]) -> dict[str, str] | None:
        kept = set(shard)
        ties = {name: of for name, of in self.ties.items() if of in kept}
        return {**ties, **(self.texts or {})} if ties or self.texts is not None else None


def of_dict(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None, max_shard_size: int | str | None
) -> Content:
    """For :func:`save_file`. Raises what that does."""
    return _content(tensors, metadata, max_shard_size, may_overlap=False)


def of_model(model: torch.nn.Module, metadata: Mapping[str, str] | None, max_shard_size: int | str | None) -> Content:
    """For :func:`save_model`. Raises what that does. A rank that holds nothing of tied tensors does not see the tie."""
    state = without_extra_state(state_dict_of(model))
    content = _content(state, metadata, max_shard_size, may_overlap=True)
    ties = _ops._dropped_names({name: part.tensor for name, part in content.parts.items()})
    return replace(content, ties=same_tensor(ties, content.types, content.parts))


def _content(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None,
    max_shard_size: int | str | None,
    may_overlap: bool,
) -> Content:
    names, sizes, _ = operator_tensors(tensors)
    tensors = {str.__str__(name): tensor for name, tensor in tensors.items()}  # others need not have a subclass of str
    parts = {name: part_of(name, tensor) for name, tensor in tensors.items()}
    _ops._check_parts(names, sizes, [[part.tensor for part in parts.values()]], may_overlap)
    types = {name: type_of(tensor) for name, tensor in tensors.items()}
    limit = None if max_shard_size is None else parse_size(max_shard_size)
    texts = operator_metadata(metadata)
    return Content(types, parts, texts if limit is None else {"format": "pt", **(texts or {})}, limit, {})
