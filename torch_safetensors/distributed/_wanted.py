"""What the ranks of a load by ``torch.distributed.checkpoint`` want of the files, and which of it several do."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from torch.distributed.checkpoint.planner import LoadPlan

from ._cost import Work, work_of
from ._saved_boxes import Saved
from ._sharing import whole_from

__all__ = ["wanted"]


def wanted(saved: Mapping[Any, Saved], plans: Sequence[LoadPlan], hosts: int) -> tuple[Work, list[Any]]:
    """What the ranks need, each for itself and together, and the saved parts that several need, in the files' order.

    Args:
        saved: by ``MetadataIndex``.
        plans: of all ranks.
        hosts: on how many machines they are.
    """
    owns = []
    read_by_all: defaultdict[Saved, int] = defaultdict(int)
    for plan in plans:
        own = 0
        # Once, also under several names of one tensor.
        once = {(saved[item.storage_index], item.lengths, item.storage_offsets) for item in plan.items}
        for part, lengths, _ in once:
            nbytes = _nbytes_read(part, lengths)
            read_by_all[part] += nbytes
            own += nbytes
        owns.append(own)
    # More bytes than there are: at least two ranks read the same ones.
    first: dict[Saved, Any] = {}
    for index, part in saved.items():
        first.setdefault(part, index)
    shared = [index for part, index in first.items() if read_by_all[part] > part.nbytes]
    work = work_of(
        owns,
        unique=sum(part.nbytes for part, nbytes in read_by_all.items() if nbytes),
        shared={len(plans): sum(saved[index].nbytes for index in shared)},
        tensors=max(len(plan.items) for plan in plans),
        hosts=hosts,
    )
    return work, shared


def _nbytes_read(part: Saved, lengths: Sequence[int]) -> int:
    """Bytes that a rank gets from the storage, where it reads them itself."""
    shape = part.box.shape
    if 0 in lengths:
        return 0
    cut = (dim for dim, (length, size) in enumerate(zip(lengths, shape, strict=True)) if length < size)
    rows = whole_from(shape, part.dtype.itemsize, cut)
    return math.prod((*lengths[:rows], *shape[rows:])) * part.dtype.itemsize
