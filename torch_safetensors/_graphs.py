"""The operators in graphs: fake kernels, effects, and what Dynamo traces in place of the bare operators.

A graph has the dtypes and shapes of loaded tensors compiled in, and nothing in torch checks them again when it runs.
So every load that gets into a graph carries ``expect``, what the file's header said when it was traced, and raises on
a file that differs. docs/limits.md says what cannot be traced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from . import _torch_private
from ._arguments import (
    DeviceLike,
    PathLike,
    operator_device,
    operator_filename,
    operator_metadata,
)
from ._inductor_order import keep_order_in_inductor
from ._iterate import is_converted
from ._selection import DeviceMap, Names, Rename, select
from ._torch_private import constant_while_compiling, outside_of_graphs, outside_of_modes

_ops = torch.ops.safetensors


def is_tracing() -> bool:
    """True where the Python functions must call operators that a graph can hold.

    ``torch.compiler.is_compiling()`` is also true while another thread compiles.

    Raises:
        RuntimeError: there, on a release of torch that lacks what this needs.
    """
    traced = torch.compiler.is_dynamo_compiling() or _torch_private.in_tracing_mode()
    if traced and _torch_private.missing_for_graphs is not None:
        raise RuntimeError(_torch_private.missing_for_graphs)
    return traced


_NOT_HELD = (
    "a graph cannot hold threads, ring_size or progress: leave them out (TORCH_SAFETENSORS_THREADS and "
    "TORCH_SAFETENSORS_RING_SIZE count in graphs, too), or load and save outside of the graph"
)


def must_leave(*options: object) -> bool:
    """True where one of these options is given, which a graph cannot hold and would lose.

    Code that Dynamo traces then leaves the graph for the call: :func:`call_outside`. Fake tensors alone are not read.

    Raises:
        ValueError: what traces cannot leave.
    """
    if all(option is None or option is False for option in options):
        return False
    if torch.compiler.is_dynamo_compiling():
        return True
    if _torch_private.is_being_traced() or _torch_private.is_recorded():
        raise ValueError(_NOT_HELD)
    return False


@outside_of_graphs(_NOT_HELD)
def call_outside(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls it outside of the graph; a full graph is refused."""
    return function(*args, **kwargs)


@constant_while_compiling
def _path(filename: PathLike) -> str:
    return operator_filename(filename)


@constant_while_compiling
def _signatures(path: str, strict_index: bool = True) -> tuple[list[str], list[str]]:
    with outside_of_modes():
        names, signatures = _ops._signatures(path, strict_index=strict_index)
    return names, signatures


@constant_while_compiling
def _signatures_of(path: str, names: list[str]) -> list[str]:
    with outside_of_modes():
        signatures: list[str] = _ops._signatures_of(path, names)
    return signatures


@constant_while_compiling
def _stored_names(path: str, whole: bool, strict_index: bool) -> list[str]:
    """The names that a selection is made from; unless all are loaded, files of others need not be there."""
    if whole:
        return _signatures(path, strict_index)[0]
    with outside_of_modes():
        names: list[str] = _ops._names(path)
    return names


@constant_while_compiling
def _flat_metadata(metadata: Mapping[str, str] | None) -> list[str] | None:
    checked = operator_metadata(metadata)
    if checked is None:
        return None
    return [text for pair in sorted(checked.items()) for text in pair]


def load_file(
    filename: PathLike,
    device: DeviceLike = "cpu",
    *,
    backend: str = "auto",
    verify: bool = False,
    strict_index: bool = True,
) -> dict[str, torch.Tensor]:
    path = _path(filename)
    names, expect = _signatures(path, strict_index)
    tensors = _ops.load_tensors(
        path,
        names,
        operator_device(device),
        backend=backend,
        expect=expect,
        exact=True,
        verify=verify,
        strict_index=strict_index,
    )
    return dict(zip(names, tensors, strict=True))


