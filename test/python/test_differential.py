"""The reference as an oracle: the same verdict on each of many files, and the same tensors, but for known deviations.

DIFFERENTIAL_CASES=1000000 makes it a long run; DIFFERENTIAL_SEED=1 repeats one.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch as reference
import torch
from helpers import bits
from mutated_files import FileMaker, Pairs

from torch_safetensors import SafetensorError, load, load_file, safe_open

CASES = int(os.environ.get("DIFFERENTIAL_CASES", "20000"))
SEEDS = {"fixed": 20260101, "fresh": int(os.environ.get("DIFFERENTIAL_SEED", random.SystemRandom().randrange(2**32)))}
FIELDS = {"dtype", "shape", "data_offsets"}


def parsed(file: bytes) -> Any:
    """The JSON, with objects as Pairs, as lenient as Python reads it."""
    text = file[8 : 8 + int.from_bytes(file[:8], "little")].decode()
    return json.loads(text, object_pairs_hook=Pairs, parse_int=str, parse_float=str)


def entries(header: Pairs) -> list[Any]:
    return [entry for name, entry in header if name != "__metadata__"]


def has_duplicates(header: Pairs) -> bool:
    return max(Counter(name for name, _ in header).values()) > 1


def has_array(header: Pairs) -> bool:
    return any(not isinstance(entry, Pairs) for entry in entries(header))


def has_dtype_map(header: Pairs) -> bool:
    fields = [dict(entry) for entry in entries(header) if isinstance(entry, Pairs)]
    return any(isinstance(entry.get("dtype"), Pairs) for entry in fields)


def has_number_beyond_double(value: Any) -> bool:
    """docs/limits.md: in a field that the format does not know."""
    if isinstance(value, list | tuple):
        return any(has_number_beyond_double(item) for item in value)
    number, found, exponent = str(value).lower().partition("e")
    return bool(found) and exponent.lstrip("+-").isdigit() and (len(number) >= 309 or int(exponent) >= 300)


def shapes(header: Pairs) -> list[list[int]]:
    found = [value for entry in entries(header) if isinstance(entry, Pairs) for key, value in entry if key == "shape"]
    return [[int(size) for size in shape] for shape in found]


def has_dimension_beyond_int64(header: Pairs) -> bool:
    """Of an F4, of which torch has half as many, or where another entry of that name is the one that counts."""
    return any(size >= 2**63 for shape in shapes(header) for size in shape)


def has_strides_beyond_int64(header: Pairs) -> bool:
    """Of a tensor without elements: torch.empty refuses it too, and torch.reshape lets its strides wrap around."""
    return any(0 in shape and math.prod(max(size, 1) for size in shape[1:]) >= 2**63 for shape in shapes(header))


#: Where this library refuses what the reference accepts (docs/security.md): what its message says, and what the file
#: must then have.
DEVIATIONS: dict[str, Callable[[Pairs], bool]] = {
    "duplicate name": has_duplicates,
    "over the largest dimension": has_dimension_beyond_int64,
    "expected an object, found an array": has_array,
    "dtype: expected a string, found an object": has_dtype_map,
    "number out of range": has_number_beyond_double,
    "strides do not fit in 64 bits": has_strides_beyond_int64,
}
#: Too seldom to be met in a short run.
RARE = {"over the largest dimension", "strides do not fit in 64 bits"}

Outcome = dict[str, tuple[torch.dtype, list[int], bytes]] | str


def outcome(load_: Callable[[], dict[str, torch.Tensor]]) -> Outcome:
    """Names, dtypes, shapes and bits; or why not."""
    try:
        return {name: (tensor.dtype, list(tensor.shape), bits(tensor)) for name, tensor in load_().items()}
    except SafetensorError as error:
        return str(error)


def reference_outcome(file: bytes, path: Path) -> Outcome:
    """By load_file, which knows more dtypes than load does."""
    try:
        safetensors.deserialize(file)
    except safetensors.SafetensorError as error:
        return str(error)
    try:
        return outcome(lambda: reference.load_file(path))
    except Exception as error:  # valid, but not for torch: F6, an F4 that is odd, a dimension over 2^63-1
        return f"torch: {error}"


def metadata_of(open_: Any, path: Path) -> dict[str, str]:
    with open_(path, "pt") as handle:
        return handle.metadata() or {}


def check(file: bytes, path: Path, seen: Counter[str]) -> None:
    path.write_bytes(file)
    ours, theirs = outcome(lambda: load(file)), reference_outcome(file, path)
    if isinstance(ours, dict):
        assert ours == theirs
        seen["accepted"] += 1
    elif isinstance(theirs, str):
        seen["not for torch" if theirs.startswith("torch: ") else "refused"] += 1
    else:
        rules = [rule for rule in DEVIATIONS if rule in ours]
        assert rules, f"refused here only: {ours}"
        assert any(DEVIATIONS[rule](parsed(file)) for rule in rules), f"not so: {ours}"
        seen[rules[0]] += 1
    # Files take another way in, and every tenth is enough to see that it leads to the same.
    if seen.total() % 10 == 0:
        for backend in "mmap", "pread":
            from_file = outcome(lambda backend=backend: load_file(path, backend=backend))
            same_error = isinstance(ours, str) and from_file == ours.replace("bytes:", f"{path}:", 1)
            assert from_file == ours or same_error
        if isinstance(ours, dict):
            assert metadata_of(safe_open, path) == metadata_of(safetensors.safe_open, path)


@pytest.mark.parametrize("kind", SEEDS)
def test_the_same_verdict_as_the_reference(kind: str, tmp_path: Path) -> None:
    seed = SEEDS[kind]
    print(f"DIFFERENTIAL_SEED={seed}")
    seen: Counter[str] = Counter()
    for number, file in zip(range(CASES), FileMaker(seed), strict=False):
        try:
            check(file, tmp_path / "x.safetensors", seen)
        except BaseException:
            print(f"case {number}: {file!r}")
            raise
    print(dict(seen))
    # Else this would be a test of something else.
    assert seen["accepted"] > CASES / 10
    assert seen["refused"] > CASES / 10
    assert CASES < 10_000 or set(seen) >= {*DEVIATIONS, "not for torch"} - RARE
