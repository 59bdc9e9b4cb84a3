"""Loads checkpoints into DTensors and parallelised models: each rank its own part."""

from __future__ import annotations

import functools
import logging
import math
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate

from .._arguments import PathLike
from .._errors import translated
from .._options import check_flags
from ._boxes import LocalBox, Read, local_box, open_checkpoint, read_boxes, whole_box
from ._cost import Hardware, Work, choose, work_of
from ._group import check_same, group_of, source_of, together, together_after
from ._interrupts import signals_held
from ._saved_boxes import ATTEMPTS, replaced
from ._share import Shared, read_shared
from ._sharing import Sharing, sharing_of

__all__ = [
    "Part",
    "Placements",
    "Strategy",
    "check_strategy",
    "describe",
    "load_file",
    "log",
    "open_together",
    "read_parts",
]

#: Where it is said which strategy was chosen, and why.
log = logging.getLogger("torch_safetensors.distributed")

Strategy: TypeAlias = Literal["auto", "independent", "broadcast"]
_Of: TypeAlias = "Placement | Sequence[Placement] | None"
#: By name, or a rule by name; what has none, or None, is replicated.
Placements: TypeAlias = "Mapping[str, _Of] | Callable[[str], _Of]"


class Part(NamedTuple):
    """What a rank wants of a stored tensor. Sizes are those of the file."""

    name: str
    #: Of the whole tensor, as stored.
    shape: tuple[int, ...]
    #: As stored.
    dtype: torch.dtype
    box: LocalBox
    out: torch.Tensor
    sharing: Sharing

    @property
    def is_shared(self) -> bool:
        """Whether several ranks need the same bytes of the file; the same on all ranks."""
        return self.sharing.copies > 1 or self.sharing.whole_from < len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def nbytes_read(self) -> int:
        """Bytes of this rank's part, where it reads that itself."""
        if 0 in self.box.shape:
            return 0
        rows = self.sharing.whole_from
        shape = *self.box.shape[:rows], *self.shape[rows:]
        return math.prod(shape) * self.dtype.itemsize


def load_file(
    path: PathLike,
    mesh: DeviceMesh,
    placements: Placements | None = None,
    *,
    strategy: Strategy = "auto",
    backend: str = "auto",
    process_group: dist.ProcessGroup | None = None,
    strict_index: bool = True,
) -> dict[str, DTensor]:
    """Loads a checkpoint into DTensors, of which each rank reads the bytes of its own shards alone.

    Every rank of the mesh calls it, with the same arguments.

    Args:
        path: a file, an index, or a directory: see :func:`torch_safetensors.load_file`.
        mesh: the ranks, and the kind of device that the tensors shall be on.
        placements: by name, or a function from a name: a placement for each dimension of the mesh, or one for a mesh
            of one dimension. Tensors without are replicated.
        strategy: ``"independent"``: each rank reads what it holds. ``"broadcast"``: what several ranks hold is read by
            one of them and passed on, so that the storage gives every byte once. ``"auto"`` takes what it expects to
            be quicker and says why in the log ``torch_safetensors.distributed``; the variables that tell it about
            storage and network are in docs/distributed-costs.md.
        backend: see :func:`torch_safetensors.load_file`; bytes are read either way, never mapped.
        process_group: of the ranks of the mesh; needed for a mesh of several dimensions that has not all ranks.
        strict_index: see :func:`torch_safetensors.load_file`.

    Returns:
        By name, in the order of the data in the file. All ranks read one version of the checkpoint, also if another
        process replaces it meanwhile.

    Raises:
        SafetensorError: a malformed file. All ranks raise what one of them met, as for all errors here.
        ValueError: ranks that disagree, placements that do not fit a tensor or that no file can fill (``Partial``).
        OSError: what the operating system reports.
        RuntimeError: another rank was lost.
    """
    group = process_group or group_of(mesh)
    source = source_of(path)

    def plan(handle: Any) -> tuple[list[Part], list[str], dict[str, DTensor]]:
        names: list[str] = handle.keys()
        rule = _rule(placements, names, source)
        parts, lines, loaded = [], [f"strategy {strategy!r}"], {}
        for name in names:
            meta = handle._get_meta(name)
            places = _for_mesh(rule(name), mesh)
            box = local_box(name, meta.shape, mesh, places)
            out = torch.empty(box.shape, dtype=meta.dtype, device=mesh.device_type)
            shape = tuple(meta.shape)
            sharing = sharing_of(group, shape, meta.dtype.itemsize, mesh, places)
            parts.append(Part(name, shape, meta.dtype, box, out, sharing))
            lines.append(f"{name!r} as {describe(meta, mesh, places)}")
            loaded[name] = DTensor.from_local(
                out, mesh, places, run_check=False, shape=meta.shape, stride=meta.stride()
            )
        return parts, lines, loaded

    loaded: dict[str, DTensor]
    with signals_held():
        handle, (parts, lines, loaded) = open_together(group, path, backend, plan, strict_index)
        check_same(group, source, "what to load", lines)
        read_parts(handle, source, parts, group, strategy)
    return loaded


