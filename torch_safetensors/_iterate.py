"""Loads some tensors of a checkpoint, elsewhere, under other names, in another dtype, or one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ._arguments import DeviceLike, PathLike
from ._errors import is_out_of_memory, printable
from ._options import check_backend, check_flags, checked_count
from ._progress import Progress, Total, bar_or_callable, reporting
from ._safe_open import safe_open
from ._selection import DeviceMap, Names, Rename, Selection, select
from ._warnings import warn

__all__ = ["Conversion", "check_dtype", "iter_tensors", "load_selected"]

#: Bytes read ahead of what is converted: enough for the disk to go on meanwhile, and little beside a model.
_CONVERSION_BUFFER = 1 << 28


def iter_tensors(
    filename: PathLike,
    device: DeviceLike | DeviceMap = "cpu",
    *,
    names: Names | None = None,
    dtype: torch.dtype | None = None,
    rename: Rename | None = None,
    backend: str = "auto",
    threads: int | None = None,
    buffer_size: int | None = None,
    strict_index: bool = True,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Loads the tensors of a checkpoint one after the other, for models that are larger than memory.

    Args:
        filename: see :func:`load_file`, like ``device``, ``names``, ``dtype`` and ``rename``. Opened at once.
        device: not ``"meta"``.
        names: see there.
        dtype: see there.
        rename: see there.
        backend: what is read goes into memory of its own with each; see :func:`load_file`.
        threads: so many read; by default ``$TORCH_SAFETENSORS_THREADS``, or 8.
        buffer_size: bytes that may be read ahead of what was handed out; by default 1 GiB. A single tensor may be
            larger.
        strict_index: see :func:`load_file`.

    Returns:
        An iterator over names and tensors, in the order in which they have been read, device by device. What it hands
        out is the caller's alone. Its threads end when it ends, is closed or dropped. It then warns if ``dtype`` has
        turned finite values into infinite ones.

    Raises:
        OSError: also when iterated: what the operating system reports.
        SafetensorError, TypeError, ValueError: as :func:`load_file`.
    """
    check_dtype(dtype)
    check_backend(backend)
    check_flags(strict_index=strict_index)
    threads, buffer_size = checked_count("threads", threads), checked_count("buffer_size", buffer_size)
    file = _open_to_select(filename, backend, names, strict_index)
    selection = select(filename, file.offset_keys(), device, names, rename)
    if torch.device("meta") in selection.devices:
        raise ValueError(f"{printable(filename)}: there is nothing to iterate over on the meta device; use load_file")
    return _iterate(file, selection, Conversion(filename, dtype), threads, buffer_size)


def _iterate(
    file: safe_open,
    selection: Selection,
    conversion: Conversion,
    threads: int | None,
    buffer_size: int | None,
) -> Iterator[tuple[str, torch.Tensor]]:
    new_names = dict(zip(selection.names, selection.new_names, strict=True))
    try:
        for device, names in selection.by_device().items():
            with file.prefetch(dict.fromkeys(names), device=device, threads=threads, buffer_size=buffer_size) as loader:
                for name, tensor in loader:
                    yield new_names[name], conversion.convert(name, tensor)
    finally:
        conversion.warn()


def load_selected(
    filename: PathLike,
    device: DeviceLike | DeviceMap,
    names: Names | None,
    dtype: torch.dtype | None,
    rename: Rename | None,
    backend: str,
    threads: int | None,
    ring_size: int | None,
    verify: bool,
    progress: Progress,
    strict_index: bool,
) -> dict[str, torch.Tensor]:
    """:func:`load_file` where it is told what to load."""
    check_dtype(dtype)
    file = _open_to_select(filename, backend, names, strict_index)
    selection = select(filename, file.offset_keys(), device, names, rename)
    loaded: dict[str, torch.Tensor] = {}
    with bar_or_callable(progress, filename) as report:
        total = None if report is None else Total(report, _bytes_to_read(file, selection, verify)).start()
        reader = _Reader(file, Conversion(filename, dtype), threads, ring_size, verify, total)
        for where, group in selection.by_device().items():
            loaded.update(reader.load(group, where))
        if total is not None:
            total.finish()
    reader.conversion.warn()
    return {new: loaded[name] for name, new in zip(selection.names, selection.new_names, strict=True)}


