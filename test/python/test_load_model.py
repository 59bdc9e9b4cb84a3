"""load_model straight into a model's memory: what fits, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch as reference
import torch
from model_zoo import Deep, Tensors, Tied, all_tensors, bits, raw, refill, same_values, versions
from torch import nn

import torch_safetensors as ts
from torch_safetensors import SafetensorError

BACKENDS = ["auto", "mmap", "pread"]


@pytest.fixture(autouse=True)
def _only_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that load themselves have a file of their own: test_load_through_module.py."""

    def refuse(*args: object) -> None:
        raise AssertionError("did not read straight into the model")

    monkeypatch.setattr("torch_safetensors._models._load_through_module", refuse)


def views() -> nn.Module:
    base = torch.rand(4, 6)
    return Tensors(full=nn.Parameter(base), row=base[1], transposed=base.t(), column=base[:, 2])


MODELS = {
    "tied": Tied,
    "deep": Deep,
    "empty": nn.Module,
    "views": views,
    "batch norm": lambda: nn.BatchNorm1d(3),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
    "channels last": lambda: nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last),
    "scripted": lambda: torch.jit.script(Deep()),
    "scripted tie": lambda: torch.jit.script(Tied()),
    "compiled": lambda: torch.compile(Deep(), backend="eager"),
    "bfloat16": lambda: Tied().bfloat16(),
    "complex": lambda: nn.Linear(2, 2, dtype=torch.complex64),
    "scalar": lambda: Tensors(a=nn.Parameter(torch.rand(())), b=torch.tensor(5)),
    "no elements": lambda: Tensors(a=nn.Parameter(torch.rand(0, 3)), b=torch.rand(2)),
    "transposed": lambda: Tensors(a=nn.Parameter(torch.rand(3, 4).t())),
}
# A view that is not flat, and orthogonal's own state_dict, are beyond the reference.
REFERENCE_SAVES = {name: make for name, make in MODELS.items() if name != "views"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_saved_model_comes_back(tmp_path: Path, make, backend: str) -> None:
    model, other = make(), refill(make())
    before = bits(other)
    ts.save_model(model, tmp_path / "m")
    assert ts.load_model(other, tmp_path / "m", backend=backend) == ([], [])
    assert same_values(model, other)
    assert {name: form[:-1] for name, form in bits(other).items()} == {name: form[:-1] for name, form in before.items()}


@pytest.mark.parametrize("make", REFERENCE_SAVES.values(), ids=REFERENCE_SAVES)
def test_files_of_the_reference_load_here(tmp_path: Path, make) -> None:
    model, other = make(), refill(make())
    reference.save_model(model, tmp_path / "m")
    assert ts.load_model(other, tmp_path / "m") == ([], [])
    assert same_values(model, other)


@pytest.mark.parametrize("make", REFERENCE_SAVES.values(), ids=REFERENCE_SAVES)
def test_files_from_here_load_in_the_reference(tmp_path: Path, make) -> None:
    model, other = make(), refill(make())
    ts.save_model(model, tmp_path / "m")
    missing, unexpected = reference.load_model(other, tmp_path / "m")
    assert (set(missing), unexpected) == (set(), [])
    assert same_values(model, other)


def test_what_is_not_in_the_file_keeps_its_value(tmp_path: Path) -> None:
    ts.save_model(Deep(), tmp_path / "m")
    other = refill(Deep(), 3)
    other.left[0].weight.grad = torch.ones(4, 4)
    other.left[0].bias.requires_grad_(False)
    ts.load_model(other, tmp_path / "m")
    assert torch.equal(other.scratch, torch.full((3,), 3.0))
    assert torch.equal(other.left[0].weight.grad, torch.ones(4, 4))
    assert other.left[0].weight.requires_grad
    assert not other.left[0].bias.requires_grad
    assert other.right["inner"][0].weight is other.left[0].weight


# --- dtypes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("from_dtype", "into_dtype"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float64),
        (torch.float64, torch.float16),
        (torch.float32, torch.complex64),
        (torch.int64, torch.float32),
        (torch.float8_e4m3fn, torch.float32),
    ],
    ids=str,
)
def test_another_dtype_is_converted_as_copy_does(tmp_path: Path, from_dtype, into_dtype, backend) -> None:
    values = torch.tensor([[0.5, -3.0], [7.0, 1.0]]).to(from_dtype)
    ts.save_file({"w": values}, tmp_path / "m")
    model = Tensors(w=nn.Parameter(torch.zeros(2, 2, dtype=into_dtype)))
    assert ts.load_model(model, tmp_path / "m", backend=backend) == ([], [])
    assert model.w.dtype == into_dtype
    assert torch.equal(model.w, values.to(into_dtype))


