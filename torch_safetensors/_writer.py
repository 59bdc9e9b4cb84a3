"""A file that is written tensor by tensor."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import torch

from ._arguments import PathLike, operator_filename, operator_metadata, operator_name, operator_tensors
from ._errors import translate
from ._progress import Progress, Total, bar_or_callable, reporting

__all__ = ["Spec", "Writer"]

#: What a file will hold: by name, a tensor of that dtype and shape on any device (``meta`` too), or the two.
Spec: TypeAlias = "Mapping[str, torch.Tensor | tuple[torch.dtype, Sequence[int]]]"


class Writer:
    """Writes a file tensor by tensor, in any order: for what does not fit into memory at once.

    The file is byte for byte what :func:`save_file` would write, and appears under its name, whole, when the writer is
    closed; until then, and if anything fails, an existing file stays as it was. Dropped without :meth:`close`, it
    aborts. As a context manager it closes at the end, and aborts if the block raises:

    >>> with Writer("model.safetensors", {"w": (torch.float32, (4096, 4096))}) as writer:
    ...     writer.write("w", make())

    Several threads may write at once. In a forked child it refuses to work.

    Args:
        filename: see :func:`save_file`.
        spec: all tensors that will be written: by name, a tensor on any device (``meta`` too), of which dtype and shape
            alone count, or a pair of ``torch.dtype`` and shape.
        metadata: text to go with them; written sorted by key.
        fsync: also make it durable when it is closed.
        checksum: see :func:`save_file`.
        alignment: see :func:`save_file`; None is 0.
        progress: True, or a function: see :func:`save_file`. It counts the bytes of all tensors, is called by whichever
            thread writes, one at a time, and must not call the writer. What it raises aborts the writer.

    Raises:
        OSError: what the operating system reports, also where the disk has no room for the whole file.
        ValueError: a dtype that the format does not have, a name it cannot hold, a size that does not fit.
        TypeError: a ``spec`` of another form, names or metadata that are not str.
    """

    def __init__(
        self,
        filename: PathLike,
        spec: Spec,
        metadata: Mapping[str, str] | None = None,
        *,
        fsync: bool = False,
        checksum: bool = False,
        alignment: int | None = None,
        progress: Progress = None,
    ) -> None:
        self._filename = filename
        tensors = _tensors_of(spec)
        arguments = *operator_tensors(tensors), operator_metadata(metadata)
        path = operator_filename(filename)
        self._aborted = False
        with contextlib.ExitStack() as stack:
            report = stack.enter_context(bar_or_callable(progress, filename))
            try:
                self._writer = torch.classes.safetensors._Writer(path, *arguments, fsync, checksum, alignment or 0)
            except RuntimeError as error:
                raise translate(error, filename) from None
            self._bar = stack.pop_all()
        self._total = Total(report, sum(tensor.nbytes for tensor in tensors.values())) if report else None
        # Also at the end of the interpreter, so that the temporary file goes. Through a method, which gives up the
        # interpreter's lock.
        self._give_up = weakref.finalize(self, self._writer.abort)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Writes one tensor.

        Args:
            name: one of the spec's.
            tensor: of the dtype and shape that the spec says, dense, on any device. A copy is made of one that is not
                contiguous, and of a lazy conjugate or negative view; of nothing else.

        Raises:
            ValueError: a name or tensor that the spec does not have, a name that was written before, a writer that is
                closed or was aborted. Nothing has happened then.
            NotImplementedError: a tensor on the meta device.
            TypeError: not a tensor, or a name that is not a str.
            OSError: what the operating system reports. It, and all else that stops a write halfway, aborts the writer.
        """
        name = operator_name(name)
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"tensor {name!r}: expected torch.Tensor, not {type(tensor).__name__}")
        try:
            with reporting(self._total.part() if self._total else None, self._filename):
                self._writer.write(name, tensor)
        except RuntimeError as error:
            raise translate(error, self._filename) from None

    def close(self) -> None:
        """Puts the file under its name; closing it again does nothing.

        Raises:
            ValueError: tensors that are missing, which it lists; or the writer was aborted.
            OSError: what the operating system reports. In any case the writer is aborted and an old file as it was;
                only an error that says that the new file is in place means that: it may not survive a power failure.
        """
        self._bar.close()
        try:
            warning = self._writer.close()
        except RuntimeError as error:
            raise translate(error, self._filename) from None
        if warning:
            warnings.warn(warning, stacklevel=2)

    def abort(self) -> None:
        """Gives up: what was written is removed, an old file stays as it was. Nothing if it is closed."""
        self._aborted = True
        self._bar.close()
        self._writer.abort()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self.abort()
        elif not self._aborted:
            self.close()


def _tensors_of(spec: Spec) -> dict[str, torch.Tensor]:
    if not isinstance(spec, Mapping):
        raise TypeError(f"spec: expected a mapping of names to tensors, not {type(spec).__name__}")
    return {name: _tensor_of(name, value) for name, value in spec.items()}


def _tensor_of(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], torch.dtype)):
        raise TypeError(f"spec: {name!r}: expected a tensor or a pair of torch.dtype and shape, not {value!r}")
    dtype, shape = value
    try:
        return torch.empty(tuple(shape), dtype=dtype, device="meta")
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"spec: {name!r}: {shape!r} is not a shape: {error}") from None
