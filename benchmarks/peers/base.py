"""What a peer is."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from ..content import Content, check_same_file

if TYPE_CHECKING:
    from torch import Tensor

Tensors: TypeAlias = "dict[str, Tensor]"


class Peer:
    """A package, or one way to use it. Lives in a worker process, where start() imports it.

    Cases call these methods, where a peer has them; one that it lacks it cannot do:

    =========================================  ==========================================================
    load_file(path)                            a dict of all tensors
    load_operator(path)                        the same by the bare operator
    load_to(path, device)                      all tensors, on a device
    keys(path)                                 the names
    read_rows(path, name, begin, end)          some rows of one tensor
    load_bytes(data), alias_bytes(bytearray)   the same from memory, copied or aliased
    save_file(tensors, path)
    save_durably(tensors, path)                on disk when it returns
    save_bytes(tensors)
    load_model(model, path), save_model(model, path)
    patch_transformers()                       so that transformers uses the peer
    import_code(), load_code()                 Python source that imports it, and that makes `tensors` of `path`
    =========================================  ==========================================================
    """

    name: ClassVar[str] = ""
    #: The distribution whose version is reported.
    distribution: ClassVar[str] = ""
    #: The folder, below that of all peers, its packages are in; None: they are in the environment.
    folder: ClassVar[str | None] = None
    #: Differs from another peer in an option alone: takes part where the case says that this matters.
    variant: ClassVar[bool] = False

    def start(self) -> None:
        """Imports the package; raises ImportError where it is missing."""

    def version(self) -> str:
        return importlib.metadata.version(self.distribution)

    def can(self, verb: str) -> bool:
        return hasattr(self, verb)

    def own_file(self, path: Path, content: Content) -> Path:
        """The file of that content in the peer's own format."""
        del content
        return path

    def check_file(self, path: Path, content: Content) -> None:
        """Raises WrongError unless the peer saved that content there."""
        check_same_file(path, content)

    def check_bytes(self, data: bytes, content: Content) -> None:
        check_same_file(data, content)

    def release(self) -> None:
        """Gives memory that the package keeps for itself back to the system."""