def test_a_half_precision_file_fills_a_float_model(tmp_path: Path) -> None:
    half, model = Tied().half(), Tied()
    ts.save_model(half, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert same_values(model, half.float())
    assert model.decoder.weight is model.embedding.weight


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (torch.rand(2, dtype=torch.complex64), r"tensor 'b': .*ComplexFloat.*imaginary part as Float"),
        (torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), r"tensor 'b': torch cannot convert Float4"),
    ],
    ids=["complex to real", "F4"],
)
def test_a_dtype_that_does_not_convert_is_refused(tmp_path: Path, tensor, text: str, strict: bool) -> None:
    ts.save_file({"a": torch.rand(2), "b": tensor}, tmp_path / "m")
    model = Tensors(a=nn.Parameter(torch.ones(2)), b=nn.Parameter(torch.ones(2)))
    before = bits(model), versions(model)
    with pytest.raises(ValueError, match=text):
        ts.load_model(model, tmp_path / "m", strict)
    assert (bits(model), versions(model)) == before


def test_one_element_fills_a_scalar_as_in_torch(tmp_path: Path) -> None:
    ts.save_file({"a": torch.tensor([2.5]), "b": torch.tensor([4], dtype=torch.int32)}, tmp_path / "m")
    model = Tensors(a=nn.Parameter(torch.tensor(0.0)), b=torch.tensor(0))
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert (model.a.item(), model.b.item()) == (2.5, 4)
    assert model.a.shape == model.b.shape == ()


# --- names ------------------------------------------------------------------------------------------


