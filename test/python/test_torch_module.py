"""Every name of the reference's ``safetensors.torch``, with the same results, but where the reference is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch as reference
import torch
from helpers import DTYPES, assert_same, bits, random_tensors
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import torch_safetensors
import torch_safetensors.torch as ours

State = dict[str, Tensor]
BOTH = pytest.mark.parametrize("module", [reference, ours], ids=["reference", "ours"])


def test_it_has_every_name() -> None:
    theirs = {
        name
        for name, value in vars(reference).items()
        if not name.startswith("__")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", None) not in ("typing", "collections")
    }
    assert len(theirs) > 25
    assert theirs - set(vars(ours)) == set()


@pytest.mark.parametrize("name", ["load", "load_file", "load_model", "safe_open", "save", "save_file", "save_model"])
def test_functions_are_those_of_the_package(name: str) -> None:
    assert getattr(ours, name) is getattr(torch_safetensors, name)


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]


def test_functions_take_the_same_arguments() -> None:
    """More of them, but behind the others or by keyword."""
    compared = 0
    for name, function in vars(reference).items():
        if inspect.isfunction(function):
            theirs, mine = parameters(function), parameters(getattr(ours, name))
            in_order = [p for p in theirs if p[1] is inspect.Parameter.POSITIONAL_OR_KEYWORD]
            assert mine[: len(in_order)] == in_order, name
            assert set(theirs) <= set(mine), name
            compared += 1
    assert compared > 15


# --- storage ------------------------------------------------------------------------------------------


def storage_cases() -> State:
    base = torch.arange(12.0).view(3, 4)
    return {
        "whole": base,
        "row": base[1],
        "empty": torch.empty(0, 3),
        "empty view": base[:0],
        "scalar": torch.tensor(1.5),
        "meta": torch.empty(3, 4, device="meta"),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "float4": torch.zeros(2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "half": torch.ones(5, dtype=torch.float16),
    }


@pytest.mark.parametrize("name", storage_cases())
def test_facts_of_a_storage(name: str) -> None:
    tensor = storage_cases()[name]
    for function in "storage_ptr", "storage_size", "_is_complete":
        assert getattr(ours, function)(tensor) == getattr(reference, function)(tensor), function
    if name != "meta":
        assert ours._end_ptr(tensor) == reference._end_ptr(tensor)


class Wrapper(Tensor):
    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        raise NotImplementedError


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), Tensor._make_wrapper_subclass(Wrapper, (3, 3))],
    ids=["sparse", "wrapper"],
)
def test_some_tensors_have_no_storage_of_their_own(tensor: Tensor) -> None:
    assert ours.storage_ptr(tensor) == 0
    assert ours.storage_size(tensor) == 36


def test_the_end_of_strided_elements_is_found() -> None:
    """The reference fails on them."""
    base = torch.arange(12.0).view(3, 4)
    assert ours._end_ptr(base.t()) == ours._end_ptr(base) == base.data_ptr() + 48
    assert ours._end_ptr(base[:, 1]) == base.data_ptr() + 40
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        reference._end_ptr(base.t())


# --- names that share memory --------------------------------------------------------------------------

SIZE = 16
ranges = st.tuples(st.integers(0, 2), st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda r: (r[0], *sorted(r[1:])))
states = st.lists(ranges, max_size=8)


def state_of(parts: list[tuple[int, int, int]]) -> State:
    """Parts of three storages, each kept whole by nothing but its parts."""
    storages = [torch.arange(SIZE, dtype=torch.uint8) for _ in range(3)]
    return {f"{i}": storages[which][begin:end] for i, (which, begin, end) in enumerate(parts)}


def as_sets(groups: list[set[str]]) -> set[frozenset[str]]:
    assert sum(map(len, groups)) == len(set().union(*groups))
    return set(map(frozenset, groups))


def connected(parts: list[tuple[int, int, int]]) -> set[frozenset[str]]:
    """By another way: parts joined while any two of them overlap."""
    groups = [{i} for i in range(len(parts))]
    for i, (which, begin, end) in enumerate(parts):
        for j, (other, first, last) in enumerate(parts[:i]):
            if which == other and begin < last and first < end and begin < end and first < last:
                one, two = next(g for g in groups if i in g), next(g for g in groups if j in g)
                if one is not two:
                    groups.remove(two)
                    one |= two
    return {frozenset(map(str, group)) for group in groups}


@given(states)
def test_shared_names_are_those_whose_memory_overlaps(parts: list[tuple[int, int, int]]) -> None:
    parts = [part for part in parts if part[1] < part[2]]  # what has no bytes belongs to what surrounds it
    assert as_sets(ours._find_shared_tensors(state_of(parts))) == connected(parts)


def has_nested(state: State) -> bool:
    """Where the reference forgets the outer one."""
    intervals = sorted((t.untyped_storage().data_ptr(), t.data_ptr(), t.data_ptr() + t.nbytes) for t in state.values())
    return any(a[0] == b[0] and a[2] > b[2] for a, b in pairwise(intervals))


@given(states)
def test_shared_names_are_the_reference_s(parts: list[tuple[int, int, int]]) -> None:
    state = state_of(parts)
    if not has_nested(state):
        assert as_sets(ours._find_shared_tensors(state)) == as_sets(reference._find_shared_tensors(state))


def test_two_parts_within_one_are_not_separated() -> None:
    """The reference puts the second one apart."""
    full = torch.arange(16.0)
    state = {"full": full, "a": full[4:8], "b": full[8:12]}
    assert ours._find_shared_tensors(state) == [{"full", "a", "b"}]
    assert len(reference._find_shared_tensors(state)) == 2
    assert ours._filter_shared_not_shared([{"full", "a", "b"}, {"full"}], state) == [{"full", "a", "b"}, {"full"}]


def test_tensors_without_memory_are_in_no_group() -> None:
    state = {"meta": torch.empty(2, device="meta"), "empty": torch.empty(0), "w": torch.ones(2)}
    assert ours._find_shared_tensors(state) == reference._find_shared_tensors(state) == [{"w"}]


names = st.lists(st.sampled_from("0123456789"), max_size=4)


@given(states, st.none() | names, st.none() | names)
def test_the_names_to_remove_are_the_reference_s(
    parts: list[tuple[int, int, int]], preferred: list[str] | None, discarded: list[str] | None
) -> None:
    state = state_of([*parts, (0, 0, SIZE), (0, 0, SIZE), (1, 0, SIZE)])
    options = {"preferred_names": preferred, "discard_names": discarded}
    if has_nested(state):
        return
    try:
        expected = reference._remove_duplicate_names(state, **options)
    except RuntimeError:
        return  # below
    actual = ours._remove_duplicate_names(state, **options)
    assert actual == expected
    assert actual["no such name"] == []  # a defaultdict, too


def test_a_part_that_shares_memory_with_nothing_needs_no_other_name() -> None:
    """The reference refuses it."""
    state = {"part": torch.arange(4.0)[1:3]}
    assert ours._remove_duplicate_names(state) == {}
    with pytest.raises(RuntimeError, match="no suitable name"):
        reference._remove_duplicate_names(state)


@BOTH
def test_overlapping_parts_of_which_none_is_whole_are_refused(module: Any) -> None:
    full = torch.arange(4.0)
    with pytest.raises(RuntimeError, match=r"share memory, and none is the whole|no suitable name"):
        module._remove_duplicate_names({"a": full[:3], "b": full[1:]})


# --- dtypes -------------------------------------------------------------------------------------------


def test_dtypes_are_the_reference_s_and_those_it_leaves_out() -> None:
    assert reference._TYPES.items() < ours._TYPES.items()
    assert ours._TYPES.keys() - reference._TYPES.keys() == {"F8_E8M0", "F4"}
    assert ours._TYPES == DTYPES
    assert ours._SIZE == reference._SIZE
    for name in reference._TYPES:
        assert ours._getdtype(name) is reference._getdtype(name)
    with pytest.raises(KeyError, match="F6_E2M3"):
        ours._getdtype("F6_E2M3")
    for name, value in vars(reference).items():
        if isinstance(value, torch.dtype):
            assert getattr(ours, name) is value


# --- bytes --------------------------------------------------------------------------------------------


def fields(spec: Any) -> tuple[Any, ...]:
    return spec.dtype, spec.shape, spec.data_ptr, spec.data_len


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_spec_says_the_same(dtype: torch.dtype) -> None:
    arguments = {"dtype": str(dtype).removeprefix("torch."), "shape": (2, 4), "data_ptr": 16, "data_len": 8}
    ours_, theirs = ours.TensorSpec(**arguments), reference.TensorSpec(**arguments)
    assert fields(ours_) == fields(theirs)
    assert repr(ours_) == repr(theirs)


def test_a_spec_of_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(torch_safetensors.SafetensorError, match="dtype: 'F32' is not one of float64, float32, "):
        ours.TensorSpec(dtype="F32", shape=[1], data_ptr=0, data_len=4)


@pytest.mark.parametrize("seed", range(5))
def test_serialized_specs_are_the_reference_s_bytes(seed: int, tmp_path: Path) -> None:
    tensors = random_tensors(seed)
    files = []
    for module in reference, ours:
        alive: list[Any] = []
        specs = module._flatten_as_ptr(tensors, alive)
        assert len(alive) == len(specs) == len(tensors)
        files.append(module.serialize(specs, metadata={"k": "v"}))
        module.serialize_file(specs, tmp_path / module.__name__, metadata={"k": "v"})
        assert (tmp_path / module.__name__).read_bytes() == files[-1]
    assert files[0] == files[1]


def spec_of(tensor: Tensor, module: Any = ours, **changed: Any) -> Any:
    dtype = str(tensor.dtype).removeprefix("torch.")
    arguments = {"dtype": dtype, "shape": tensor.shape, "data_ptr": tensor.data_ptr(), "data_len": tensor.nbytes}
    return module.TensorSpec(**arguments | changed)


def test_specs_may_share_memory() -> None:
    tensor = torch.arange(4.0)
    files = [m.serialize({"a": spec_of(tensor, m), "b": spec_of(tensor, m)}) for m in (reference, ours)]
    assert files[0] == files[1]
    assert_same(ours.load(files[1]), {"a": tensor, "b": tensor})


def test_wrong_specs_are_refused() -> None:
    tensor = torch.arange(4.0)
    with pytest.raises(torch_safetensors.SafetensorError, match=r"tensor 'w': F32 \[5\] needs 20 bytes, not 16"):
        ours.serialize({"w": spec_of(tensor, shape=[5])})
    with pytest.raises(TypeError, match="tensor 'w': expected TensorSpec, not Tensor"):
        ours.serialize({"w": tensor})


@pytest.mark.parametrize("seed", range(5))
def test_deserialized_views_are_the_reference_s(seed: int) -> None:
    file = ours.save(random_tensors(seed))
    views = dict(ours.deserialize(file))
    assert views == dict(reference.deserialize(file))
    assert all(type(view["data"]) is bytearray for view in views.values())


@pytest.mark.parametrize("seed", range(5))
def test_views_become_tensors(seed: int) -> None:
    """Also F4 and F8_E8M0, which the reference does not know here."""
    tensors = random_tensors(seed)
    views = ours.deserialize(ours.save(tensors))
    assert_same(ours._view2torch(views), tensors)
    known = [(name, view) for name, view in views if view["dtype"] in reference._TYPES]
    assert_same(ours._view2torch(known), reference._view2torch(known))


def test_views_alias_their_bytes() -> None:
    ((_, view),) = ours.deserialize(ours.save({"w": torch.zeros(2)}))
    tensor = ours._view2torch([("w", view)])["w"]
    view["data"][3:4] = b"\x3f"
    assert tensor[0] == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_flat_tensors_are_their_bytes(seed: int) -> None:
    tensors = random_tensors(seed)
    flat = ours._flatten(tensors)
    for name, tensor in tensors.items():
        assert flat[name] == {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": tensor.shape,
            "data": bits(tensor),
        }
        array, kept = ours._to_ndarray(tensor)
        assert (array.dtype, array.ndim, array.tobytes()) == (np.uint8, 1, bits(tensor))
        assert tensor.numel() == 0 or kept.data_ptr() == tensor.data_ptr() == array.ctypes.data
        if tensor.numel():
            assert np.array_equal(array, reference._to_ndarray(tensor)[0])


def test_lazy_views_are_resolved() -> None:
    tensor = torch.tensor([1 + 2j]).conj()
    assert ours._tobytes(tensor, "w") == bits(tensor.resolve_conj())
    alive: list[Any] = []
    assert ours.serialize(ours._flatten_as_ptr({"w": tensor}, alive)) == ours.save({"w": tensor})


@BOTH
@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ([torch.ones(1)], ValueError),
        ({"w": 1}, ValueError),
        ({"w": torch.eye(2).to_sparse()}, ValueError),
        ({"w": torch.ones(2, 3).t()}, ValueError),
        (dict.fromkeys(["a", "b"], torch.ones(1)), RuntimeError),
    ],
    ids=["not a dict", "not a tensor", "sparse", "strided", "shared"],
)
def test_what_save_file_refuses_is_refused(module: Any, tensors: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        module._flatten_as_ptr(tensors, [])
