"""Any tensors under any names, made by Hypothesis: what is saved is loaded as it was, and the reference agrees on what
can be saved.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import safetensors.torch as reference
import torch
from conftest import TORTURE
from helpers import BACKENDS, DTYPES, assert_aligned, assert_same
from hypothesis import strategies as st
from torch import Tensor

from torch_safetensors import load, load_file, safe_open, save, save_file

#: Each file system call counts, so no limit of time; and pytest's folder stays the same for all examples.
hypothesis.settings.register_profile(
    "ours",
    deadline=None,
    max_examples=2000 if TORTURE else 150,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("ours")

names = st.text(max_size=20) | st.sampled_from(["__metadata__", "", "\0", "\ud800", "a.b", "\U0001f999"])
shapes = st.lists(st.integers(0, 4), max_size=4)


@st.composite
def any_tensors(draw: st.DrawFn) -> Tensor:
    """Dense or not, of any dtype, or a view of another in some way."""
    shape = draw(shapes)
    dtype = draw(st.sampled_from([*DTYPES.values(), torch.complex128]))
    numbers = torch.frombuffer(bytearray(random.Random(draw(st.integers(0, 9))).randbytes(256 * 16)), dtype=torch.uint8)
    if dtype is torch.bool:
        numbers = numbers & 1
    tensor = numbers.view(dtype)[: torch.Size(shape).numel()].reshape(shape)
    if tensor.dim() == 0 or dtype is torch.float4_e2m1fn_x2:
        return tensor
    kind = draw(st.sampled_from(["as it is", "transposed", "narrowed", "every other", "expanded", "conjugate"]))
    if kind == "transposed":
        return tensor.transpose(0, -1)
    if kind == "narrowed":
        return tensor[: draw(st.integers(0, shape[0]))]
    if kind == "every other":
        return tensor[::2]
    if kind == "expanded":
        return tensor.unsqueeze(0).expand(draw(st.integers(1, 3)), *shape)
    return tensor.conj() if kind == "conjugate" and dtype.is_complex else tensor


def outcome(save_: Any, *arguments: Any) -> bytes | type[Exception]:
    try:
        return save_(*arguments)
    except Exception as error:
        return type(error)


def is_refused_only_here(tensors: dict[str, Tensor]) -> bool:
    """The reference writes files that nobody can read (docs/migrating.md, "Differences")."""
    return "__metadata__" in tensors


def is_written_wrong_by_the_reference(tensors: dict[str, Tensor]) -> bool:
    return any(tensor.is_conj() for tensor in tensors.values())


@hypothesis.given(
    tensors=st.dictionaries(names, any_tensors(), max_size=4),
    metadata=st.none() | st.dictionaries(names, st.text(max_size=9), min_size=1, max_size=1),
    alignment=st.sampled_from([8, 64, 4096]),
)
def test_round_trip(
    tensors: dict[str, Tensor], metadata: dict[str, str] | None, alignment: int, tmp_path: Path
) -> None:
    saved = outcome(save, tensors, metadata)
    expected = outcome(reference.save, tensors, metadata)
    if isinstance(saved, type):
        # Of one that is refused for two reasons, each may find another first.
        assert isinstance(expected, type) or is_refused_only_here(tensors), saved
        return
    assert not isinstance(expected, type), expected
    assert saved == expected or is_written_wrong_by_the_reference(tensors)
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata)
    assert path.read_bytes() == saved
    dense = {name: tensor.resolve_conj() for name, tensor in tensors.items()}
    assert_same(load(saved), dense)
    for backend in BACKENDS:
        assert_same(load_file(path, backend=backend), dense)
    assert (safe_open(path).metadata() or None) == metadata
    save_file(tensors, path, metadata, alignment=alignment)
    assert_aligned(path, alignment)
    assert_same(load_file(path), dense)
    assert (safe_open(path).metadata() or None) == metadata


indices = st.integers(-6, 6)
bounds = st.none() | indices
parts = st.builds(slice, bounds, bounds, st.none() | st.integers(1, 3)) | indices | st.just(Ellipsis) | st.none()


def has_one_ellipsis(index: list[Any]) -> bool:
    """Releases of torch differ in what they make of two."""
    return sum(part is Ellipsis for part in index) < 2


@pytest.mark.parametrize("backend", BACKENDS)
@hypothesis.given(
    shape=shapes, index=st.lists(parts, max_size=5).filter(has_one_ellipsis).map(tuple), offset=st.integers(0, 3)
)
def test_any_slice(shape: list[int], index: tuple[Any, ...], offset: int, backend: str, tmp_path: Path) -> None:
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    path = tmp_path / "x.safetensors"
    save_file({"x": whole, "a": torch.zeros(offset, dtype=torch.uint8)}, path)
    part = safe_open(path, backend=backend).get_slice("x")
    try:
        expected = whole[index]
    except (IndexError, ValueError) as error:
        with pytest.raises(type(error)):
            part[index]
    else:
        assert torch.equal(part[index], expected)