def test_missing_and_unexpected_names_are_sorted_lists(tmp_path: Path) -> None:
    state = {"z": torch.ones(1), "0.weight": torch.zeros(2, 2), "1.extra": torch.ones(1), "ä": torch.ones(1)}
    ts.save_file(state, tmp_path / "m")
    model = refill(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    result = ts.load_model(model, tmp_path / "m", strict=False)
    assert result == (["0.bias", "1.bias", "1.weight"], ["1.extra", "z", "ä"])
    assert torch.equal(model[0].weight, torch.zeros(2, 2))
    assert torch.equal(model[1].weight, torch.ones(2, 2))


def test_the_error_lists_everything_at_once(tmp_path: Path) -> None:
    state = {"zz": torch.ones(1), "aa": torch.ones(1), "0.weight": torch.zeros(3, 2), "1.bias": torch.ones(2)}
    ts.save_file(state, tmp_path / "m")
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(SafetensorError) as caught:
        ts.load_model(model, tmp_path / "m")
    assert str(caught.value) == (
        f"{tmp_path}/m: Error(s) in loading state_dict for Sequential:"
        '\n    Missing key(s) in state_dict: "0.bias", "1.weight"'
        '\n    Unexpected key(s) in state_dict: "aa", "zz"'
        "\n    size mismatch for 0.weight: the file holds [3, 2] but the model has [2, 2]"
    )


WEIGHT, BIAS = torch.zeros(2, 3), torch.zeros(2)
MISFITS = {
    "missing": ({"weight": WEIGHT}, 'Missing key(s) in state_dict: "bias"'),
    "nothing there": ({}, 'Missing key(s) in state_dict: "bias", "weight"'),
    "unexpected": ({"weight": WEIGHT, "bias": BIAS, "x": torch.ones(2)}, 'Unexpected key(s) in state_dict: "x"'),
    "prefix": ({"weight": WEIGHT, "bias.x": BIAS}, 'Missing key(s) in state_dict: "bias"'),
    "larger": ({"weight": WEIGHT, "bias": torch.zeros(3)}, "size mismatch for bias: the file holds [3]"),
    "smaller": ({"weight": torch.zeros(1, 3), "bias": BIAS}, "size mismatch for weight: the file holds [1, 3]"),
    "transposed": ({"weight": WEIGHT.t().contiguous(), "bias": BIAS}, "size mismatch for weight"),
    "flat": ({"weight": torch.zeros(6), "bias": BIAS}, "size mismatch for weight"),
    "one more dimension": ({"weight": WEIGHT, "bias": torch.zeros(2, 1)}, "size mismatch for bias"),
    "scalar": ({"weight": WEIGHT, "bias": torch.zeros(())}, "size mismatch for bias: the file holds []"),
    "no elements": ({"weight": WEIGHT, "bias": torch.zeros(0)}, "size mismatch for bias: the file holds [0]"),
}


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
@pytest.mark.parametrize(("state", "text"), MISFITS.values(), ids=MISFITS)
def test_a_refused_model_is_unchanged(tmp_path: Path, state, text: str, scripted: bool, assign: bool) -> None:
    ts.save_file(state, tmp_path / "m")
    model = torch.jit.script(nn.Linear(3, 2)) if scripted else nn.Linear(3, 2)
    before = bits(model), versions(model)
    with pytest.raises(SafetensorError) as caught:
        ts.load_model(model, tmp_path / "m", assign=assign)
    assert text in str(caught.value)
    assert (bits(model), versions(model)) == before


@pytest.mark.parametrize("name", [name for name, (_, text) in MISFITS.items() if "size mismatch" in text])
def test_strict_false_forgives_no_shape(tmp_path: Path, name: str) -> None:
    ts.save_file(MISFITS[name][0], tmp_path / "m")
    model = nn.Linear(3, 2)
    before = bits(model), versions(model)
    with pytest.raises(SafetensorError, match="size mismatch for"):
        ts.load_model(model, tmp_path / "m", strict=False)
    assert (bits(model), versions(model)) == before


def test_batch_norm_without_its_counter_loads_as_in_the_reference(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm2d(2)))
    state = {name: torch.rand_like(t) for name, t in model.state_dict().items() if "num_batches" not in name}
    ts.save_file(state, tmp_path / "m")
    refill(model, 3)
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert model[0].num_batches_tracked == 3
    assert all(raw(model.state_dict()[name]) == raw(value) for name, value in state.items())
    assert reference.load_model(model, tmp_path / "m") == (set(), [])
    ts.save_file({name: t for name, t in state.items() if name != "1.0.bias"}, tmp_path / "m")
    with pytest.raises(SafetensorError, match=r'Missing key\(s\) in state_dict: "1.0.bias"'):
        ts.load_model(model, tmp_path / "m")


def random_ties(rng: random.Random) -> list[list[str]]:
    names = rng.sample("abcdefghij", 10)
    groups = []
    while names:
        size = rng.choice([1, 1, 2, 3])
        groups.append(names[:size])
        names = names[size:]
    return groups


def model_of(groups: list[list[str]]) -> nn.Module:
    return Tensors(**{name: tensor for names in groups for tensor in [torch.zeros(2)] for name in names})


def refusal(load, model: nn.Module, path: Path) -> str | None:
    try:
        load(model, path)
    except RuntimeError as error:
        return str(error)
    return None


def test_names_against_the_reference(tmp_path: Path) -> None:
    """Random models of ties, and files with one name of each tie at most and some that nobody knows."""
    for seed in range(150):
        rng = random.Random(seed)
        groups = random_ties(rng)
        names = [rng.choice(names) for names in groups if rng.random() < 0.8]
        names += [name for name in ("x", "y") if rng.random() < 0.3]
        ts.save_file({name: torch.full((2,), float(i)) for i, name in enumerate(names)}, tmp_path / "m")
        ours, theirs = model_of(groups), model_of(groups)
        missing, unexpected = reference.load_model(theirs, tmp_path / "m", strict=False)
        assert ts.load_model(ours, tmp_path / "m", strict=False) == (sorted(missing), sorted(unexpected)), seed
        assert same_values(ours, theirs), seed
        error = refusal(reference.load_model, theirs, tmp_path / "m")
        assert refusal(ts.load_model, ours, tmp_path / "m") == (error and f"{tmp_path}/m: {error}")


