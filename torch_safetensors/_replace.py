"""One tensor's data in an existing file, overwritten where it lies."""

from __future__ import annotations

import torch

from ._arguments import PathLike, operator_filename, operator_name
from ._errors import translate

__all__ = ["recover", "replace_tensor"]

_ops = torch.ops.safetensors


def replace_tensor(filename: PathLike, name: str, tensor: torch.Tensor) -> None:
    """Overwrites the data of one tensor of a file, without writing the rest of it anew.

    The old bytes are first saved beside the file, as ``<filename>.undo``, a safetensors file with that one tensor, and
    removed when the new ones are on the disk. If writing fails, they are put back at once. If the process is killed, or
    the machine stops, the next :func:`replace_tensor` or :func:`recover` of the file puts them back: the tensor is the
    old one or the new one then, never a mixture. Checksums that the file records stay right. Whoever reads the tensor
    in the meantime may see a mixture.

    Calls for one file wait for each other, in this process and in others (flock). After some seconds a warning says
    which process has the file locked; after ten minutes, or as many seconds as the environment variable
    ``TORCH_SAFETENSORS_LOCK_TIMEOUT`` says, the call gives up.

    Tensors mapped from the file, here or in other processes, see the change, except where they were written to. So that
    ``tensor`` may be one of them, it is copied if this process has the file mapped.

    Args:
        filename: an existing file; a symbolic link is followed, except into a Hugging Face cache, whose files other
            revisions share: that is refused.
        name: a tensor of the file.
        tensor: of the dtype and shape that the file has, dense, on any device.

    Raises:
        OSError: what the operating system reports, also where the file system has no locks. The tensor is the old one
            then, unless the message says otherwise.
        TimeoutError: another process had the file locked for too long.
        PermissionError: a link into a Hugging Face cache.
        SafetensorError: a malformed file; a name that it does not hold; an undo file that belongs to another file,
            since this one was replaced or copied.
        ValueError: another dtype or shape.
        NotImplementedError: a tensor on the meta device.
        TypeError: not a tensor, or a name that is not a str.
    """
    path = operator_filename(filename)
    name = operator_name(name)
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"tensor {name!r}: expected torch.Tensor, not {type(tensor).__name__}")
    try:
        _ops._replace_tensor(path, name, [[tensor]])
    except RuntimeError as error:
        raise translate(error, filename) from None


def recover(filename: PathLike) -> bool:
    """Puts back the old bytes where a :func:`replace_tensor` of the file was killed; tensors mapped from it see that.

    Returns:
        False if there was nothing to be put back, which is nearly always.

    Raises:
        OSError, SafetensorError: as :func:`replace_tensor`.
    """
    path = operator_filename(filename)
    try:
        recovered: bool = _ops._recover(path)
    except RuntimeError as error:
        raise translate(error, filename) from None
    return recovered
