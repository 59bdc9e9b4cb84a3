"""Tensors whose storages were shrunk or freed under them, and what saves and loads must make of them.

Used by test_absent_memory.py, and by test_stable.py in a process with the library on the stable ABI.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

import torch_safetensors as ts

ops = torch.ops.safetensors

_DTYPES = (torch.uint8, torch.bool, torch.float16, torch.float32, torch.int64, torch.complex64)

#: From a tensor and a path that a file may be written to, what was saved.
Save = Callable[[torch.Tensor, Path], torch.Tensor]
#: From the path of a file of ``t`` and the tensor that it goes to.
Load = Callable[[Path, torch.Tensor], object]


class View(NamedTuple):
    tensor: torch.Tensor
    #: Whether its storage holds all of it.
    is_there: bool
    #: Of what is there, a dense copy.
    values: torch.Tensor | None


def random_views(seed: int, count: int) -> Iterator[View]:
    """Views, most of them dense, over storages of which many were resized afterwards."""
    chance = random.Random(seed)
    for _ in range(count):
        dtype = chance.choice(_DTYPES)
        shape = [chance.randrange(5) for _ in range(chance.randrange(4))]
        strides = list(torch.empty(shape, device="meta").stride())
        if chance.random() < 0.3:
            strides = [chance.randrange(6) for _ in shape]
        offset = chance.randrange(8)
        end = 0 if 0 in shape else offset + 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        base = torch.randint(0, 2, (max(end, offset) + chance.randrange(8),)).to(dtype)
        tensor = base.as_strided(shape, strides, offset)
        if dtype is torch.complex64 and chance.random() < 0.3:
            tensor = tensor.conj()
        if dtype not in (torch.uint8, torch.bool) and chance.random() < 0.2:
            tensor = torch._neg_view(tensor)
        storage = base.untyped_storage()
        nbytes = storage.nbytes()
        kind = chance.random()
        if kind < 0.2:
            nbytes = 0
        elif kind < 0.6:
            nbytes = chance.randrange(nbytes + 1)
        values = tensor.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        is_there = end * dtype.itemsize <= nbytes
        storage.resize_(nbytes)
        yield View(tensor, is_there, values if is_there else None)


def save_file(tensor: torch.Tensor, path: Path) -> torch.Tensor:
    ts.save_file({"t": tensor}, path)
    return ts.load_tensor(path, "t", backend="pread")


def save_tensors(tensor: torch.Tensor, path: Path) -> torch.Tensor:
    ops.save_tensors(str(path), ["t"], [tensor])
    return ts.load_tensor(path, "t", backend="pread")


#: With either library.
SAVES: dict[str, Save] = {
    "save": lambda tensor, _: ts.load(ts.save({"t": tensor}))["t"],
    "save_file": save_file,
    "save_tensors": save_tensors,
}
LOADS: dict[str, Load] = {
    "load_into": lambda path, out: ops.load_into(str(path), "t", out),
    "load_into_part": lambda path, out: ops.load_into(str(path), "t", out, offsets=[0] * out.dim()),
}


def _error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def _check(error: Exception | None, tensor: torch.Tensor, *, is_there: bool) -> bool:
    """Whether something happened, as it should; what has another form than a way takes may be refused."""
    text = str(error)
    if is_there:
        # The stable ABI does not tell what torch's copy_ said of elements that are one in memory.
        allowed = ("is not contiguous", "refers to a single memory location", '"aten::copy_"')
        is_allowed = any(words in text for words in allowed)
        assert error is None or is_allowed, repr(error)
        return error is None
    assert type(error) is ValueError, repr(error)
    assert "tensor 't' needs " in text, text
    assert f" of its storage, which has {tensor.untyped_storage().nbytes()} (" in text, text
    return False


def check_saves(saves: Mapping[str, Save], folder: Path, seed: int, count: int) -> None:
    """What is there comes back, what is not is refused by name."""
    for name, save in saves.items():
        saved = 0
        for number, (tensor, is_there, values) in enumerate(random_views(seed, count)):
            found: list[torch.Tensor] = []
            error = _error_of(lambda: found.append(save(tensor, folder / f"{name}{number}")))  # noqa: B023
            if _check(error, tensor, is_there=is_there):
                assert values is not None
                assert torch.equal(found[0], values), (name, number)
                saved += 1
        assert saved > count // 5, name


def check_loads(loads: Mapping[str, Load], folder: Path, seed: int, count: int) -> None:
    """What is there is filled, what is not is refused by name."""
    path = folder / "ones"
    for name, load in loads.items():
        loaded = 0
        for number, (out, is_there, _) in enumerate(random_views(seed, count)):
            ones = torch.ones(out.shape, dtype=out.dtype)
            ts.save_file({"t": ones}, path)
            if _check(_error_of(lambda: load(path, out)), out, is_there=is_there):  # noqa: B023
                assert torch.equal(out, ones), (name, number)
                loaded += 1
        assert loaded > count // 5, name


def check_buffers(seed: int, count: int, *, copies: tuple[bool, ...] = (True, False)) -> None:
    """``load`` of uint8 tensors that were shrunk, of which nothing is read."""
    chance = random.Random(seed)
    file = torch.frombuffer(bytearray(ts.save({"t": torch.arange(5)})), dtype=torch.uint8)
    for number in range(count):
        offset, step = 8 * chance.randrange(3), 1 + chance.randrange(2)
        base = torch.zeros(offset + step * len(file), dtype=torch.uint8)
        data = base[offset::step]
        data.copy_(file)
        needed = offset + step * (len(file) - 1) + 1
        if chance.random() < 0.5:
            base.untyped_storage().resize_(chance.choice([0, needed - 1, needed, chance.randrange(needed)]))
        copy = chance.choice(copies) or step > 1
        tensors: dict[str, torch.Tensor] = {}
        error = _error_of(lambda: tensors.update(ts.load(data, copy=copy)))  # noqa: B023
        if base.untyped_storage().nbytes() >= needed:
            assert error is None, number
            assert torch.equal(tensors["t"], torch.arange(5))
        else:
            assert type(error) is ValueError
            assert str(error).startswith(f"data needs {needed} bytes of its storage, which has "), error