# --- shared storage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["embedding.weight", "decoder.weight"])
def test_either_name_of_a_tie_will_do(tmp_path: Path, name: str) -> None:
    weight = torch.rand(6, 4)
    ts.save_file({name: weight, "decoder.bias": torch.zeros(6)}, tmp_path / "m")
    model = Tied()
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert torch.equal(model.embedding.weight, weight)
    assert model.decoder.weight is model.embedding.weight


def test_of_a_tie_that_is_missing_one_name_is_reported(tmp_path: Path) -> None:
    ts.save_file({"decoder.bias": torch.zeros(6)}, tmp_path / "m")
    assert ts.load_model(Tied(), tmp_path / "m", strict=False) == (["decoder.weight"], [])
    with pytest.raises(SafetensorError, match=r'Missing key\(s\) in state_dict: "decoder.weight"$'):
        ts.load_model(Tied(), tmp_path / "m")


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
def test_both_names_of_a_tie_with_equal_bytes_are_accepted(tmp_path: Path, assign: bool) -> None:
    weight = torch.rand(6, 4)
    state = {"embedding.weight": weight, "decoder.weight": weight.clone(), "decoder.bias": torch.zeros(6)}
    ts.save_file(state, tmp_path / "m")
    model = Tied()
    assert ts.load_model(model, tmp_path / "m", assign=assign) == ([], [])
    assert torch.equal(model.embedding.weight, weight)
    assert model.decoder.weight is model.embedding.weight


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_both_names_of_a_tie_with_other_bytes_are_unexpected(tmp_path: Path, dtype, assign: bool) -> None:
    weight = torch.rand(6, 4)
    other = (weight + 1).to(dtype)
    ts.save_file({"embedding.weight": other, "decoder.weight": weight, "decoder.bias": torch.zeros(6)}, tmp_path / "m")
    model = Tied()
    before = bits(model), versions(model)
    with pytest.raises(SafetensorError, match=r'Unexpected key\(s\) in state_dict: "embedding.weight"'):
        ts.load_model(model, tmp_path / "m", assign=assign)
    assert (bits(model), versions(model)) == before
    assert ts.load_model(model, tmp_path / "m", False, assign=assign) == ([], ["embedding.weight"])
    assert torch.equal(model.embedding.weight, weight)


