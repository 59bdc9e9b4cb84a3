"""What tests of files share: files made by hand, tensors made at random, and every way to load."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import torch_safetensors

#: What torch has of the format, in the order of the format's list: later ones come first in a file.
DTYPES = {
    "BOOL": torch.bool,
    "F4": torch.float4_e2m1fn_x2,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}

BACKENDS = ["mmap", "pread"]


def make_file(header: Any, data: bytes = b"") -> bytes:
    """A file; a header that is not bytes or str yet is written as JSON."""
    if not isinstance(header, (bytes, str)):
        header = json.dumps(header, separators=(",", ":"))
    if isinstance(header, str):
        header = header.encode()
    return len(header).to_bytes(8, "little") + header + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def random_tensor(rng: random.Random, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Any bits, NaNs of every kind included."""
    size = torch.Size(shape).numel() * dtype.itemsize
    raw = bytes(rng.choices(range(2), k=size)) if dtype is torch.bool else rng.randbytes(size)
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype).view(shape)


def random_shape(rng: random.Random, *, min_dim: int = 0) -> tuple[int, ...]:
    return tuple(rng.choices(range(4), weights=[1, 4, 6, 6], k=rng.randint(min_dim, 5)))


def random_tensors(seed: int, count: int = 12) -> dict[str, Tensor]:
    rng = random.Random(seed)
    alphabet = "ab.z_0\"\\/'\0\x01\n\t\x1f\x7f\x80é漢🦙\u2028"
    tensors = {}
    for _ in range(count):
        name = "".join(rng.choices(alphabet, k=rng.randint(0, 12)))
        dtype = rng.choice(list(DTYPES.values()))
        # A single F4 does not fill a byte.
        shape = random_shape(rng, min_dim=dtype is torch.float4_e2m1fn_x2)
        tensors[name] = random_tensor(rng, dtype, shape)
    return tensors


def positions(path: Path) -> dict[str, tuple[int, int]]:
    """Of each tensor of a file, in the order of the data: where it begins in the file, and its size. In bytes."""
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    header.pop("__metadata__", None)
    offsets = {name: entry["data_offsets"] for name, entry in header.items()}
    return {name: (data + begin, end - begin) for name, (begin, end) in offsets.items()}


def power_of_two(size: int, most: int) -> int:
    """The largest one that divides ``size``, but no larger than ``most``, which is one."""
    return next(most >> shift for shift in range(64) if size % (most >> shift) == 0)


def assert_aligned(path: Path, alignment: int) -> None:
    """The data, every tensor in the file, and every tensor that is mapped."""
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % alignment == 0
    mapped = torch_safetensors.load_file(path, backend="mmap")
    for name, (position, size) in positions(path).items():
        assert position % power_of_two(size, alignment) == 0, name
        assert mapped[name].data_ptr() % power_of_two(size, alignment) == 0, name


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def descriptors() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that iterates
            links.append(f"{entry.name} {entry.readlink()}")
    return sorted(links)


def run_in_process(function: Callable[..., None], *arguments: Any, expected: int = 0) -> str:
    """Calls a function of a test module in a process of its own, whose death or hang is a failure like any other.

    Arguments are paths, numbers and strings. The exit status must be the expected one; returns what was printed.
    """
    module = Path(function.__code__.co_filename)
    paths = [str(module.parent), str(Path(torch_safetensors.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    code = f"from pathlib import PosixPath; import {module.stem} as tests; tests.{function.__name__}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == expected, printed
    return printed


def bits(tensor: Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    dense = tensor.contiguous()
    flat = dense.as_strided((dense.numel(),), (1,))  # dimensions of one element may have any stride
    return flat.view(torch.uint8).numpy().tobytes()


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, dtypes, shapes and bits."""
    assert sorted(actual) == sorted(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert actual[name].shape == tensor.shape, name
        assert bits(actual[name]) == bits(tensor), name


def _load_tensor(path: Path, backend: str) -> dict[str, Tensor]:
    names = torch_safetensors.safe_open(path).offset_keys()
    return {name: torch_safetensors.load_tensor(path, name, backend=backend) for name in names}


def _get_tensor(path: Path, backend: str) -> dict[str, Tensor]:
    with torch_safetensors.safe_open(path, backend=backend) as file:
        return {name: file.get_tensor(name) for name in file.offset_keys()}


def _get_tensors(path: Path, backend: str) -> dict[str, Tensor]:
    return torch_safetensors.safe_open(path, backend=backend).get_tensors()


#: Every way to load all tensors of a file in Python.
LOADERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    "load_file-auto": torch_safetensors.load_file,
    "load_file-mmap": lambda path: torch_safetensors.load_file(path, backend="mmap"),
    "load_file-pread": lambda path: torch_safetensors.load_file(path, backend="pread"),
    "load_tensor-mmap": lambda path: _load_tensor(path, "mmap"),
    "load_tensor-pread": lambda path: _load_tensor(path, "pread"),
    "get_tensor-mmap": lambda path: _get_tensor(path, "mmap"),
    "get_tensor-pread": lambda path: _get_tensor(path, "pread"),
    "get_tensors-mmap": lambda path: _get_tensors(path, "mmap"),
    "get_tensors-pread": lambda path: _get_tensors(path, "pread"),
    "load": lambda path: torch_safetensors.load(path.read_bytes()),
    "load-alias": lambda path: torch_safetensors.load(bytearray(path.read_bytes()), copy=False),
}
