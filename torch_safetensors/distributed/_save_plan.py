"""Which tensors go to which file, in a save of ``torch.distributed.checkpoint``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

from .._sharded import split
from ._saved_boxes import SAVE_ID, SHARDING_INFO

__all__ = ["NewFile", "check_tensors", "files_of_ranks", "whole_files", "write_data_of"]


@dataclass
class NewFile:
    """A file to be: its tensors, on ``meta``, and its metadata."""

    types: dict[str, torch.Tensor]
    texts: dict[str, str]
    #: Only for the shards of ranks, whose names say what they are.
    name: str = ""
    #: Where in the whole tensors those of a rank's shard begin.
    offsets: dict[str, list[int]] = field(default_factory=dict)

    def all_texts(self, texts: Mapping[str, str], save_id: str) -> dict[str, str]:
        """The metadata of a rank's shard, as torch's own writer has it, and more."""
        info = {name: {"saved_offsets": offsets} for name, offsets in self.offsets.items()}
        return {**texts, SHARDING_INFO: json.dumps(info), SAVE_ID: save_id, "DCP_VERSION": "1.0", "format": "pt"}


def write_data_of(item: WriteItem) -> TensorWriteData:
    """What a plan says of a tensor, which it does of all that are no bytes."""
    assert item.tensor_data is not None
    return item.tensor_data


def check_tensors(source: str, plan: SavePlan) -> None:
    """Raises ValueError for a plan with values that are not tensors."""
    names = sorted({item.index.fqn for item in plan.items if item.type == WriteItemType.BYTE_IO})
    if names:
        shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise ValueError(
            f"{source}: {shown}: not tensors, and a safetensors file holds nothing else: make tensors of them, or save "
            "them apart, with torch.distributed.checkpoint.FileSystemWriter"
        )


def whole_files(
    source: str, plans: list[SavePlan], texts: Mapping[str, str], indices: Mapping[str, int] | None, limit: int | None
) -> list[NewFile]:
    """Files of whole tensors."""
    types: dict[str, torch.Tensor] = {}
    for plan in plans:
        for item in plan.items:
            data = write_data_of(item)
            types.setdefault(item.index.fqn, _meta(data.size, data))
    types = dict(sorted(types.items()))
    if indices is not None:
        groups: list[list[str]] = [[] for _ in range(max(indices.values(), default=1))]
        for name in types:
            groups[_index_of(source, name, indices) - 1].append(name)
    else:
        groups = [list(types)] if limit is None else split(types, limit)
    return [NewFile({name: types[name] for name in group}, {"format": "pt", **texts}) for group in groups]


def files_of_ranks(
    source: str, plans: list[SavePlan], texts: Mapping[str, str], indices: Mapping[str, int] | None, save_id: str
) -> list[dict[int, NewFile]]:
    """For each rank the shards of what it has, by the index of the file that they will be part of."""
    last = max(indices.values(), default=1) if indices is not None else 1
    ranks: list[dict[int, NewFile]] = []
    for rank, plan in enumerate(plans):
        files: dict[int, NewFile] = {}
        for item in plan.items:
            name, data = item.index.fqn, write_data_of(item)
            index = 1 if indices is None else _index_of(source, name, indices)
            shard = f"shard-{rank + 1:05d}-model-{index:05d}-of-{last:05d}.safetensors"
            file = files.setdefault(index, NewFile({}, {}, shard))
            if name in file.types:
                raise ValueError(
                    f"{source}: tensor {name!r}: rank {rank} holds several parts of it, which save_distributed has no "
                    "room for in one file; save without it"
                )
            file.types[name] = _meta(data.chunk.sizes, data)
            file.offsets[name] = list(data.chunk.offsets)
        for file in files.values():
            file.texts = file.all_texts(texts, save_id)
        ranks.append(files)
    return ranks


def _meta(size: torch.Size, data: TensorWriteData) -> torch.Tensor:
    return torch.empty(tuple(size), dtype=data.properties.dtype, device="meta")


def _index_of(source: str, name: str, indices: Mapping[str, int]) -> int:
    if name not in indices:
        raise ValueError(f"{source}: tensor {name!r}: not in fqn_to_index_mapping, which has {len(indices)} names")
    return indices[name]
