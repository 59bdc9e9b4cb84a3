"""The package on a release of torch that it has no build for.

There it has the operators on lists, from a library that keeps to torch's stable ABI. They serve the functions below, in
eager code and in graphs; everything else says which build it needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from . import _files, _graphs
from ._arguments import (
    DeviceLike,
    PathLike,
    is_dtensor,
    operator_device,
    operator_filename,
    operator_metadata,
    operator_name,
    operator_tensors,
)
from ._buffers import Buffer, as_tensor, bytes_of
from ._errors import translate
from ._library import needs_build
from ._options import check_alignment, check_flags

__all__ = ["serve"]

_ops = torch.ops.safetensors


def load_file(
    filename: PathLike, device: DeviceLike = "cpu", *, backend: str = "auto", strict_index: bool = True, **others: Any
) -> dict[str, torch.Tensor]:
    """See :func:`torch_safetensors.load_file`; with no other arguments, and of one file, which has no index."""
    check_flags(strict_index=strict_index)
    _refuse(_files.load_file, others)
    if _graphs.is_tracing():
        return _graphs.load_file(filename, device, backend=backend)
    arguments = operator_filename(filename), _readable(device), backend
    try:
        names, tensors = _ops._load_all(*arguments)
    except RuntimeError as error:
        raise translate(error, filename) from None
    return _to_dict(names, tensors, device)


def load(data: Buffer, device: DeviceLike = "cpu", *, copy: bool = True, **others: Any) -> dict[str, torch.Tensor]:
    """See :func:`torch_safetensors.load`; with no other arguments, and copies only."""
    check_flags(copy=copy)
    _refuse(_files.load, others)
    if not copy:
        raise needs_build("load(copy=False)")
    try:
        with as_tensor(data, writable=False) as tensor:
            names, tensors = _ops._load_bytes(tensor, _readable(device))
    except RuntimeError as error:
        raise translate(error) from None
    return _to_dict(names, tensors, device)


def load_tensor(
    filename: PathLike, name: str, device: DeviceLike = "cpu", *, backend: str = "auto", **others: Any
) -> torch.Tensor:
    """See :func:`torch_safetensors.load_tensor`; with no other arguments."""
    _refuse(_files.load_tensor, others)
    if _graphs.is_tracing():
        return _graphs.load_tensor(filename, name, device, backend=backend)
    arguments = operator_filename(filename), operator_name(name), _readable(device)
    try:
        tensor: torch.Tensor = _ops.load_tensor(*arguments, backend=backend)
    except RuntimeError as error:
        raise translate(error, filename) from None
    return tensor.to(operator_device(device))


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    fsync: bool = False,
    alignment: int = 0,
    **others: Any,
) -> None:
    """See :func:`torch_safetensors.save_file`; with no other arguments."""
    check_flags(fsync=fsync)
    check_alignment(alignment)
    _refuse(_files.save_file, others)
    if _graphs.is_tracing():
        _graphs.save_file(tensors, filename, metadata, fsync=fsync, alignment=alignment)
        return
    path, lists = operator_filename(filename), _lists(tensors, metadata)
    try:
        _ops.save_tensors(path, *lists, fsync=fsync, alignment=alignment)
    except RuntimeError as error:
        raise translate(error, filename) from None


def save(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None, **others: Any) -> bytes:
    """See :func:`torch_safetensors.save`; with no other arguments."""
    _refuse(_files.save, others)
    return bytes_of(_ops._save_bytes(*_lists(tensors, metadata)))


_SERVED = (load_file, load, load_tensor, save_file, save)
_WORK_ANYWHERE = ("SafetensorError", "library_path")


def serve(names: dict[str, Any], public: list[str]) -> None:
    """Puts the functions above in place of those that need a build, and what says so in place of the others.

    Args:
        names: of the package, by which its users reach them.
        public: those to look at.
    """
    served = {function.__name__: function for function in _SERVED}
    for name in public:
        if name in served:
            names[name] = served[name]
        elif callable(names[name]) and name not in _WORK_ANYWHERE:
            names[name] = _unavailable(name)
    _explain_what_is_missing(torch.ops.safetensors, "torch.ops.safetensors")
    _explain_what_is_missing(torch.classes.safetensors, "torch.classes.safetensors")


def _unavailable(name: str) -> Any:
    def unavailable(*_args: Any, **_kwargs: Any) -> Any:
        raise needs_build(name)

    unavailable.__name__ = unavailable.__qualname__ = name
    return unavailable


def _explain_what_is_missing(namespace: Any, name: str) -> None:
    """Has the namespace raise, for what is not in it, an AttributeError that says what it needs."""
    kind = type(namespace)

    def get(self: Any, attribute: str) -> Any:
        try:
            return kind.__getattr__(self, attribute)
        except (AttributeError, RuntimeError):  # of operators, of classes
            if attribute.startswith("__"):
                raise
            raise AttributeError(str(needs_build(f"{name}.{attribute}"))) from None

    namespace.__class__ = type(kind.__name__, (kind,), {"__getattr__": get})


def _refuse(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Lets pass the defaults of what the function takes where there is a build.

    Raises:
        NotImplementedError: another value, which needs one.
        TypeError: a name that it never takes; the words are Python's.
    """
    name = function.__name__
    parameters = inspect.signature(function).parameters
    for keyword, value in arguments.items():
        if keyword not in parameters:
            raise TypeError(f"{name}() got an unexpected keyword argument {keyword!r}")
        asks_nothing = value is parameters[keyword].default or (keyword == "progress" and value is False)
        if not asks_nothing:
            raise needs_build(f"{name}({keyword}=...)")


def _readable(device: DeviceLike) -> torch.device:
    """Where to read to: for another device the CPU, since torch tells more of what fails in a move from there."""
    asked = operator_device(device)
    return asked if asked.type in ("cpu", "meta") else torch.device("cpu")


def _to_dict(names: list[str], tensors: list[torch.Tensor], device: DeviceLike) -> dict[str, torch.Tensor]:
    target = operator_device(device)
    return {name: tensor.to(target) for name, tensor in zip(names, tensors, strict=True)}


def _lists(
    tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None
) -> tuple[list[str], list[torch.Tensor], list[str] | None]:
    operator_tensors(tensors)  # checks them
    for name, tensor in tensors.items():
        if tensor.is_meta:  # torch would call what stands for the operator while it traces
            raise NotImplementedError(
                f"tensor {name!r}: is on the meta device and has no data; load or initialise it first"
            )
        if is_dtensor(tensor):  # for which torch would look for a way to spread what the operator does
            raise ValueError(
                f"tensor {name!r} is a DTensor, of which this process holds a part: save it with "
                "torch_safetensors.distributed.save_file, or its full_tensor()"
            )
    pairs = operator_metadata(metadata)
    flat = None if pairs is None else [text for pair in sorted(pairs.items()) for text in pair]
    return list(tensors), list(tensors.values()), flat
