"""Load and save the parameters and buffers of modules."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from ._arguments import (
    DeviceLike,
    PathLike,
    is_dtensor,
    operator_device,
    operator_filename,
    operator_metadata,
    operator_tensors,
)
from ._errors import SafetensorError, is_out_of_memory, printable, translate
from ._gc import gc_paused
from ._memory import check_initialized, check_memory, memory_faults, state_dict_of
from ._options import check_alignment, check_backend, check_flags, check_progress
from ._progress import Progress, reporting
from ._safe_open import safe_open
from ._warnings import warn

__all__ = ["load_model", "save_model"]

_ops = torch.ops.safetensors


def load_model(
    model: torch.nn.Module,
    filename: PathLike,
    strict: bool = True,
    device: DeviceLike = "cpu",
    *,
    backend: str = "auto",
    assign: bool = False,
    verify: bool = False,
    progress: Progress = None,
    strict_index: bool = True,
) -> tuple[list[str], list[str]]:
    """Loads a checkpoint into a model's parameters and persistent buffers.

    Names and shapes are checked before anything is written: a model that is refused is unchanged. Other dtypes are
    converted as ``copy_`` does; one warning reports finite values that become infinite. The bytes are read straight
    into the model's memory where it can hold them; where a module overrides loading or has hooks, ``load_state_dict``
    does the work.

    Args:
        model: any module, scripted and compiled ones too.
        filename: a file, an index or a directory: see :func:`load_file`, of which URLs and file objects are not taken.
        strict: False forgives names that are missing or unexpected, never shapes.
        device: with ``assign``, where the new tensors shall be. Without, the model's tensors stay where they are.
        backend: see :func:`load_file`.
        assign: put the file's tensors in place of the model's, with the file's dtypes, as
            ``load_state_dict(assign=True)`` does. A model built on ``meta`` loads without a copy, and ties stay ties.
        verify: see :func:`load_file`. The file is read once more for it, before anything is written.
        progress: see :func:`load_file`; what ``verify`` reads does not count. A model that is read into in place holds
            some of the new values where a function stopped it.
        strict_index: see :func:`load_file`.

    Returns:
        The names that the file does not hold, and those that the model does not have; both sorted. Of tensors that
        share memory, one of their names in the file is enough.

    Raises:
        SafetensorError: names or shapes that do not fit (the text is that of ``load_state_dict``), a malformed file.
        ValueError: without ``assign``, a tensor on ``meta``, or one whose memory is not there (see :func:`save_file`);
            a dtype that does not convert.
        OSError: what the operating system reports.
    """
    check_backend(backend)
    check_flags(strict=strict, assign=assign, verify=verify, strict_index=strict_index)
    check_progress(progress)
    device = operator_device(device)
    # All that is checked and read is of one version of the checkpoint.
    file = safe_open(filename, device=device, backend=backend, strict_index=strict_index)
    file._require_whole()
    if verify:
        file._call("_verify")
    # Only torch's own method is sure to take an argument.
    own_names = type(model).state_dict is torch.nn.Module.state_dict
    state = state_dict_of(model, **({"keep_vars": True} if own_names else {}))
    with reporting(progress, filename):
        if not _is_plain(model, state):
            return _load_through_module(model, state, file, strict, assign)
        if assign:
            return _assign(model, state, file, strict)
        return check_or_load(_ops._load_model, model, state, file._open_file(), filename, strict)


def _verify(filename: PathLike) -> None:
    path = operator_filename(filename)
    try:
        _ops._verify(path)
    except RuntimeError as error:
        raise translate(error, filename) from None


def save_model(
    model: torch.nn.Module,
    filename: PathLike,
    metadata: Mapping[str, str] | None = None,
    force_contiguous: bool = True,
    *,
    fsync: bool = False,
    checksum: bool = False,
    alignment: int = 0,
    progress: Progress = None,
) -> None:
    """Saves a model's parameters and persistent buffers.

    Names of one tensor are written once, under the name the reference would keep, with ``dropped -> kept`` in the
    metadata. Tensors that share storage in another way (slices, overlapping views, transposed ties) are written in
    full under each name, so that :func:`load_file` has them all.

    Args:
        model: any module.
        filename: see :func:`save_file`.
        metadata: text to go with it; not changed.
        force_contiguous: False refuses tensors that are not contiguous instead of packing them.
        fsync: see :func:`save_file`.
        checksum: see :func:`save_file`.
        alignment: see :func:`save_file`.
        progress: see :func:`save_file`.

    Raises:
        ValueError: extra state that is neither None, which is left out, nor a tensor; what :func:`save_file` refuses.
        OSError: what the operating system reports.
    """
    check_flags(force_contiguous=force_contiguous, fsync=fsync, checksum=checksum)
    check_alignment(alignment)
    with reporting(progress, filename):
        warning = save_state(state_dict_of(model), filename, metadata, force_contiguous, fsync, checksum, alignment)
    if warning:
        warnings.warn(warning, stacklevel=2)


def save_state(
    state: Mapping[str, torch.Tensor],
    filename: PathLike,
    metadata: Mapping[str, str] | None,
    force_contiguous: bool,
    fsync: bool,
    checksum: bool,
    alignment: int = 0,
) -> str:
    """:func:`save_model` of a model that has this ``state_dict``. Returns what to warn of, or nothing."""
    state = without_extra_state(state)
    arguments = operator_filename(filename), *operator_tensors(state), operator_metadata(metadata)
    try:
        warning: str = _ops._save_model(*arguments, force_contiguous, fsync, checksum, alignment)
    except ValueError as error:
        if force_contiguous or "not contiguous" not in str(error):
            raise
        raise ValueError(f"{error}. Or use save_model(..., force_contiguous=True)") from None
    except RuntimeError as error:
        raise translate(error, filename) from None
    return warning


def without_extra_state(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a ``state_dict``. Extra state of None says nothing, and is left out.

    Raises:
        ValueError: extra state that is neither, which the format does not have; a tensor that is not initialized.
    """
    for name, value in state.items():
        if value is not None and not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{name!r} is extra state of type {type(value).__name__}, and the format holds tensors only; "
                "save it apart, or return a tensor from get_extra_state()"
            )
        check_initialized(name, value)
    return {name: tensor for name, tensor in state.items() if tensor is not None}