def test_a_view_of_what_the_file_fills_is_not_missing(tmp_path: Path) -> None:
    model = views()
    ts.save_file({"full": torch.arange(24.0).view(4, 6)}, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert model.row.tolist() == list(range(6, 12))
    assert model.column.tolist() == [2, 8, 14, 20]


def test_views_that_together_fill_a_tensor_will_do(tmp_path: Path) -> None:
    base = torch.rand(8)
    model = Tensors(full=base, low=base[:4], high=base[4:])
    ts.save_file({"low": torch.zeros(4), "high": torch.ones(4)}, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert base.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    ts.save_file({"low": torch.zeros(4)}, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m", strict=False) == (["full"], [])
    model = Tensors(full=base, low=base[:4], gap=base[5:])
    ts.save_file({"low": torch.zeros(4), "gap": torch.ones(3)}, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m", strict=False) == (["full"], [])


def test_a_strided_view_does_not_count_for_what_lies_between_its_elements(tmp_path: Path) -> None:
    base = torch.rand(8)
    ts.save_file({"even": torch.zeros(4)}, tmp_path / "m")
    model = Tensors(even=base[::2], inner=base[1:4])
    assert ts.load_model(model, tmp_path / "m", strict=False) == (["inner"], [])


def test_views_that_overlap_are_written_in_the_order_of_the_file(tmp_path: Path) -> None:
    base = torch.zeros(6)
    ts.save_file({"a": torch.full((4,), 1.0), "b": torch.full((4,), 2.0)}, tmp_path / "m")
    for _ in range(20):
        assert ts.load_model(Tensors(b=base[2:], a=base[:4]), tmp_path / "m") == ([], [])
        assert base.tolist() == [1, 1, 2, 2, 2, 2]


def test_also_where_one_of_them_is_converted(tmp_path: Path) -> None:
    base = torch.zeros(6)
    ts.save_file({"a": torch.full((4,), 1.0, dtype=torch.float64), "b": torch.full((4,), 2.0)}, tmp_path / "m")
    assert ts.load_model(Tensors(a=base[:4], b=base[2:]), tmp_path / "m") == ([], [])
    assert base.tolist() == [1, 1, 2, 2, 2, 2]


def test_lazy_views_get_the_values_and_not_the_bytes(tmp_path: Path) -> None:
    values = torch.tensor([1 + 2j, 3 - 4j])
    ts.save_file({"a": values, "b": values.imag.clone()}, tmp_path / "m")
    conjugate, negative = torch.zeros(2, dtype=torch.complex64), torch.zeros(2)
    model = Tensors(a=conjugate.conj(), b=torch._neg_view(negative))
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert torch.equal(conjugate, values.conj())
    assert torch.equal(negative, -values.imag)


def test_an_empty_tensor_is_missing_unless_it_is_there_under_another_name(tmp_path: Path) -> None:
    base = torch.rand(4)
    ts.save_file({"full": torch.zeros(4), "none": torch.zeros(0)}, tmp_path / "m")
    assert ts.load_model(Tensors(full=base, none=base[:0], tie=base[:0]), tmp_path / "m") == ([], [])
    for other in base[2:2], torch.rand(0):
        model = Tensors(full=base, none=base[:0], other=other)
        assert ts.load_model(model, tmp_path / "m", strict=False) == (["other"], [])


# --- what copy_ would check -------------------------------------------------------------------------


def test_each_write_bumps_the_version(tmp_path: Path) -> None:
    ts.save_model(Deep(), tmp_path / "m")
    model = Deep()
    before = versions(model)
    ts.load_model(model, tmp_path / "m")
    after = versions(model)
    assert all(after[name] == before[name] + (name != "scratch") for name in after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["read in place", "converted"])
def test_autograd_notices_a_load_between_forward_and_backward(tmp_path: Path, dtype) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    ts.save_file({name: t.to(dtype) for name, t in model.state_dict().items()}, tmp_path / "m")
    loss = model(torch.rand(2, 3)).sum()
    ts.load_model(model, tmp_path / "m")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    model(torch.rand(2, 3)).sum().backward()
    assert model[0].weight.grad is not None


def test_loading_records_no_gradient(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    model = Tied()
    with torch.enable_grad():
        ts.load_model(model, tmp_path / "m")
    assert model.decoder.weight.is_leaf
    assert model.decoder.weight.grad_fn is None


def test_inference_tensors_are_refused_outside_inference_mode(tmp_path: Path) -> None:
    with torch.inference_mode():
        inference = nn.Linear(2, 2)
    model = nn.ModuleList([nn.Linear(2, 2), inference])
    ts.save_file({name: torch.zeros_like(t) for name, t in model.state_dict().items()}, tmp_path / "m")
    before = bits(model)
    with pytest.raises(RuntimeError, match=r"tensor '1\.\w+': Inplace update to inference tensor outside Inference"):
        ts.load_model(model, tmp_path / "m")
    assert bits(model) == before
    with torch.inference_mode():
        assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert torch.equal(inference.weight, torch.zeros(2, 2))


def test_an_expanded_parameter_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    ts.save_file({"a": torch.zeros(2), "z": torch.zeros(3, 2)}, tmp_path / "m")
    model = Tensors(a=nn.Parameter(torch.ones(2)), z=nn.Parameter(torch.ones(1, 2).expand(3, 2)))
    before = bits(model), versions(model)
    with pytest.raises(RuntimeError, match=r"tensor 'z': unsupported operation: more than one element"):
        ts.load_model(model, tmp_path / "m")
    assert (bits(model), versions(model)) == before


def test_a_model_on_meta_needs_assign(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    model = Tied()
    model.decoder.bias = nn.Parameter(torch.empty(6, device="meta"))
    before = bits_but_meta(model)
    with pytest.raises(ValueError, match=r"'decoder.bias': is on the meta device .*assign=True"):
        ts.load_model(model, tmp_path / "m")
    assert bits_but_meta(model) == before
    assert model.decoder.bias.is_meta


def bits_but_meta(model: nn.Module) -> list[bytes]:
    return [raw(tensor) for tensor in all_tensors(model).values() if not tensor.is_meta]


# --- files ------------------------------------------------------------------------------------------


def test_a_file_that_is_not_valid_changes_nothing(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    model = Tied()
    before = bits(model), versions(model)
    for broken in b"", content[:20], content[:-1], content + b"x":
        (tmp_path / "m").write_bytes(broken)
        with pytest.raises(SafetensorError, match=f"^{tmp_path}/m: "):
            ts.load_model(model, tmp_path / "m")
    assert (bits(model), versions(model)) == before


def test_a_tensor_that_torch_cannot_hold_is_refused(tmp_path: Path) -> None:
    header = (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"w":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[4,7]}}'
    )
    (tmp_path / "m").write_bytes(len(header).to_bytes(8, "little") + header + bytes(7))
    model = Tensors(a=torch.ones(1), w=torch.ones(4))
    before = bits(model), versions(model)
    with pytest.raises(SafetensorError, match="tensor 'w': torch cannot hold F6_E2M3"):
        ts.load_model(model, tmp_path / "m")
    assert (bits(model), versions(model)) == before
    model = Tensors(a=torch.ones(1))
    assert ts.load_model(model, tmp_path / "m", strict=False) == ([], ["w"])
    assert model.a.item() == 0


def test_the_system_s_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ts.load_model(Tied(), tmp_path / "no")
    with pytest.raises(IsADirectoryError):
        ts.load_model(Tied(), tmp_path)


def test_arguments_are_checked(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    model = Tied()
    before = bits(model)
    for arguments in {"backend": "disk"}, {"device": "nowhere"}:
        for assign in False, True:
            with pytest.raises((ValueError, RuntimeError), match=r"disk|nowhere"):
                ts.load_model(model, tmp_path / "m", assign=assign, **arguments)
    with pytest.raises(ValueError, match="'auto', 'mmap', 'pread'"):
        ts.load_model(model, tmp_path / "m", backend="disk")
    with pytest.raises(TypeError, match="filename"):
        ts.load_model(model, 3)
    with pytest.raises(ValueError, match="null character"):
        ts.load_model(model, "a\0b")
    assert bits(model) == before


def test_any_name_that_the_system_allows(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/m\xff")
    model, other = Tied(), refill(Tied())
    ts.save_model(model, name)
    assert ts.load_model(other, name) == ([], [])
    assert same_values(model, other)


def test_tensors_at_odd_addresses(tmp_path: Path) -> None:
    header = (
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    )
    floats = torch.tensor([1.5, -2.0])
    (tmp_path / "m").write_bytes(len(header).to_bytes(8, "little") + header + b"\7" + raw(floats))
    for dtype in torch.float32, torch.float64:
        model = Tensors(a=torch.zeros(1, dtype=torch.uint8), b=torch.zeros(2, dtype=dtype))
        assert ts.load_model(model, tmp_path / "m") == ([], [])
        assert torch.equal(model.b, floats.to(dtype))


PEAK = """
import sys, torch, torch_safetensors
from torch import nn
def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
model = nn.ParameterList([nn.Parameter(torch.ones(12_500_000)) for _ in range(4)])
before = peak()
torch_safetensors.load_model(model, sys.argv[1], backend=sys.argv[2])
assert all(p[0] == 0 and p[-1] == 0 for p in model)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak")
@pytest.mark.parametrize("backend", BACKENDS)
def test_peak_memory_is_the_model_s_own(tmp_path: Path, backend: str) -> None:
    ts.save_file({str(i): torch.zeros(12_500_000) for i in range(4)}, tmp_path / "m")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "m"), backend]
    extra = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert extra < 0.25 * 200e6
    (tmp_path / "m").unlink()