def open_together(
    group: dist.ProcessGroup, path: PathLike, backend: str, plan: Callable[[Any], Any], strict_index: bool
) -> tuple[Any, Any]:
    """Opens a checkpoint on every rank, and gives it and what ``plan`` makes of it. All raise what one does.

    Once all ranks have opened it, each looks whether what it has is still the checkpoint. If so on all of them, all
    have the one that was there when the last rank had opened it; otherwise they open it again.
    """
    for _ in range(ATTEMPTS):
        opened: list[tuple[Any, Any]] = []

        def open_it(opened: list[tuple[Any, Any]] = opened) -> None:
            check_flags(strict_index=strict_index)
            handle = open_checkpoint(path, backend)
            with translated(path):
                handle._require_whole(strict_index)
                opened.append((handle, plan(handle)))

        def is_current(opened: list[tuple[Any, Any]] = opened) -> bool:
            return bool(opened[0][0]._is_current())

        together(group, source_of(path), "opening it", open_it)
        if all(together(group, source_of(path), "opening it", is_current)):
            return opened[0]
    raise replaced(path)


def read_parts(handle: Any, source: str, parts: Sequence[Part], group: dist.ProcessGroup, strategy: Strategy) -> None:
    """Reads what each rank wants of the same tensors, which are in the same order on all. Collective."""
    check_strategy(strategy)
    if strategy == "auto":
        own = sum(part.nbytes_read for part in parts)
        told = together(group, source, "planning", lambda: (own, socket.gethostname(), Hardware.from_environment()))
        owns, hosts, hardware = zip(*told, strict=True)
        choice = choose(_work(parts, owns, len(set(hosts))), hardware[0])
        strategy = choice.strategy
        if group.rank() == 0:
            log.info("%s: %s", source, choice.reason)
    alone: list[Part] = []
    shared: dict[dist.ProcessGroup, list[Part]] = {}
    for part in parts:
        is_passed_on = strategy == "broadcast" and part.is_shared
        (shared.setdefault(part.sharing.among, []) if is_passed_on else alone).append(part)

    def read_alone() -> None:
        with translated(source):
            read_boxes(handle, [Read(part.name, part.box.offsets, part.out) for part in alone])

    def read_together(among: dist.ProcessGroup) -> None:
        tensors = [_as_shared(part, whole=among is group) for part in shared[among]]
        # Bytes travel from where they shall be, so that no backend has to copy twice.
        with translated(source):
            read_shared(handle, source, tensors, among, shared[among][0].out.device)

    # One after the other: a rank that fails in the first must not be missed in the next.
    if alone:
        together(group, source, "reading", read_alone)
    for among in shared:
        together_after(group, source, "reading", functools.partial(read_together, among))


def _as_shared(part: Part, whole: bool) -> Shared:
    if whole:
        return Shared(part.name, whole_box(part.shape), part.dtype, [(part.box, part.out)])
    return Shared(part.name, part.box, part.dtype, [(whole_box(part.box.shape), part.out)])


def _work(parts: Sequence[Part], owns: Sequence[int], hosts: int) -> Work:
    shared: defaultdict[int, int] = defaultdict(int)
    for part in parts:
        if part.is_shared:
            shared[part.sharing.among.size()] += part.nbytes
    return work_of(owns, sum(part.nbytes for part in parts), shared, len(parts), hosts)


def check_strategy(strategy: str) -> None:
    """Raises ValueError for what is none."""
    if strategy not in ("auto", "independent", "broadcast"):
        raise ValueError(f"strategy {strategy!r} is not one of 'auto', 'independent', 'broadcast'")


def _rule(placements: Placements | None, names: list[str], source: str) -> Callable[[str], _Of]:
    if placements is None:
        return lambda _name: None
    if callable(placements):
        return placements
    unknown = sorted(set(placements) - set(names))
    if unknown:
        raise ValueError(f"{source}: placements of tensors that it does not hold: {', '.join(map(repr, unknown[:10]))}")
    return placements.get


def _for_mesh(places: _Of, mesh: DeviceMesh) -> tuple[Placement, ...]:
    if places is None:
        return (Replicate(),) * mesh.ndim
    return (places,) if isinstance(places, Placement) else tuple(places)


def describe(tensor: torch.Tensor, mesh: DeviceMesh, places: Sequence[Placement]) -> str:
    names = "" if mesh.mesh_dim_names is None else f" {mesh.mesh_dim_names}"
    listed = ", ".join(map(str, places))
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype}{list(tensor.shape)} on {mesh.device_type} mesh {list(mesh.shape)}{names} placed ({listed})"
