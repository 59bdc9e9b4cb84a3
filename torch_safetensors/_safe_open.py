"""Files that stay open and are read by name."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

import torch

from ._arguments import DeviceLike, PathLike, operator_device, operator_filename, operator_name, split_names
from ._errors import SafetensorError, translate
from ._memory import check_memory
from ._options import check_backend, check_flags, checked_count
from ._prefetch import PrefetchLoader, PrefetchPlan, rows_of

__all__ = ["SafeSlice", "TensorMeta", "safe_open"]


_FRAMEWORKS = ("pt", "torch", "pytorch")


class TensorMeta(NamedTuple):
    """What a header says of a tensor."""

    #: The format's name, e.g. ``"F32"``.
    dtype: str
    #: For F4 the last dimension counts elements, twice torch's.
    shape: list[int]
    #: ``(begin, end)`` in bytes, relative to the end of the header.
    data_offsets: tuple[int, int]


class safe_open:  # noqa: N801 (the reference's name)
    """Opens a checkpoint to read tensors, or parts of them, by name.

    Args:
        filename: a file, an index or a directory: see :func:`load_file`, of which URLs and file objects are not taken.
        framework: ``"pt"`` (or ``"torch"``, ``"pytorch"``); the format knows others, this package does not.
        device: where the tensors shall be; everything ``torch.device`` takes.
        backend: see :func:`load_file`.
        strict_index: see :func:`load_file`. It applies to the methods that load all tensors: :meth:`get_tensors` and
            :meth:`prefetch` without names.

    Raises:
        OSError: what the operating system reports.
        SafetensorError: a malformed file; from the methods, also an unknown name and a handle that was closed.

    It works with and without ``with``; tensors and slices outlive it.

    A handle stays with the checkpoint that it opened, also when another process replaces it. If a checkpoint has very
    many files, some of them are opened again to be read; one that was replaced since then raises ``OSError``.

    A tensor of a checkpoint in several files needs only its own file: that another one is missing or malformed is an
    error of its tensors alone. The names are those of the index.

    Each call returns memory of its own, with every backend: writing to a tensor or slice never shows in another one,
    nor in what is read later.

    >>> with safe_open("model.safetensors", framework="pt") as file:
    ...     for name in file.keys():
    ...         tensor = file.get_tensor(name)
    """

    #: The reference's class, for frameworks that it alone knows, while :func:`install` has put this one in its place.
    _for_other_frameworks: ClassVar[type | None] = None

    def __new__(
        cls,
        filename: PathLike,
        framework: str = "pt",
        device: DeviceLike = "cpu",
        *,
        backend: str = "auto",
        strict_index: bool = True,
    ) -> safe_open:
        if cls._for_other_frameworks is not None and framework not in _FRAMEWORKS:
            options: dict[str, Any] = {} if backend == "auto" else {"backend": backend}
            if not strict_index:
                options["strict_index"] = strict_index
            handle: safe_open = cls._for_other_frameworks(filename, framework, device, **options)
            return handle
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[PathLike]:
        return (self._filename,)

    def __init__(
        self,
        filename: PathLike,
        framework: str = "pt",
        device: DeviceLike = "cpu",
        *,
        backend: str = "auto",
        strict_index: bool = True,
    ) -> None:
        if framework not in _FRAMEWORKS:
            raise ValueError(f"framework: {framework!r} is not one of 'pt', 'torch', 'pytorch'")
        check_backend(backend)
        check_flags(strict_index=strict_index)
        self._filename = filename
        self._device = operator_device(device)
        self._strict_index = strict_index
        try:
            self._file = torch.classes.safetensors.SafeOpen(operator_filename(filename), self._device, backend)
        except RuntimeError as error:
            raise translate(error, filename) from None

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file = None

    def _open_file(self) -> Any:
        if self._file is None:
            raise SafetensorError(f"{self._filename}: File is closed")
        return self._file

    def _call(self, method: str, *arguments: Any) -> Any:
        file = self._open_file()
        try:
            return getattr(file, method)(*arguments)
        except RuntimeError as error:
            raise translate(error, self._filename) from None

    def _require_whole(self) -> None:
        """Raises where a file is missing or malformed, or the index and the files differ, as ``strict_index`` says."""
        self._call("_require_whole", self._strict_index)

    def keys(self) -> list[str]:
        """The names, sorted."""
        return split_names(*self._call("_sorted_keys"))

    def offset_keys(self) -> list[str]:
        """The names, in the order of the data."""
        return split_names(*self._call("_keys"))

    def metadata(self) -> dict[str, str] | None:
        """The file's ``__metadata__``, sorted by key; None if it has none."""
        return dict(self._call("metadata")) if self._call("_has_metadata") else None

    def get_tensor(self, name: str) -> torch.Tensor:
        """One tensor."""
        tensor: torch.Tensor = self._call("get_tensor", operator_name(name))
        return tensor

    def get_tensors(self, names: list[str] | None = None) -> dict[str, torch.Tensor]:
        """Several tensors, read together; all of them, in the order of the data, by default."""
        if names is None:
            self._require_whole()
        elif isinstance(names, str) or not isinstance(names, Iterable):
            raise TypeError(f"names: expected a list of str, not {type(names).__name__}")
        names = self.offset_keys() if names is None else [operator_name(name) for name in names]
        return dict(zip(names, self._call("get_tensors", names), strict=True))

    def get_tensor_meta(self, name: str) -> TensorMeta:
        """What the header says of a tensor; nothing else is read."""
        begin, end = self._call("_data_offsets", operator_name(name))
        return TensorMeta(self._call("get_dtype", name), self._call("get_shape", name), (begin, end))

    def get_slice(self, name: str) -> SafeSlice:
        """A tensor of which parts can be read, with torch's indexing."""
        return SafeSlice(self._file, self._filename, name, self._call("get_shape", operator_name(name)))

    def prefetch(
        self,
        plan: PrefetchPlan | None = None,
        *,
        device: DeviceLike = None,
        threads: int | None = None,
        buffer_size: int | None = None,
        ring_size: int | None = None,
    ) -> PrefetchLoader:
        """Starts to load tensors in the background.

        Args:
            plan: the names to load, each with None for the whole tensor or a slice of its first dimension, of step 1;
                by default all, whole.
            device: where they shall be; the handle's by default.
            threads: so many read; by default ``$TORCH_SAFETENSORS_THREADS``, or 8.
            buffer_size: bytes that may be read ahead of what is taken; by default 1 GiB. A single tensor may be larger,
                and what :meth:`PrefetchLoader.take` waits for goes past it.
            ring_size: see :func:`load_file`.

        Raises:
            SafetensorError: a name that the file does not hold, a dtype that torch does not have.
            TypeError, ValueError: an entry of the plan that is neither None nor such a slice; numbers that are not
                positive; the meta device.
        """
        if plan is None:
            self._require_whole()
        elif not isinstance(plan, Mapping):
            raise TypeError(f"plan: expected a mapping of names to None or slices, not {type(plan).__name__}")
        names = self.offset_keys() if plan is None else [operator_name(name) for name in plan]
        slices = [None] * len(names) if plan is None else list(plan.values())
        rows = [
            (-1, -1) if part is None else rows_of(name, part, self._call("_get_meta", name))
            for name, part in zip(names, slices, strict=True)
        ]
        try:
            loader = torch.classes.safetensors._Prefetch(
                self._open_file(),
                names,
                [begin for begin, _ in rows],
                [end for _, end in rows],
                self._device if device is None else operator_device(device),
                checked_count("threads", threads),
                checked_count("buffer_size", buffer_size),
                checked_count("ring_size", ring_size),
            )
        except RuntimeError as error:
            raise translate(error, self._filename) from None
        return PrefetchLoader(loader, self._filename)

    def __len__(self) -> int:
        return int(self._call("_size"))

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self._call("_contains", operator_name(name)))
        except ValueError:  # A name that no file can hold.
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __repr__(self) -> str:
        from ._summary import summary  # which few programs want, and all would wait for

        return summary(self)

    def _repr_html_(self) -> str:
        from ._summary import html_summary

        return html_summary(self)