def load_selected(
    filename: PathLike,
    device: DeviceLike | DeviceMap,
    names: Names | None,
    dtype: torch.dtype | None,
    rename: Rename | None,
    backend: str,
    verify: bool,
    strict_index: bool,
) -> dict[str, torch.Tensor]:
    """As _iterate.load_selected; what is chosen becomes constant, with the names and shapes."""
    path = _path(filename)
    stored = _stored_names(path, names is None, strict_index)
    selection = select(filename, stored, device, names, rename)
    # By one operator, which sees one version of the checkpoint, whichever device each tensor goes to.
    devices = list(selection.by_device())
    tensors = _ops.load_tensors(
        path,
        selection.names,
        devices[0] if len(devices) == 1 else torch.device("cpu"),
        backend=backend,
        expect=_signatures_of(path, selection.names),
        exact=names is None,
        verify=verify,
        strict_index=strict_index,
    )
    loaded = {
        name: tensor if len(devices) == 1 else tensor.to(where)
        for name, tensor, where in zip(selection.names, tensors, selection.devices, strict=True)
    }
    return {
        new: loaded[name].to(dtype) if is_converted(loaded[name].dtype, dtype) else loaded[name]
        for name, new in zip(selection.names, selection.new_names, strict=True)
    }


def load_tensor(
    filename: PathLike,
    name: str,
    device: DeviceLike = "cpu",
    *,
    backend: str = "auto",
    expect: str | None = None,
    verify: bool = False,
) -> torch.Tensor:
    path = _path(filename)
    if expect is None:
        expect = _signatures_of(path, [name])[0]
    tensor: torch.Tensor = _ops.load_tensor(
        path, name, operator_device(device), backend=backend, expect=expect, verify=verify
    )
    return tensor


def load_tensors(
    filename: str,
    names: list[str],
    device: DeviceLike = "cpu",
    *,
    backend: str = "auto",
    expect: list[str] | None = None,
    exact: bool = False,
    verify: bool = False,
    strict_index: bool = True,
) -> list[torch.Tensor]:
    if expect is None:
        expect = _signatures_of(filename, names)
    tensors: list[torch.Tensor] = _ops.load_tensors(
        filename,
        names,
        operator_device(device),
        backend=backend,
        expect=expect,
        exact=exact,
        verify=verify,
        strict_index=strict_index,
    )
    return tensors


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    fsync: bool = False,
    checksum: bool = False,
    alignment: int | None = None,
) -> None:
    _ops.save_tensors(
        _path(filename),
        list(tensors.keys()),
        list(tensors.values()),
        None if metadata is None else _flat_metadata(metadata),
        fsync=fsync,
        checksum=checksum,
        alignment=alignment,
    )


def keys(filename: str, *, strict_index: bool = True) -> list[str]:
    return _signatures(filename, strict_index)[0]


@constant_while_compiling
def _metadata(filename: str) -> list[tuple[str, str]]:
    with outside_of_modes():
        return list(_ops.metadata(filename).items())


def metadata(filename: str) -> dict[str, str]:
    return dict(_metadata(filename))


def _fake_load_tensors(
    filename: str,
    names: list[str],
    device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    *,
    backend: str = "auto",
    expect: list[str] | None = None,
    exact: bool = False,
    verify: bool = False,
    strict_index: bool = True,
) -> list[torch.Tensor]:
    if expect is None and _torch_private.is_being_traced():
        raise _untraceable("load_tensors")
    options = {"backend": backend, "expect": expect, "exact": exact, "strict_index": strict_index}
    with outside_of_modes():
        tensors = _ops.load_tensors(filename, names, torch.device("meta"), **options)
    return [torch.empty(tensor.shape, dtype=tensor.dtype, device=device) for tensor in tensors]


def _fake_load_tensor(
    filename: str,
    name: str,
    device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    *,
    backend: str = "auto",
    expect: str | None = None,
    verify: bool = False,
) -> torch.Tensor:
    expectations = None if expect is None else [expect]
    return _fake_load_tensors(filename, [name], device, backend=backend, expect=expectations)[0]


