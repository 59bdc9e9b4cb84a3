"""``torch-safetensors convert``: from torch's own files to safetensors, and back."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .._errors import printable
from .._files import load_file
from .._iterate import Conversion
from .._models import memory_of, save_state
from .._progress import reporting
from .._safe_open import safe_open
from ._checksums import KEPT, add_checksum
from ._copy import copy_tensors, report, say
from ._errors import CommandError
from ._output import add_force, check_new
from ._pickled import load_state, save_pickled
from ._progress import is_watched

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "convert .pt, .pth and .bin files to safetensors, and back"
EPILOG = f"""\
The suffixes say which way: .pt, .pth, .bin and .ckpt are torch's, everything else is a safetensors file, an
index or a directory. Torch's files are loaded with weights_only=True: no code in them is run. Names of
one tensor (ties) are written once, and come back as ties; tensors that are not contiguous are packed. A
checkpoint with more than its tensors is taken apart where only one entry holds tensors; what is left out is
told.
{KEPT}
examples:
  torch-safetensors convert pytorch_model.bin model.safetensors
  torch-safetensors convert checkpoint.pt model.safetensors --key ema_state_dict --dtype bf16
  torch-safetensors convert model.safetensors model.pt
"""

_PICKLED = (".pt", ".pth", ".bin", ".ckpt")
_DTYPES = {
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f32": torch.float32,
    "f64": torch.float64,
    "f8_e4m3": torch.float8_e4m3fn,
    "f8_e5m2": torch.float8_e5m2,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("source", metavar="SRC", help="what to convert")
    parser.add_argument("target", metavar="DST", help="the file to write")
    parser.add_argument("--dtype", choices=_DTYPES, help="convert floating-point tensors to this dtype")
    parser.add_argument("--key", help="the entry of SRC that holds the tensors")
    add_checksum(parser)
    add_force(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the file."""
    check_new(options.target, options.force)
    dtype = _DTYPES[options.dtype] if options.dtype else None
    from_pickled, to_pickled = _is_pickled(options.source), _is_pickled(options.target)
    if from_pickled and to_pickled:
        raise CommandError(f"{printable(options.target)}: both are torch's files; one has to be a safetensors file")
    if options.key is not None and not from_pickled:
        raise CommandError(f"--key: {printable(options.source)} is not one of torch's files, and has no entries")
    if options.checksum and to_pickled:
        raise CommandError(f"--checksum: {printable(options.target)} is one of torch's files, which record none")
    if from_pickled:
        _from_pickled(options, dtype)
    elif to_pickled:
        _to_pickled(options.source, options.target, dtype)
    else:
        _to_safetensors(options, dtype)
    return 0


def _is_pickled(path: str) -> bool:
    return Path(path).suffix.lower() in _PICKLED


def _from_pickled(options: argparse.Namespace, dtype: torch.dtype | None) -> None:
    state, chosen = load_state(options.source, options.key)
    say(chosen)
    state = _all_converted(options.source, state, dtype)
    with reporting(is_watched(), options.target):
        warning = save_state(state, options.target, {"format": "pt"}, True, False, options.checksum)
    say(warning)
    say(_dropped(state, options.target))
    report(options.target, *_size(load_file(options.target, "meta")))


def _to_pickled(source: str, target: str, dtype: torch.dtype | None) -> None:
    with safe_open(source) as handle:
        metadata = handle.metadata() or {}
        handle._call("_verify_recorded")
        state = _all_converted(source, handle.get_tensors(), dtype)
    ties = {name: kept for name, kept in metadata.items() if kept in state and name not in state}
    state |= {name: state[kept] for name, kept in ties.items()}
    save_pickled(state, target)
    report(target, *_size(state))


def _to_safetensors(options: argparse.Namespace, dtype: torch.dtype | None) -> None:
    with safe_open(options.source) as handle:
        names, metadata = handle.offset_keys(), handle.metadata()
    same = dict(zip(names, names, strict=True))
    copy_tensors(options.source, same, options.target, metadata, checksum=options.checksum, dtype=dtype)


def _all_converted(source: str, state: dict[str, torch.Tensor], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """The tensors in another dtype; what was one tensor stays one."""
    conversion = Conversion(source, dtype)
    done: dict[object, torch.Tensor] = {}
    for name, tensor in state.items():
        if memory_of(tensor) not in done:
            done[memory_of(tensor)] = conversion.convert(name, tensor)
    say(conversion.warning())
    return {name: done[memory_of(tensor)] for name, tensor in state.items()}


def _dropped(state: dict[str, torch.Tensor], target: str) -> str:
    with safe_open(target) as handle:
        ties = {name: kept for name, kept in (handle.metadata() or {}).items() if name in state and name not in handle}
    listed = ", ".join(f"{name!r} is {kept!r}" for name, kept in sorted(ties.items()))
    return f"{printable(target)}: ties, written once: {listed}" if ties else ""


def _size(state: dict[str, torch.Tensor]) -> tuple[int, int]:
    return len(state), sum({memory_of(tensor): tensor.nbytes for tensor in state.values()}.values())