class SafeSlice:
    """A tensor of a file, read in parts: ``file.get_slice(name)[2:5, ..., 0]``.

    Indexing follows torch's rules and reads only the bytes it needs. It holds the file open. Each index returns memory
    of its own; a large part of a mapped file that is contiguous there is mapped, and read when it is touched.
    """

    def __init__(self, file: Any, filename: PathLike, name: str, shape: list[int]) -> None:
        self._file = file
        self._filename = filename
        self._name = name
        self._shape = shape

    def get_shape(self) -> list[int]:
        """As the header has it: for F4 the last dimension counts elements, twice torch's."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The format's name, e.g. ``"F32"``."""
        dtype: str = self._call("get_dtype")
        return dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The part of the tensor that ``tensor[index]`` would be, in a storage of its own.

        Raises:
            IndexError, ValueError, TypeError: as torch raises them for ``tensor[index]``.
        """
        if index is Ellipsis:  # what transformers asks for
            tensor: torch.Tensor = self._call("get_tensor")
            return tensor
        if type(index) is slice and self._shape and _is_forward(index):
            rows: torch.Tensor = self._call("get_slice", 0, index.start, index.stop, index.step or 1)
            return rows
        # Without data: torch's own indexing of it says which elements are wanted.
        whole: torch.Tensor = self._call("_get_meta")
        if _is_list_of_indices(index):
            return _index(self._read(whole), index)
        indices = tuple(map(_plain, index if isinstance(index, tuple) else (index,)))
        if all(map(_is_basic, indices)):
            return self._read(whole[indices])
        return self._gather(whole, indices)

    def _gather(self, whole: torch.Tensor, index: tuple[Any, ...]) -> torch.Tensor:
        """Indexing by lists, masks and tensors: reads the rows that the first index names, leaves the rest to torch."""
        first, rest = index[0], index[1:]
        if _is_basic(first):
            if first is None or first is Ellipsis:
                return _index(self._read(whole), index)
            rows = self._read(whole[first])
            return _index(rows, (slice(None), *rest) if isinstance(first, slice) else rest)
        first = _as_tensor(first)
        if first.dtype in _MASKS:
            if first.dim() == 0:
                return _index(self._read(whole), (first, *rest))
            if first.shape != whole.shape[: first.dim()]:
                raise IndexError(
                    f"the mask has shape {list(first.shape)} but tensor {self._name!r} {list(whole.shape)}"
                )
            return self._gather(whole, (*first.nonzero(as_tuple=True), *rest))
        if whole.dim() == 0:
            raise IndexError(f"tensor {self._name!r} has no dimension to index")
        wanted = torch.arange(whole.shape[0], device="cpu")[first]
        rows, position = torch.unique(wanted, return_inverse=True)
        return _index(self._read_rows(whole, rows.tolist()), (position, *rest))

    def _read_rows(self, whole: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """Rows in ascending order, neighbours together."""
        parts = []
        begin = 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or rows[end] != rows[end - 1] + 1:
                parts.append(_as_integers(self._read(whole[rows[begin] : rows[end - 1] + 1])))
                begin = end
        if not parts:
            return self._read(whole[:0])
        return torch.cat(parts).view(whole.dtype)

    def _read(self, view: torch.Tensor) -> torch.Tensor:
        part: torch.Tensor = self._call("_get_view", list(view.shape), list(view.stride()), view.storage_offset())
        return part

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._file, method)(self._name, *arguments)
        except RuntimeError as error:
            raise translate(error, self._filename) from None


#: uint8 is what torch had for masks before bool.
_MASKS = (torch.bool, torch.uint8)


def _is_forward(index: slice) -> bool:
    """True for a slice that the operator takes as it is: of plain, small numbers, in the order of the data."""
    return all(
        bound is None or (type(bound) is int and -_INT64 <= bound < _INT64) for bound in (index.start, index.stop)
    ) and (index.step is None or (type(index.step) is int and 0 < index.step < _INT64))


_INT64 = 2**63


def _is_list_of_indices(index: Any) -> bool:
    """True for a list that torch takes for a tuple (deprecated there): a short one that holds other than numbers."""
    return (
        isinstance(index, list)
        and len(index) < 32
        and any(item is None or item is Ellipsis or isinstance(item, slice) or _is_sequence(item) for item in index)
    )


def _is_sequence(index: Any) -> bool:
    return hasattr(index, "__len__") and hasattr(index, "__getitem__") and not isinstance(index, dict)


def _plain(index: Any) -> Any:
    """An int for what torch takes for one, numpy's and tensors included; anything else as it is."""
    if isinstance(index, bool):
        return index
    if isinstance(index, torch.Tensor):
        check_memory({"index": index})
        if index.dim() > 0 or index.dtype in _MASKS:
            return index
    try:
        return operator.index(index)
    except TypeError:
        return index


def _is_basic(index: Any) -> bool:
    """True for what selects by ranges alone, and for what is no index at all, which torch shall refuse."""
    return not isinstance(index, (bool, torch.Tensor)) and not _is_sequence(index)


def _as_tensor(index: Any) -> torch.Tensor:
    """A mask or list of indices as torch would make it."""
    if isinstance(index, torch.Tensor):
        return index.cpu()
    tensor = torch.as_tensor(index, device="cpu")
    return tensor if tensor.dtype in _MASKS else tensor.long()


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _as_integers(tensor: torch.Tensor) -> torch.Tensor:
    """The same bits in a dtype that torch can gather, which it cannot do for every float8 and float4."""
    return tensor.view(_INTEGERS[tensor.element_size()])


def _index(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    """What torch makes of it, in a storage of its own."""
    part = _as_integers(tensor)[index]
    return (part.clone() if part._is_view() else part).view(tensor.dtype)