_State: TypeAlias = "dict[str, torch.Tensor]"
_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
#: What torch says of a plain tensor that shall go where a DTensor is.
_IS_SPREAD = re.compile("mixed torch.Tensor and DTensor|no attribute '_local_tensor'")
# What they return need not be memory of the module.
_METHODS = ("state_dict", "_save_to_state_dict", "get_extra_state", "set_extra_state")


def _is_plain(model: torch.nn.Module, state: _State) -> bool:
    """True if ``load_state_dict`` would do nothing but copy tensors into place."""
    modules = list(model.modules())
    return (
        type(model).load_state_dict is torch.nn.Module.load_state_dict
        and all(map(_is_plain_class, set(map(type, modules))))
        and not any(map(_has_hooks, modules))
        and all(map(_is_plain_tensor, state.values()))
    )


def _check_materialized(model: torch.nn.Module, loaded: _State, source: str) -> None:
    """Lazy modules materialize their own tensors while they load; other modules have nothing to load into."""
    for prefix, module in model.named_modules():
        if not isinstance(module, LazyModuleMixin):
            own = itertools.chain(module.named_parameters(prefix, False), module.named_buffers(prefix, False))
            for name, tensor in own:
                if name in loaded:
                    check_initialized(name, tensor, source)


def has_own_loading(model: torch.nn.Module) -> str:
    """The class of a module of the model that does more than copy tensors into place, or nothing.

    What ``torch.distributed`` hooks in after loading does not count.
    """
    for module in model.modules():
        if not _is_plain_class(type(module)) or any(map(_is_foreign, _hooks(module))):
            return type(module).__name__
    return ""


def _hooks(module: torch.nn.Module) -> Iterator[object]:
    for hooks in _HOOKS:
        yield from (getattr(module, hooks, None) or {}).values()


def _is_foreign(hook: object) -> bool:
    return not str(getattr(hook, "__module__", "")).startswith("torch.distributed.")


def _is_plain_class(cls: type[torch.nn.Module]) -> bool:
    return (
        # _NormBase only forgives files older than num_batches_tracked: see may_be_missing.
        cls._load_from_state_dict in (torch.nn.Module._load_from_state_dict, _NormBase._load_from_state_dict)
        and all(getattr(cls, method) is getattr(torch.nn.Module, method) for method in _METHODS)
    )


def _has_hooks(module: torch.nn.Module) -> bool:
    return any(True for _ in _hooks(module))