def _open_to_select(filename: PathLike, backend: str, names: Names | None, strict_index: bool) -> safe_open:
    """Those that are named need their own files alone."""
    file = safe_open(filename, backend=backend, strict_index=strict_index)
    if names is None:
        file._require_whole()
    return file


def _bytes_to_read(file: safe_open, selection: Selection, verify: bool) -> int:
    nbytes: int = sum(file._call("_get_meta", name).nbytes for name in selection.names)
    return 2 * nbytes if verify else nbytes


@dataclass(frozen=True)
class _Reader:
    """Reads some tensors of an open checkpoint to a device; the fields are arguments of :func:`load_file`."""

    file: safe_open
    conversion: Conversion
    threads: int | None
    ring_size: int | None
    verify: bool
    total: Total | None

    def load(self, names: list[str], device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
        others = {name for name in names if self._is_converted(name)}
        same = [name for name in names if name not in others]
        yield from zip(same, self._read(same, device), strict=True)
        # Each as soon as it is read: never are all of them there in both dtypes.
        for name, tensor in self._one_by_one([name for name in names if name in others], device):
            yield name, self.conversion.convert(name, tensor)

    def _is_converted(self, name: str) -> bool:
        dtype = self.conversion.dtype
        return dtype is not None and is_converted(self.file._call("_get_meta", name).dtype, dtype)

    def _read(self, names: list[str], device: torch.device) -> list[torch.Tensor]:
        arguments = names, device, self.threads, self.ring_size, self.verify
        with reporting(self.total.part() if self.total else None, self.conversion.source):
            tensors: list[torch.Tensor] = self.file._call("_get_tensors", *arguments)
        return tensors

    def _one_by_one(self, names: list[str], device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
        # The background threads do not compare checksums, and there is nothing for them to read for meta.
        if self.verify or device.type == "meta":
            for name in names:
                yield name, self._read([name], device)[0]
        elif names:
            with self.file.prefetch(
                dict.fromkeys(names),
                device=device,
                threads=self.threads,
                buffer_size=_CONVERSION_BUFFER,
                ring_size=self.ring_size,
            ) as loader:
                for name, tensor in loader:
                    if self.total:
                        self.total.add(tensor.nbytes)
                    yield name, tensor


def is_converted(stored: torch.dtype, dtype: torch.dtype | None) -> bool:
    """Floating-point numbers are, and nothing else, as by ``torch.nn.Module.to(dtype)``."""
    return dtype is not None and stored.is_floating_point and stored != dtype


class Conversion:
    """Converts the tensors of a checkpoint, and takes note of finite values that become infinite.

    Args:
        source: the checkpoint, for messages.
        dtype: for floating-point tensors, or None.
    """

    def __init__(self, source: PathLike, dtype: torch.dtype | None) -> None:
        self.source = source
        self.dtype = dtype
        self._overflows = torch.classes.safetensors._Overflows()

    def convert(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as ``dtype`` asks for it.

        Raises:
            ValueError: torch cannot convert it.
        """
        if self.dtype is None or not is_converted(tensor.dtype, self.dtype):
            return tensor
        try:
            result = tensor.to(self.dtype)
        except RuntimeError as error:  # NotImplementedError is one
            if is_out_of_memory(error):
                raise
            raise ValueError(
                f"{printable(self.source)}: tensor {name!r}: torch cannot convert {tensor.dtype} to {self.dtype}: "
                f"{error}"
            ) from None
        self._overflows.add(name, tensor, self.dtype)
        return result

    def warning(self) -> str:
        """What to warn of; nothing where no value was lost."""
        text: str = self._overflows.warning(printable(self.source))
        return text

    def warn(self) -> None:
        """Warns, once for the whole call."""
        warn(self.warning())


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raises where ``dtype`` is none that weights are converted to."""
    if dtype is None:
        return
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: expected torch.dtype, not {type(dtype).__name__}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating-point dtype, not {dtype}; the others are loaded as they are")
