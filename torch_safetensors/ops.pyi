"""The operators as the library registers them; test_ops.py compares every signature with its schema."""

import torch
from torch import Tensor

__all__ = [
    "SafeOpen",
    "keys",
    "load",
    "load_file",
    "load_into",
    "load_tensor",
    "load_tensors",
    "metadata",
    "prefetch",
    "save",
    "save_file",
    "save_tensors",
]

def load_file(
    filename: str,
    device: torch.device = ...,
    *,
    backend: str = "auto",
    verify: bool = False,
    strict_index: bool = True,
) -> dict[str, Tensor]:
    """Loads all tensors of a file, in the order of their data.

    Args:
        filename: UTF-8.
        device: where the tensors shall be; the CPU by default. ``meta`` reads the header alone.
        backend: ``"mmap"`` (lazily, private copy-on-write pages), ``"pread"`` (at once, into memory of their own) or
            ``"auto"``: mmap on local file systems.
        verify: compare the data with the checksums that the file was saved with.
        strict_index: False loads what the index of a checkpoint in several files assigns to each, whatever else they
            hold; by default a checkpoint whose index and files differ is refused.

    Raises:
        RuntimeError: what the operating system reports, as ``[Errno 2] ...``; a malformed file; a damaged tensor.
        ValueError: an unknown backend.
    """

def load(data: Tensor, device: torch.device = ..., *, copy: bool = True, verify: bool = False) -> dict[str, Tensor]:
    """Loads all tensors from the bytes of a file, a 1-D uint8 tensor.

    Args:
        data: the bytes.
        device: see :func:`load_file`.
        copy: False makes the tensors alias ``data``, on the CPU, and keep it alive.
        verify: see :func:`load_file`.

    Raises:
        RuntimeError: the bytes are malformed, or damaged.
        ValueError: ``data`` is another tensor; ``copy=False`` with data that is not aligned, or with another device.
    """

def save_file(
    tensors: dict[str, Tensor],
    filename: str,
    metadata: dict[str, str] | None = None,
    *,
    fsync: bool = False,
    checksum: bool = False,
    alignment: int | None = None,
) -> None:
    """Saves tensors to a file, which appears under its name only when it is whole.

    Args:
        tensors: dense, contiguous, on any device, no two sharing memory.
        filename: UTF-8. A symbolic link is written through.
        metadata: text to go with it.
        fsync: also make it durable before returning.
        checksum: record a checksum of each tensor, for ``verify=True``.
        alignment: bytes, a power of two from 8 to 4096, that tensors shall begin at a multiple of, as far as it divides
            their size. None for the reference's layout.

    Raises:
        RuntimeError: what the operating system reports; tensors that share memory.
        ValueError: a tensor that cannot be saved; another alignment.
    """

def save(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, *, checksum: bool = False) -> Tensor:
    """The bytes of the file that :func:`save_file` would write, as a 1-D uint8 tensor."""

def keys(filename: str, *, strict_index: bool = True) -> list[str]:
    """The names of a file's tensors, in the order of their data. ``strict_index``: see :func:`load_file`."""

def metadata(filename: str) -> dict[str, str]:
    """The metadata of a file, sorted by key; empty where it has none."""

def load_tensor(
    filename: str,
    name: str,
    device: torch.device = ...,
    *,
    backend: str = "auto",
    expect: str | None = None,
    verify: bool = False,
) -> Tensor:
    """Loads one tensor of a file.

    Args:
        filename: see :func:`load_file`.
        name: of the tensor.
        device: see :func:`load_file`.
        backend: see :func:`load_file`.
        expect: what the header must say of it, as ``F32[4,16]``; graphs carry it.
        verify: see :func:`load_file`.

    Raises:
        RuntimeError: also a name that the file does not hold, or a tensor that is not as expected.
    """

def load_tensors(
    filename: str,
    names: list[str],
    device: torch.device = ...,
    *,
    backend: str = "auto",
    expect: list[str] | None = None,
    exact: bool = False,
    verify: bool = False,
    strict_index: bool = True,
) -> list[Tensor]:
    """Loads several tensors of a file, read together, in the order of ``names``; no two of them share memory.

    Of a checkpoint in several files, only those are opened that have the tensors.

    Args:
        filename: see :func:`load_file`.
        names: of the tensors.
        device: see :func:`load_file`.
        backend: see :func:`load_file`.
        expect: see :func:`load_tensor`, one for each name.
        exact: the file must hold these tensors and no others.
        verify: see :func:`load_file`.
        strict_index: see :func:`load_file`; what it says matters with ``exact``.
    """

def load_into(filename: str, name: str, out: Tensor, *, offsets: list[int] | None = None) -> None:
    """Reads one tensor of a file into ``out``, which has its dtype and shape, on any device.

    Args:
        filename: see :func:`load_file`.
        name: of the tensor.
        out: where to.
        offsets: one for each dimension: read the part of the tensor that begins there and has the shape of ``out``,
            and no more of the file than that, bar short gaps.
    """

def prefetch(filename: str, names: list[str]) -> None:
    """Has the system begin to read these tensors, which are loaded soon."""

def save_tensors(
    filename: str,
    names: list[str],
    tensors: list[Tensor],
    metadata: list[str] | None = None,
    *,
    fsync: bool = False,
    checksum: bool = False,
    alignment: int | None = None,
) -> None:
    """:func:`save_file` of lists, which AOTInductor packages can call; ``metadata`` is key, value, key, value."""

class SafeOpen:
    """``torch.classes.safetensors.SafeOpen``: a file that is open, to be held by scripted modules.

    It is pickled, and saved with a module, as its arguments, and opens the file again.
    """

    def __init__(self, filename: str, device: torch.device = ..., backend: str = "auto") -> None: ...
    def keys(self) -> list[str]:
        """The names, in the order of the data."""

    def metadata(self) -> dict[str, str]:
        """The metadata, sorted by key."""

    def get_tensor(self, name: str) -> Tensor:
        """One tensor."""

    def get_tensors(self, names: list[str]) -> list[Tensor]:
        """Several tensors, read together."""

    def get_shape(self, name: str) -> list[int]:
        """As the header has it."""

    def get_dtype(self, name: str) -> str:
        """The format's name, as ``F32``."""

    def get_slice(
        self, name: str, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
    ) -> Tensor:
        """A part of a tensor, as ``tensor.narrow`` along one dimension; reads no more than it needs."""

    def prefetch(self, names: list[str]) -> None:
        """Has the system begin to read these tensors."""

    def load_into(self, names: list[str], tensors: list[Tensor], offsets: list[list[int]] | None = None) -> None:
        """Reads tensors into others of their dtypes and shapes, together; or parts, as :func:`load_into` does."""