def _is_plain_tensor(tensor: object) -> bool:
    """False for subclasses that define what a copy means, and for memory that cannot be written directly."""
    return (
        isinstance(tensor, torch.Tensor)
        and (
            type(tensor) is torch.nn.Parameter  # nearly always
            or type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
        )
        and not is_lazy(tensor)
        and tensor.layout is torch.strided
    )


def may_be_missing(model: torch.nn.Module) -> list[str]:
    """Names that torch does not miss in a file without versions, which every safetensors file is."""
    return [
        f"{prefix}.num_batches_tracked" if prefix else "num_batches_tracked"
        for prefix, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _NormBase)
    ]


def check_or_load(
    operator: Callable[..., Any],
    model: torch.nn.Module,
    state: _State,
    file: Any,
    filename: PathLike,
    strict: bool,
) -> tuple[list[str], list[str]]:
    """Calls an operator with what it needs of the model. ``file``: a ``torch.classes.safetensors.SafeOpen``."""
    try:
        missing, unexpected, *warning = operator(file, type(model).__name__, dict(state), may_be_missing(model), strict)
    except RuntimeError as error:
        raise translate(error, filename) from None
    warn("".join(warning))  # of a load alone
    return missing, unexpected


def _assign(model: torch.nn.Module, state: _State, file: safe_open, strict: bool) -> tuple[list[str], list[str]]:
    filename = file._filename
    missing, unexpected = check_or_load(_ops._check_model, model, state, file._open_file(), filename, strict)
    loaded = _load_all(file)
    by_memory: dict[tuple[object, ...], torch.Tensor] = {}
    for name, old in state.items():
        if name in loaded and name not in unexpected:
            new = loaded[name]
            by_memory.setdefault(memory_of(old), new if new.shape == old.shape else new.view(old.shape))
    storages = {memory[0] for memory in by_memory}
    # By object, too: one parameter under several names stays one, several over one memory stay several.
    replacements: dict[int, torch.Tensor] = {}
    new_state: _State = {}
    for name, old in state.items():
        memory = memory_of(old)
        if memory in by_memory:
            if id(old) not in replacements:
                replacements[id(old)] = _in_place_of(old, by_memory[memory])
            new_state[name] = replacements[id(old)]
        elif name not in missing and memory[0] in storages:
            raise ValueError(
                f"{printable(filename)}: tensor {name!r}: is a view of another tensor of the model and not in the "
                "file; assign=True cannot rebuild it: load without it"
            )
    model.load_state_dict(new_state, strict=False, assign=True)
    return missing, unexpected


def _load_all(file: safe_open) -> _State:
    """As :func:`load_file`."""
    with gc_paused():
        return dict(zip(file.offset_keys(), file._call("_read_all"), strict=True))


def memory_of(tensor: torch.Tensor) -> tuple[object, ...]:
    """What names of one tensor have in common, also on meta, where nothing has an address."""
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride()