def _fake_load_file(
    filename: str,
    device: torch.device = torch.device("cpu"),  # noqa: B008 (immutable)
    *,
    backend: str = "auto",
    verify: bool = False,
    strict_index: bool = True,
) -> dict[str, torch.Tensor]:
    if _torch_private.is_being_traced():
        raise _untraceable("load_file")
    names = keys(filename, strict_index=strict_index)
    return dict(zip(names, _fake_load_tensors(filename, names, device, backend=backend), strict=True))


def _leaves_the_graph(name: str, reason: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise _torch_private.DependsOnData(
            getattr(_ops, name).default, f"safetensors::{name} cannot be traced: {reason}"
        )

    return refuse


def _fake_save(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, *, checksum: bool = False
) -> torch.Tensor:
    shapes = {name: [int(size) for size in tensor.shape] for name, tensor in tensors.items()}
    with outside_of_modes():
        empty = {name: torch.empty(shapes[name], dtype=tensor.dtype, device="meta") for name, tensor in tensors.items()}
        size = _ops._saved_size(empty, metadata, checksum)
    return torch.empty(size, dtype=torch.uint8, device="cpu")


# torch also calls fake kernels for real tensors on meta, in eager code. What eager code refuses must not become a
# call that does nothing. A fake tensor's device is that of the tensor it stands for.


def _fake_save_tensors(_filename: str, names: list[str], tensors: list[torch.Tensor], *_: Any, **__: Any) -> None:
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.device.type == "meta":
            raise NotImplementedError(
                f"tensor {name!r}: is on the meta device and has no data; load or initialise it first"
            )


def _fake_save_file(tensors: dict[str, torch.Tensor], filename: str, *_: Any, **__: Any) -> None:
    _fake_save_tensors(filename, list(tensors), list(tensors.values()))


def _fake_load_into(filename: str, name: str, out: torch.Tensor, *, offsets: list[int] | None = None) -> None:
    """Checks neither shape nor ``offsets``: the file may be another one when the graph runs, which checks them."""
    if out.device.type == "meta":
        raise ValueError(f"{filename}: tensor {name!r}: is on the meta device and has no memory to load into")


def _fake_prefetch(filename: str, names: list[str]) -> None:
    """Reads nothing ahead while it is traced, and checks nothing: the loads do."""


def _fake_keys(filename: str, *, strict_index: bool = True) -> list[str]:
    if _torch_private.is_being_traced():
        raise _untraceable("keys")
    return keys(filename, strict_index=strict_index)


def _fake_metadata(filename: str) -> dict[str, str]:
    if _torch_private.is_being_traced():
        raise _untraceable("metadata")
    return metadata(filename)


_DEPENDS_ON_DATA = "what it returns depends on the data. Load outside of the graph, or from a file with load_file"
_EAGER_ONLY = "models are loaded and saved by eager code. Call it outside of the graph"

_FOR_EAGER_CODE = (
    "_check_parts",
    "_check_savable",
    "_dropped_names",
    "_header_size",
    "_parse_index",
    "_recover",
    "_remove_dead_files",
    "_replace_tensor",
    "_save_bytes",
    "_save_file",
    "_save_small",
    "_write_file",
    "_write_ranges",
)

_FAKES: dict[str, Callable[..., Any]] = {
    "load_file": _fake_load_file,
    "load": _leaves_the_graph("load", _DEPENDS_ON_DATA),
    "_load": _leaves_the_graph("_load", _DEPENDS_ON_DATA),
    "_load_bytes": _leaves_the_graph("_load_bytes", _DEPENDS_ON_DATA),
    "_load_all": _leaves_the_graph("_load_all", "it checks nothing when it runs"),
    "_load_file": _leaves_the_graph("_load_file", "it checks nothing when it runs"),
    "_load_model": _leaves_the_graph("_load_model", _EAGER_ONLY),
    "_check_model": _leaves_the_graph("_check_model", _EAGER_ONLY),
    "_save_model": _leaves_the_graph("_save_model", _EAGER_ONLY),
    "_verify": _leaves_the_graph("_verify", _EAGER_ONLY),
    # Without one of their own, torch would run the real kernels on tensors that have no memory.
    **{name: _leaves_the_graph(name, "it is for eager code") for name in _FOR_EAGER_CODE},
    "load_tensor": _fake_load_tensor,
    "load_tensors": _fake_load_tensors,
    "load_into": _fake_load_into,
    "prefetch": _fake_prefetch,
    "save": _fake_save,
    "save_file": _fake_save_file,
    "save_tensors": _fake_save_tensors,
    "keys": _fake_keys,
    "metadata": _fake_metadata,
}

_EFFECTFUL = ("load_file", "load_tensor", "load_tensors", "prefetch", "save", "save_file", "save_tensors")


def _trace_load_tensor(
    trace: Callable[..., torch.Tensor],
    filename: str,
    name: str,
    *args: Any,
    expect: str | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    if expect is None:
        expect = _signatures_of(filename, [name])[0]
    return trace(filename, name, *args, expect=expect, **kwargs)


def _trace_load_tensors(
    trace: Callable[..., list[torch.Tensor]],
    filename: str,
    names: list[str],
    *args: Any,
    expect: list[str] | None = None,
    **kwargs: Any,
) -> list[torch.Tensor]:
    if expect is None:
        expect = _signatures_of(filename, names)
    return trace(filename, names, *args, expect=expect, **kwargs)


def _trace_load_file(_trace: object, *_args: Any, **_kwargs: Any) -> Any:
    raise _untraceable("load_file")


def _untraceable(name: str) -> RuntimeError:
    return RuntimeError(
        f"torch.ops.safetensors.{name} cannot be traced here, since nothing would check the file when the graph runs: "
        "call torch_safetensors.load_file or load_tensor, which can, or trace with Dynamo (torch.compile, or "
        "torch.export with strict=True)"
    )


_TRACING_RULES: dict[str, Callable[..., Any]] = {
    "load_tensor": _trace_load_tensor,
    "load_tensors": _trace_load_tensors,
    "load_file": _trace_load_file,
    "keys": lambda _trace, filename, **options: keys(filename, **options),
    "metadata": lambda _trace, filename: metadata(filename),
}


def register() -> None:
    """Tells torch all of the above; called once, when the package is imported."""
    lacking = _torch_private.missing_for_graphs
    if lacking is not None:
        _register_fakes(lambda fake: _refuses_to_be_traced(fake, lacking))
        return
    for name in filter(_is_there, _EFFECTFUL):
        _torch_private.register_ordered_effect(f"safetensors::{name}")
    ordered = [getattr(_ops, name).default for name in (*_EFFECTFUL, "load_into") if _is_there(name)]
    keeps_order = keep_order_in_inductor(ordered)
    # Inductor, too, runs the fake kernels of a graph, before it orders anything.
    _register_fakes(lambda fake: _first(keeps_order, fake))
    for name in filter(_is_there, _TRACING_RULES):
        _torch_private.register_tracing_rule(f"safetensors::{name}", _TRACING_RULES[name])
    inlined: dict[str, Callable[..., Any]] = {
        "load_file": load_file,
        "load_tensor": load_tensor,
        "load_tensors": load_tensors,
        "save_file": save_file,
        "keys": keys,
        "metadata": metadata,
    }
    _torch_private.inline_in_dynamo(
        {
            operator: function
            for name, function in inlined.items()
            if _is_there(name)
            for operator in (getattr(_ops, name), getattr(_ops, name).default)
        }
    )


def _register_fakes(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    for name in filter(_is_there, _FAKES):
        torch.library.register_fake(f"safetensors::{name}", wrap(_FAKES[name]))


def _first(action: Callable[[], None], fake: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fake)
    def both(*args: Any, **kwargs: Any) -> Any:
        action()
        return fake(*args, **kwargs)

    return both


def _refuses_to_be_traced(fake: Callable[..., Any], reason: str) -> Callable[..., Any]:
    """For real tensors on meta it stays what it is."""

    @functools.wraps(fake)
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or _torch_private.in_tracing_mode():
            raise RuntimeError(reason)
        return fake(*args, **kwargs)

    return refuse


def _is_there(name: str) -> bool:
    """False where another version of the library was loaded before, or the one of the stable ABI serves."""
    return hasattr(_ops, name)
