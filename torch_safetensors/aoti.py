"""AOTInductor packages whose weights live in a safetensors file: one package, many fine-tunes.

>>> program = torch.export.export(model, example_inputs)
>>> aoti.package(program, "model.pt2", weights="model.safetensors")
>>> model = aoti.load("model.pt2", "model.safetensors")
>>> model(*inputs)
>>> model.swap("fine-tuned.safetensors")

In C++ ``torch_safetensors/packages.h`` loads and swaps the same files, without Python.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from . import _torch_private
from ._arguments import CHECKSUMS, DeviceLike, PathLike, operator_device, operator_filename
from ._errors import SafetensorError, printable, translate
from ._files import save
from ._library import needs_build, uses_stable_abi
from ._listing import list_tensors
from ._memory import check_memory
from ._models import memory_of, save_state
from ._options import check_backend, check_flags, checked_count
from ._safe_open import safe_open

__all__ = ["Model", "load", "package", "swap"]

if uses_stable_abi:
    raise ImportError(needs_build("torch_safetensors.aoti"))

#: Where a package's metadata has what csrc/packages/record.h reads.
_WEIGHTS = "torch_safetensors.weights"
_CONSTANTS = "torch_safetensors.constants"


def package(
    program: torch.export.ExportedProgram,
    package_path: PathLike,
    *,
    weights: PathLike,
    write_weights: bool = True,
    digest: bool = False,
    inductor_configs: Mapping[str, Any] | None = None,
) -> None:
    """Compiles a program into a package without its parameters and buffers, which go to a file of their own.

    What has no name in the program's ``state_dict`` (constants, buffers that are not persistent) stays in the package.

    Args:
        program: from ``torch.export.export``.
        package_path: the ``.pt2`` to write.
        weights: the safetensors file to write, as :func:`save_model` would, or to use as it is.
        write_weights: False leaves ``weights`` as it is. It must have every parameter and buffer that the compiled code
            reads, under its name or that of a tie, with its dtype and shape; other tensors in it are allowed for.
        digest: records checksums, so that :func:`load` can refuse all other values (``strict_digest``).
        inductor_configs: as for ``torch._inductor.aoti_compile_and_package``.

    Raises:
        SafetensorError: with ``write_weights=False``: ``weights`` is not of this program or has no checksums to record.
        ValueError: a tensor that cannot be saved.
        OSError: what the operating system reports.
    """
    check_flags(write_weights=write_weights, digest=digest)
    if inductor_configs is not None and not isinstance(inductor_configs, Mapping):
        raise TypeError(f"inductor_configs: expected a mapping or None, not {type(inductor_configs).__name__}")
    path = _package_path(package_path)
    operator_filename(weights)  # raises what it is not
    held = {**program.state_dict, **program.constants}
    check_memory({name: value for name, value in held.items() if isinstance(value, torch.Tensor)})
    files, constants = _torch_private.compile_without_weights(program, inductor_configs or {})
    if write_weights:
        warning = save_state(program.state_dict, weights, None, True, False, digest)
        if warning:
            warnings.warn(warning, stacklevel=2)
    named = {name: tensor for name, tensor in constants.items() if name in program.state_dict}
    inside = {name: tensor.detach().cpu() for name, tensor in constants.items() if name not in named}
    record = {
        _WEIGHTS: _record(named, program.state_dict, weights, digest=digest),
        _CONSTANTS: save({name: tensor.clone() for name, tensor in inside.items()}).hex(),
    }
    with tempfile.TemporaryDirectory() as folder:
        _torch_private.write_package(path, [_with_metadata(file, record, folder) for file in files])


def load(
    package_path: PathLike,
    weights: PathLike,
    device: DeviceLike = None,
    *,
    strict: bool = True,
    strict_digest: bool = False,
    backend: str = "auto",
    runners: int = 1,
) -> Model:
    """A package from :func:`package` with weights, ready to be called.

    Args:
        package_path: the ``.pt2``.
        weights: a safetensors file with the tensors that the package needs. On the CPU they are mapped, not copied.
        device: of the kind that it was compiled for, and which one of them; None for the current one.
        strict: False accepts tensors in the file that the package does not know.
        strict_digest: True refuses other values than those it was made with (which needs ``digest=True`` there).
        backend: see :func:`load_file`.
        runners: how many threads can run it at once; others wait.

    Raises:
        SafetensorError: the package was not made by :func:`package`, or the file has not the weights it needs; all that
            is missing, unexpected or different is listed.
        OSError: what the operating system reports.
        ValueError: another kind of device than the package was compiled for.
        RuntimeError: what torch reports of the package.
    """
    check_backend(backend)
    check_flags(strict=strict, strict_digest=strict_digest)
    asked = None if device is None else operator_device(device)
    index = -1 if asked is None or asked.index is None else asked.index
    count = checked_count("runners", runners)
    if count is None:
        raise TypeError("runners: expected int, not NoneType")
    arguments = _package_path(package_path), operator_filename(weights), index, count
    try:
        model = torch.classes.safetensors._Package(*arguments, strict, strict_digest, backend)
    except RuntimeError as error:
        raise _translate(error, weights) from None
    compiled_for: torch.device = model.device()
    if asked is not None and asked.type != compiled_for.type:
        raise ValueError(
            f"device: {asked} was asked for, but {os.fspath(package_path)} was compiled for {compiled_for.type}"
        )
    return Model(model)


def swap(
    model: Model,
    weights: PathLike,
    *,
    strict: bool = True,
    strict_digest: bool = False,
    backend: str = "auto",
    in_place: bool = False,
) -> None:
    """See :meth:`Model.swap`."""
    model.swap(weights, strict=strict, strict_digest=strict_digest, backend=backend, in_place=in_place)


class Model:
    """A compiled model and its weights, from :func:`load`. Threads may call it, and swap its weights meanwhile."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._in_spec, self._out_spec = model.call_spec()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs it, with the arguments of the module that was exported."""
        tensors = self._model.run(_torch_private.flatten_call(self._in_spec, args, kwargs))
        return _torch_private.unflatten_result(self._out_spec, tensors)

    def swap(
        self,
        weights: PathLike,
        *,
        strict: bool = True,
        strict_digest: bool = False,
        backend: str = "auto",
        in_place: bool = False,
    ) -> None:
        """Puts other weights in place between two calls.

        A call sees wholly the old or wholly the new ones; those that begin wait for those that have begun. The file is
        checked first, as by :func:`load`; if anything fails, the old weights stay in service.

        Args:
            weights: see :func:`load`.
            strict: see :func:`load`.
            strict_digest: see :func:`load`.
            backend: see :func:`load`.
            in_place: weights that are copies (on devices, or with ``backend="pread"``) are overwritten one by one,
                while calls wait, instead of loaded beside the old ones, for which there may be no memory. If reading
                fails in the middle of it, the old ones are read again, and only if this fails, too, calls raise.
        """
        check_backend(backend)
        check_flags(strict=strict, strict_digest=strict_digest, in_place=in_place)
        try:
            self._model.swap(operator_filename(weights), strict, strict_digest, backend, in_place)
        except RuntimeError as error:
            raise _translate(error, weights) from None