def _in_place_of(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    if not isinstance(old, torch.nn.Parameter):
        return new
    return torch.nn.Parameter(new, requires_grad=old.requires_grad)


def _load_through_module(
    model: torch.nn.Module,
    state: _State,
    file: safe_open,
    strict: bool,
    assign: bool,
) -> tuple[list[str], list[str]]:
    """For modules that have a say in loading: only they know which names and shapes they accept.

    They find out by writing, so what they may write to is saved before and put back if the model is refused.
    """
    filename = file._filename
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    on_meta = [name for name, tensor in tensors.items() if tensor.is_meta]
    if on_meta and not assign:
        raise ValueError(
            f"{printable(filename)}: tensor {on_meta[0]!r}: is on the meta device and has no memory to load into; "
            "pass assign=True, or move the module with to_empty() first"
        )
    if not assign:
        check_memory(tensors, printable(filename))
    loaded = _load_all(file)
    if not assign:
        _check_materialized(model, loaded, printable(filename))
    for name, tensor in tensors.items():
        if not assign and name in loaded and loaded[name].is_complex() and not tensor.is_complex():
            raise ValueError(
                f"{printable(filename)}: tensor {name!r}: the file holds {loaded[name].dtype}, which would lose its "
                f"imaginary part as {tensor.dtype}"
            )
    restore = _snapshot(model)
    try:
        # Overriding methods need not know `assign`.
        options = {"assign": True} if assign else {}
        result = model.load_state_dict(dict(loaded), strict=False, **options)
        # Extra state of None is not saved, and stays what it is.
        absent = [name for name in result.missing_keys if state.get(name, _NOT_THERE) is not None]
        missing, unexpected = _resolve_ties(model, file, tensors, loaded, absent, result.unexpected_keys)
        if strict and (missing or unexpected):
            raise SafetensorError(f"{printable(filename)}: {_strict_message(model, missing, unexpected)}")
    except BaseException as error:
        restore()
        spread = next((name for name, tensor in tensors.items() if is_dtensor(tensor)), None)
        if spread is not None and _IS_SPREAD.search(str(error)):
            raise ValueError(
                f"{printable(filename)}: tensor {spread!r} of the model is a DTensor, of which this process holds a "
                "part; load it with torch_safetensors.distributed.load_model"
            ) from error
        # What does not fit. All else is of the modules' own code, or of torch's when memory is short.
        if _is_misfit(error):
            raise SafetensorError(f"{printable(filename)}: {error}") from error
        raise
    if not assign:
        warn(_overflow_warning(filename, tensors, loaded))
    return missing, unexpected


def _is_misfit(error: BaseException) -> bool:
    return (
        type(error) is RuntimeError
        and str(error).startswith("Error(s) in loading state_dict for ")
        and not is_out_of_memory(error)  # which load_state_dict lists, too
    )


_NOT_THERE = object()


def _overflow_warning(filename: PathLike, tensors: _State, loaded: _State) -> str:
    """What to warn of where the model has converted values as ``copy_`` does. It may do something else with them."""
    overflows = torch.classes.safetensors._Overflows()
    for name, tensor in tensors.items():
        new = loaded.get(name)
        if new is None or new.dtype == tensor.dtype or new.shape != tensor.shape or not _is_plain_tensor(tensor):
            continue
        one = torch.classes.safetensors._Overflows()
        one.add(name, new, tensor.dtype)
        if one.warning("") and torch.equal(*(_numbers(values) for values in (new.to(tensor), tensor))):
            overflows.add(name, new, tensor.dtype)
    text: str = overflows.warning(printable(filename))
    return text


def _numbers(values: torch.Tensor) -> torch.Tensor:
    return values.detach().double().nan_to_num()


def _snapshot(model: torch.nn.Module) -> Callable[[], None]:
    """What puts a model back: the tensors' values, and which tensors its modules hold.

    Buffers that are not persistent are among them: hooks that run after loading may compute them anew.
    """
    current = [tensor for tensor in itertools.chain(model.parameters(), model.buffers()) if not is_lazy(tensor)]
    values = [
        (tensor, tensor.detach().clone())
        for tensor, fault in zip(current, memory_faults(current), strict=True)
        if not fault  # else it has no values
    ]
    members: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (members, dict(members))
        for module in model.modules()
        for members in (module._parameters, module._buffers)
        if isinstance(members, dict)
    ]

    def restore() -> None:
        for current, old in members:
            current.clear()
            current.update(old)
        with torch.no_grad():
            for tensor, value in values:
                # What refuses to be written back (expanded, of inference mode) was not written before, either.
                with contextlib.suppress(RuntimeError):
                    tensor.copy_(value)

    return restore


def _resolve_ties(
    model: torch.nn.Module,
    file: safe_open,
    tensors: _State,
    loaded: _State,
    missing: list[str],
    unexpected: list[str],
) -> tuple[list[str], list[str]]:
    """Takes from the missing names those whose memory another name of the file has filled.

    Adds to the unexpected ones those whose bytes are lost, since another name of that memory holds others.
    """
    state = {
        name: tensor
        for name, tensor in tensors.items()
        if name in missing or (name in loaded and not is_lazy(tensor) and loaded[name].shape == tensor.shape)
    }
    if not all(map(_is_plain_tensor, state.values())):
        return sorted(missing), sorted(unexpected)
    arguments = model, state, file._open_file(), file._filename, False
    really_missing, not_used = check_or_load(_ops._check_model, *arguments)
    return (
        sorted({*really_missing, *(name for name in missing if name not in tensors)}),
        sorted({*unexpected, *(name for name in not_used if name in state)}),
    )


def _strict_message(model: torch.nn.Module, missing: list[str], unexpected: list[str]) -> str:
    """As torch and the reference word it."""
    text = f"Error(s) in loading state_dict for {type(model).__name__}:"
    for what, names in ("Missing", missing), ("Unexpected", unexpected):
        if names:
            listed = ", ".join(f'"{name}"' for name in names)
            text += f"\n    {what} key(s) in state_dict: {listed}"
    return text
