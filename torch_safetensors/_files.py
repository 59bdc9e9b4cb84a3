"""Load and save dicts of tensors."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, cast

import torch

from . import _graphs
from ._arguments import (
    DeviceLike,
    PathLike,
    operator_device,
    operator_filename,
    operator_metadata,
    operator_name,
    operator_tensors,
    split_names,
)
from ._buffers import Buffer, as_tensor, bytes_of, new_bytes
from ._errors import translate
from ._gc import gc_paused
from ._iterate import load_selected
from ._options import (
    check_alignment,
    check_backend,
    check_flags,
    check_progress,
    check_storage_options,
    checked_count,
)
from ._progress import Progress, reporting
from ._remote import is_remote, load_remote, open_remote
from ._selection import DeviceMap, Names, Rename, is_selective
from ._torch_private import outside_of_graphs

__all__ = ["load", "load_file", "load_tensor", "save", "save_file"]

_ops = torch.ops.safetensors

#: What is cheaper to save in one step and to copy.
_MAX_SMALL_TENSORS = 100
_MAX_SMALL_SIZE = 1 << 16


def load_file(
    filename: PathLike | BinaryIO,
    device: DeviceLike | DeviceMap = "cpu",
    *,
    backend: str = "auto",
    threads: int | None = None,
    ring_size: int | None = None,
    verify: bool = False,
    names: Names | None = None,
    dtype: torch.dtype | None = None,
    rename: Rename | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Progress = None,
    strict_index: bool = True,
) -> dict[str, torch.Tensor]:
    """Loads the tensors of a checkpoint, by default all of them.

    Args:
        filename: a safetensors file; the index of a checkpoint in several files, whose name ends in ``.json``; or a
            directory, of which ``model.safetensors`` or, without it, its index is loaded, or else the only checkpoint
            that it holds. Any path the operating system allows. Or the URL of a file or an index that fsspec knows
            (a str: ``https://``, ``s3://``, ``memory://``, and so on); or a file object, open for reading bytes, which
            is read from its position to its end.
        device: where the tensors shall be; everything ``torch.device`` takes. ``"meta"`` reads the header alone. Or a
            mapping from prefixes of names to devices: ``{"encoder": "cuda:0", "": "cpu"}``, of which the longest
            counts, in whole parts of names. A prefix that no tensor has is an error.
        backend: ``"mmap"``: lazy, as private copy-on-write pages; do not truncate the file while tensors live.
            ``"pread"``: read at once, by several threads, into memory of their own; immune to later changes of the
            file. ``"auto"``: mmap on local file systems, pread on network and FUSE ones. For devices other than the
            CPU the file is always read. URLs and file objects take "auto" and "pread".
        threads: number of threads that read, for another device or with ``backend="pread"``; by default
            ``$TORCH_SAFETENSORS_THREADS``, or the number of cores, at most 8. From URLs and open regular files, 8 by
            default. A source that can only be read from its beginning to its end is read by one thread. Mapping a file
            needs no threads.
        ring_size: bytes of host memory, pinned where the device can, through which tensors travel to it; by default
            ``$TORCH_SAFETENSORS_RING_SIZE``, or 64 MiB. It has no effect on the CPU. URLs and file objects refuse it.
        verify: compare the data with the checksums that the file was saved with (``save_file(..., checksum=True)``),
            before it returns. Reads all of it; what goes to another device is read twice.
        names: the names, or glob patterns (``"encoder.*"``), of those to load.
        dtype: what floating-point tensors shall be converted to, one by one as they are read: never are all there in
            both dtypes. Others are loaded as they are. One warning reports finite values that become infinite.
        rename: a mapping from names in the file to others, or a function that gives the new name, as
            ``lambda name: name.removeprefix("_orig_mod.")``. A name in the mapping that no tensor has is an error.
        storage_options: for fsspec's file system, with a URL: credentials, ``headers``, and so on. An error without
            a URL.
        progress: True shows a bar on stderr with tqdm where it takes over a second. A function is called with the bytes
            done and those of all tensors that are read, twice those with ``verify``: first with 0, last with all, on
            this thread (from URLs and file objects: on the one that reads, one at a time). What it raises stops the
            load. Of a mapped file nothing is read here: it is done at once.
        strict_index: False loads only the tensors that the index of a checkpoint in several files assigns to each of
            them, and ignores what else the files hold. By default a checkpoint whose index and files differ is refused.
            With ``names``, which need only their own files, it makes no difference.

    Returns:
        The tensors by name, in the order of their data in the file; of several files, in that of their names. Each has
        a storage of its own of exactly its own bytes, writable, not resizable. Writing to one never changes the file.
        All are of one save, also if another process replaces the checkpoint meanwhile.

    Raises:
        OSError: what the operating system reports, e.g. ``FileNotFoundError``; also if the checkpoint is replaced again
            and again while it is opened.
        SafetensorError: a file is malformed; files and index differ (the error lists how); one of ``names`` is not
            there; or with ``verify`` a tensor is damaged, or there are no checksums.
        ValueError: an unknown backend, a NUL in the name, numbers that are not positive; a ``dtype`` that is not
            floating-point or that torch cannot convert to; two tensors renamed alike; a tensor without device; an
            entry of ``rename`` or ``device`` for no tensor; an option that has no effect on such a source.
        TypeError: an option of another type.

    In a compiled or exported graph the names, dtypes and shapes become constants, and running the graph on a file that
    differs in them raises.
    """
    check_backend(backend)
    check_flags(verify=verify, strict_index=strict_index)
    check_progress(progress)
    threads, ring_size = checked_count("threads", threads), checked_count("ring_size", ring_size)
    check_storage_options(storage_options, is_url=isinstance(filename, str) and is_remote(filename))
    if is_remote(filename):
        options: dict[str, Any] = {"threads": threads, "verify": verify}
        options.update(names=names, dtype=dtype, rename=rename, progress=progress, strict_index=strict_index)
        load_path = functools.partial(load_file, backend=backend, ring_size=ring_size, **options)
        return _load_remote(filename, device, backend, ring_size, storage_options, options, load_path)
    filename = cast("PathLike", filename)
    if _graphs.is_tracing() and _graphs.must_leave(threads, ring_size, progress):
        options = {"backend": backend, "threads": threads, "ring_size": ring_size, "verify": verify, "names": names}
        options.update(dtype=dtype, rename=rename, progress=progress, strict_index=strict_index)
        loaded: dict[str, torch.Tensor] = _graphs.call_outside(load_file, filename, device, **options)
        return loaded
    if is_selective(device, names, rename) or dtype is not None:
        if _graphs.is_tracing():
            return _graphs.load_selected(filename, device, names, dtype, rename, backend, verify, strict_index)
        arguments = device, names, dtype, rename, backend, threads, ring_size, verify, progress, strict_index
        return load_selected(filename, *arguments)
    assert not isinstance(device, Mapping)
    if _graphs.is_tracing():
        return _graphs.load_file(filename, device, backend=backend, verify=verify, strict_index=strict_index)
    path, where = operator_filename(filename), operator_device(device)
    try:
        with reporting(progress, filename):
            result = _ops._load_file(path, where, backend, threads, ring_size, verify, strict_index)
        return _to_dict(*result)
    except RuntimeError as error:
        raise translate(error, filename) from None


@outside_of_graphs("file objects and URLs cannot be loaded in a graph: load them outside of it, or from a path")
def _load_remote(
    source: str | BinaryIO,
    device: DeviceLike | DeviceMap,
    backend: str,
    ring_size: int | None,
    storage_options: Mapping[str, Any] | None,
    options: dict[str, Any],
    load_path: Callable[[str, DeviceLike | DeviceMap], dict[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    with open_remote(source, storage_options) as opened:
        if isinstance(opened, str):
            return load_path(opened, device)
        _check_remote(opened.source, backend, ring_size)
        return load_remote(opened, device, **options)


def _check_remote(source: str, backend: str, ring_size: int | None) -> None:
    """Refuses what only files of the operating system have; the URL of one is loaded as its path."""
    where = f"{source}: is not a local path, so its bytes"
    if backend == "mmap":
        raise ValueError(f"{where} are read and cannot be mapped: backend must be 'auto' or 'pread', not 'mmap'")
    if ring_size is not None:
        raise ValueError(f"{where} do not go through a ring: leave ring_size out, or load from a path")


def load(
    data: Buffer | BinaryIO, device: DeviceLike = "cpu", *, copy: bool = True, verify: bool = False
) -> dict[str, torch.Tensor]:
    """Loads all tensors from the bytes of a file.

    Args:
        data: bytes, bytearray, memoryview, anything else with a buffer, or a 1-D uint8 tensor; or a file object or a
            URL, as :func:`load_file` takes them.
        device: where the tensors shall be; everything ``torch.device`` takes.
        copy: False makes the tensors alias ``data``, on the CPU, and keep it alive. Writable sources only, which cannot
            be resized afterwards.
        verify: see :func:`load_file`.

    Returns:
        The tensors by name, in the order of their data.

    Raises:
        SafetensorError: the bytes are malformed, or not what ``verify`` asks for.
        TypeError: ``data`` has no buffer.
        ValueError: ``copy=False`` with a source that is read-only or not aligned, or with another device; a tensor
            whose memory is not there (see :func:`save_file`).
    """
    check_flags(copy=copy, verify=verify)
    if is_remote(data):
        if not copy:
            raise ValueError(f"data: copy=False needs memory to alias, and not a {type(data).__name__}")
        return load_file(data, device, verify=verify)
    try:
        with as_tensor(data, writable=not copy) as tensor:
            return _to_dict(*_ops._load(tensor, operator_device(device), copy, verify))
    except RuntimeError as error:
        raise translate(error) from None


def _to_dict(names: list[str], tensors: list[torch.Tensor], many: Any) -> dict[str, torch.Tensor]:
    if many is None:
        return dict(zip(names, tensors, strict=True))
    with gc_paused():
        names, separator, tensors = many.take()
        return dict(zip(split_names(names, separator), tensors, strict=True))


def load_tensor(
    filename: PathLike, name: str, device: DeviceLike = "cpu", *, backend: str = "auto", verify: bool = False
) -> torch.Tensor:
    """Loads one tensor of a checkpoint; arguments and errors as for :func:`load_file`, URLs and file objects aside.

    Raises:
        SafetensorError: also if the file does not hold ``name``.
    """
    check_backend(backend)
    check_flags(verify=verify)
    if _graphs.is_tracing():
        return _graphs.load_tensor(filename, name, device, backend=backend, verify=verify)
    arguments = operator_filename(filename), operator_name(name), operator_device(device)
    try:
        tensor: torch.Tensor = _ops.load_tensor(*arguments, backend=backend, verify=verify)
    except RuntimeError as error:
        raise translate(error, filename) from None
    return tensor


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    fsync: bool = False,
    checksum: bool = False,
    alignment: int = 0,
    progress: Progress = None,
) -> None:
    """Saves tensors to a file, which appears under its name only when it is whole.

    Args:
        tensors: a dict of dense, contiguous tensors, on any device, that do not share memory.
        filename: any path the operating system allows; an existing file keeps its mode, a symbolic link is
            written through. A link into the ``blobs`` folder of a Hugging Face cache is replaced, since other revisions
            share the file there.
        metadata: text to go with it; written sorted by key.
        fsync: also make it durable before returning: the file, and its name in the directory.
        checksum: record a checksum of each tensor in the metadata (XXH3, 128 bits, under
            ``torch_safetensors.xxh3_128``), for ``load_file(..., verify=True)``. Without it such an entry of
            ``metadata``, which is another file's, is left out.
        alignment: in bytes, a power of two from 8 to 4096: each tensor begins in the file, and in memory where it is
            mapped, at a multiple of the largest power of two, at most this one, that divides its size in bytes. For
            it the header is padded with spaces, and tensors whose sizes have the higher powers come first. With 0,
            the default, the file is the reference's to the byte. Every reader takes either.
        progress: True shows a bar on stderr with tqdm where it takes over a second. A function is called with the bytes
            done and those of the whole file: first with 0, last with all, on this thread. What it raises stops the
            save, and an existing file is as it was.

    Raises:
        OSError: what the operating system reports; an existing file is then as it was. With ``fsync`` the message may
            say that the new file is in place: then it may not survive a power failure.
        ValueError: not a dict of tensors, or a tensor that is sparse, not contiguous, or of a dtype that the format
            does not have; a tensor whose memory is not there, since its storage was freed or resized (FSDP and
            offloading do that: gather it first) or its lazy module has not run; another alignment.
        NotImplementedError: a tensor on the meta device.
        RuntimeError: tensors that share memory; :func:`save_model` resolves that.
        TypeError: names or metadata that are not str, an alignment that is not int.
    """
    check_flags(fsync=fsync, checksum=checksum)
    check_progress(progress)
    if _graphs.is_tracing() and _graphs.must_leave(progress):
        options: dict[str, Any] = {"fsync": fsync, "checksum": checksum, "alignment": alignment, "progress": progress}
        _graphs.call_outside(save_file, tensors, filename, metadata, **options)
        return
    if _graphs.is_tracing():
        _graphs.save_file(tensors, filename, metadata, fsync=fsync, checksum=checksum, alignment=alignment)
        return
    check_alignment(alignment)
    named = operator_tensors(tensors)
    path = operator_filename(filename)
    try:
        with reporting(progress, filename):
            warning = _ops._save_file.default(path, *named, operator_metadata(metadata), fsync, checksum, alignment)
    except RuntimeError as error:
        raise translate(error, filename) from None
    if warning:
        warnings.warn(warning, stacklevel=2)


def save(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None, *, checksum: bool = False
) -> bytes:
    """Saves tensors to bytes; arguments and errors as for :func:`save_file`.

    Returns:
        What :func:`save_file` would write, with ``alignment=0``. Nothing of its size is allocated beside it, but for
        a small one.
    """
    check_flags(checksum=checksum)
    arguments = *operator_tensors(tensors), operator_metadata(metadata)
    if len(tensors) <= _MAX_SMALL_TENSORS and not checksum and not _graphs.is_tracing():
        small: torch.Tensor = _ops._save_small.default(*arguments, _MAX_SMALL_SIZE)
        if small.numel() > 0:
            return bytes_of(small)
    plan = torch.classes.safetensors._PythonSave(*arguments, checksum)
    data, memory = new_bytes(plan.size())
    plan.write_to(memory)
    return data
