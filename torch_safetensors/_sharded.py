"""Saves a checkpoint in several files, with the index that says which file has which tensor."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ._arguments import PathLike, operator_metadata, operator_tensors
from ._checkpoint_files import Index, Replacement, locked, make_folder
from ._files import save_file
from ._models import check_extra_state, save_state
from ._progress import Progress, Total, bar_or_callable, reporting

__all__ = ["parse_size", "save_sharded", "split"]

_ops = torch.ops.safetensors

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", re.IGNORECASE)


def save_sharded(
    tensors_or_model: Mapping[str, torch.Tensor] | torch.nn.Module,
    directory: PathLike,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | str = "5GB",
    *,
    fsync: bool = False,
    checksum: bool = False,
    alignment: int = 0,
    progress: Progress = None,
) -> None:
    """Saves a checkpoint to a directory, in files of limited size and an index, as Hugging Face libraries do.

    The files are ``model-00001-of-00003.safetensors`` and so on, with ``model.safetensors.index.json``; or
    ``model.safetensors`` alone if one is enough. Tensors are taken in their order, and a new file begins where the
    next one would not fit.

    Whatever fails, the directory holds the old checkpoint or the new one, whole: no file of the old one is written to,
    and the index comes last. Then what the old one alone has is removed, whatever its number of files. Other files are
    left alone.

    Saves to one directory wait for each other, in this process and in others. After some seconds a warning says which
    process has the directory locked; after ten minutes, or as many seconds as the environment variable
    ``TORCH_SAFETENSORS_LOCK_TIMEOUT`` says, the save gives up.

    Args:
        tensors_or_model: a dict as for :func:`save_file`, or a module as for :func:`save_model`, whose ties are
            written once.
        directory: made if it does not exist.
        metadata: goes into every file, beside ``"format": "pt"``, which transformers looks for, and into the index.
        max_shard_size: bytes of tensors in a file: a number, or as ``"5GB"``, ``"500MB"``, ``"2GiB"``. A tensor that
            is larger gets a file of its own.
        fsync: make it durable: after a power failure, the directory holds the new checkpoint, and not the old one.
        checksum: see :func:`save_file`.
        alignment: see :func:`save_file`.
        progress: see :func:`save_file`; it counts the bytes of all tensors. It must not save to the same directory.

    Raises:
        OSError: what the operating system reports; EDEADLK for a save to the same directory within ``progress``.
        TimeoutError: another save had the directory locked for too long.
        ValueError: a size that is none, and what :func:`save_file` or :func:`save_model` refuse.
        TypeError, RuntimeError, NotImplementedError: as those.
    """
    limit = parse_size(max_shard_size)
    texts = {"format": "pt", **(operator_metadata(metadata) or {})}
    if isinstance(tensors_or_model, torch.nn.Module):
        content = _of_model(tensors_or_model, texts)
    else:
        content = _of_dict(tensors_or_model, texts)
    shards = split(content.tensors, limit)
    folder = Path(os.fsdecode(directory))
    make_folder(folder, fsync)

    total_size = sum(tensor.nbytes for tensor in content.tensors.values())
    with locked(folder), bar_or_callable(progress, folder) as report:
        total = None if report is None else Total(report, total_size).start()

        def save(path: Path, shard: list[str]) -> None:
            part = {name: content.tensors[name] for name in shard}
            content.save(part, path, fsync, checksum, alignment, None if total is None else _of_data(part, total))

        new = Replacement(folder, shards, Index(texts, total_size, fsync))
        try:
            for file, shard in zip(new.files, shards, strict=True):
                save(folder / file, shard)
        except BaseException as error:
            new.abort(error)
            raise
        new.finish()


@dataclass(frozen=True)
class _Content:
    """What is saved: tensors of a model, without ties but as its own ``save_model`` saves them, or of a dict."""

    tensors: Mapping[str, torch.Tensor]
    texts: dict[str, str]
    #: Of a model: names not saved, each with the one that is.
    ties: dict[str, str] | None

    def save(
        self,
        tensors: dict[str, torch.Tensor],
        path: Path,
        fsync: bool,
        checksum: bool,
        alignment: int,
        progress: Progress,
    ) -> None:
        if self.ties is None:
            options: dict[str, Any] = {"fsync": fsync, "checksum": checksum, "alignment": alignment}
            save_file(tensors, path, self.texts, **options, progress=progress)
            return
        texts = {name: kept for name, kept in self.ties.items() if kept in tensors} | self.texts
        with reporting(progress, path):
            warning = save_state(tensors, path, texts, True, fsync, checksum, alignment)
        if warning:
            warnings.warn(warning, stacklevel=2)


def _of_data(tensors: Mapping[str, torch.Tensor], total: Total) -> Progress:
    """A report for the save of one file, which counts its header, too."""
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    part = total.part()
    return lambda done, whole: part(max(0, done - (whole - nbytes)), nbytes)


def _of_model(model: torch.nn.Module, texts: dict[str, str]) -> _Content:
    state = model.state_dict()
    check_extra_state(state)
    ties = dict(_ops._dropped_names(dict(state)))
    return _Content({name: tensor for name, tensor in state.items() if name not in ties}, texts, ties)


def _of_dict(tensors: Mapping[str, torch.Tensor], texts: dict[str, str]) -> _Content:
    # Raises what save_file would of all of them, before anything is written.
    torch.classes.safetensors._PythonSave(*operator_tensors(tensors), texts, False)
    return _Content(dict(tensors), texts, None)


def parse_size(size: int | str) -> int:
    """Bytes. Powers of 1000 for ``"5GB"``, as in Hugging Face libraries; of 1024 for ``"5GiB"``."""
    if isinstance(size, int) and not isinstance(size, bool):
        nbytes = size
    elif isinstance(size, str):
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise ValueError(f"max_shard_size: {size!r} is not a size like '5GB', '500MB' or '2GiB'")
        unit = 1024 if match[3] else 1000
        nbytes = int(float(match[1]) * unit ** " KMGT".index(match[2].upper() or " "))
    else:
        raise TypeError(f"max_shard_size: expected int or str, not {type(size).__name__}")
    if nbytes <= 0:
        raise ValueError(f"max_shard_size: must be positive, not {size!r}")
    return nbytes


def split(tensors: Mapping[str, torch.Tensor], limit: int) -> list[list[str]]:
    """Names by file, as huggingface_hub splits them: what does not fit at all does not end the file begun."""
    shards: list[list[str]] = []
    shard: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if tensor.nbytes > limit:
            shards.append([name])
            continue
        if size + tensor.nbytes > limit:
            shards.append(shard)
            shard, size = [], 0
        shard.append(name)
        size += tensor.nbytes
    return [*shards, shard] if shard or not shards else shards