def _record(
    named: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], weights: PathLike, *, digest: bool
) -> str:
    """The header of the file, with the names of ties that it does not tell of; checked against what is needed."""
    with safe_open(weights) as file:
        metadata = file.metadata() or {}
        header = _header(file)
        present = {name: file._call("_get_meta", name) for name in header}
    if digest and CHECKSUMS not in metadata:
        raise SafetensorError(f"{printable(weights)}: no checksums to record: save it with checksum=True")
    tied: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in state.items():
        tied.setdefault(memory_of(tensor), []).append(name)
    wrong = []
    for name, tensor in named.items():
        names = tied[memory_of(state[name])]
        kept = next((other for other in (name, metadata.get(name), *names) if other in present), None)
        if kept is None:
            wrong.append(f"missing {name!r}")
            continue
        found, needed = (f"{one.dtype} {list(one.shape)}" for one in (present[kept], tensor))
        if found != needed:
            wrong.append(f"different {name!r}: the program needs {needed}, the file has {found}")
        metadata |= {other: kept for other in names if other not in present}
    if wrong:
        raise SafetensorError("\n  ".join([f"{printable(weights)}: these are not weights of this program:", *wrong]))
    return json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False)


def _header(file: safe_open) -> dict[str, dict[str, Any]]:
    """The entries of a file that holds these tensors, in this order."""
    header = {}
    end = 0
    for tensor in list_tensors(file).tensors:
        begin, end = end, end + tensor.nbytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
    return header


def _package_path(path: PathLike) -> str:
    """The path of a package, of any name that the operating system allows."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"package_path: expected str or os.PathLike, not {type(path).__name__}")
    return os.fspath(path)


def _with_metadata(file: str, record: Mapping[str, str], folder: str) -> str:
    """The file of a package; a copy of it with the record, where it is metadata: of several, torch reads any."""
    if not file.endswith("_metadata.json"):
        return file
    copy = Path(folder, Path(file).name)
    copy.write_text(json.dumps({**json.loads(Path(file).read_text()), **record}))
    return str(copy)


def _translate(error: RuntimeError, weights: PathLike) -> Exception:
    if type(error) is RuntimeError and str(error).startswith("package: "):
        return SafetensorError(str(error))
    return translate(error, weights)
