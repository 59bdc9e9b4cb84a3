"""load_model for modules that have a say in loading: hooks, methods of their own, extra state, subclasses."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch as reference
import torch
from model_zoo import Tied, bits, refill, same_values
from torch import nn

import torch_safetensors as ts
from torch_safetensors import SafetensorError, _models


@pytest.fixture(autouse=True)
def through_module(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every successful load of this file takes this way; the models that did."""
    models = []
    original = _models._load_through_module

    def spy(model, *args):
        models.append(model)
        return original(model, *args)

    monkeypatch.setattr(_models, "_load_through_module", spy)
    return models


class Renaming(nn.Linear):
    """Reads files whose weight has another name."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        if prefix + "kernel" in state_dict:
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "kernel").t()
        super()._load_from_state_dict(state_dict, prefix, *args)


class Packed(nn.Linear):
    """Saves what is not its memory."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[prefix + "doubled"] = self.weight.detach() * 2
        destination[prefix + "bias"] = self.bias.detach()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        with torch.no_grad():
            self.weight.copy_(state_dict[prefix + "doubled"] / 2)
            self.bias.copy_(state_dict[prefix + "bias"])


class SavesMore(nn.Linear):
    """The same with torch's own loading, which does not expect the name."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "norm"] = self.weight.detach().norm()


class ExtraState(nn.Linear):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.step = torch.tensor([3])

    def get_extra_state(self) -> torch.Tensor:
        return self.step

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.step = state


class ReportsMore(nn.Linear):
    """Extra state that is for reading only."""

    def get_extra_state(self) -> torch.Tensor:
        return self.weight.detach()


class Counting(nn.Linear):
    """Overrides what users call, and nothing else."""

    def load_state_dict(self, *args, **kwargs):
        self.loads = getattr(self, "loads", 0) + 1
        return super().load_state_dict(*args, **kwargs)


class OldStyle(nn.Linear):
    """Overrides the public methods in the form they had for long."""

    def state_dict(self):
        return {"w": self.weight.detach(), "b": self.bias.detach()}

    def load_state_dict(self, state_dict, strict=True):
        return super().load_state_dict({"weight": state_dict["w"], "bias": state_dict["b"]}, strict)


def with_pre_hook() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model[0].register_load_state_dict_pre_hook(lambda *args: None)
    return model


def with_post_hook() -> nn.Module:
    model = Tied()
    model.register_load_state_dict_post_hook(lambda *args: None)
    return model


def with_state_hooks() -> nn.Module:
    """As FSDP and others do: a prefix that comes with the state and goes when loading."""
    model = nn.Linear(3, 2)

    def add(module, state, prefix, local_metadata) -> None:
        for name in list(state):
            state["wrapped." + name] = state.pop(name)

    def remove(module, state, prefix, *args) -> None:
        for name in list(state):
            state[name.removeprefix("wrapped.")] = state.pop(name)

    model.register_state_dict_post_hook(add)
    model.register_load_state_dict_pre_hook(remove)
    return model


def tied_with_hook() -> nn.Module:
    model = Tied()
    model.decoder.register_load_state_dict_pre_hook(lambda *args: None)
    return model


MODELS = {
    "pre-hook": with_pre_hook,
    "post-hook": with_post_hook,
    "state hooks": with_state_hooks,
    "tied": tied_with_hook,
    "renaming": lambda: nn.Sequential(Renaming(3, 2)),
    "packed": lambda: nn.Sequential(Packed(3, 2)),
    "extra state": lambda: nn.Sequential(ExtraState(3, 2)),
    "old style": lambda: OldStyle(3, 2),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(3, 2)),
    "instance norm": lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_saved_model_comes_back(tmp_path: Path, make, through_module) -> None:
    model, other, theirs = make(), refill(make()), refill(make())
    ts.save_model(model, tmp_path / "m")
    assert not same_values(model, other)
    assert ts.load_model(other, tmp_path / "m") == ([], [])
    assert through_module == [other]
    assert same_values(model, other)
    # And the files of the two are one another's.
    reference.load_model(theirs, tmp_path / "m")
    assert same_values(other, theirs)
    reference.save_model(model, tmp_path / "theirs")
    assert ts.load_model(refill(other, 2), tmp_path / "theirs") == ([], [])
    assert same_values(model, other)


def test_an_override_reads_another_layout(tmp_path: Path) -> None:
    ts.save_file({"0.kernel": torch.arange(6.0).view(3, 2), "0.bias": torch.zeros(2)}, tmp_path / "m")
    model = nn.Sequential(Renaming(3, 2))
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert model[0].weight.tolist() == [[0, 2, 4], [1, 3, 5]]


def test_what_only_saving_adds_is_not_written_to(tmp_path: Path) -> None:
    model = SavesMore(3, 2)
    ts.save_model(model, tmp_path / "m")
    theirs = SavesMore(3, 2)
    assert reference.load_model(theirs, tmp_path / "m", strict=False)[1] == ["norm"]
    assert ts.load_model(refill(theirs), tmp_path / "m", strict=False) == ([], ["norm"])
    assert torch.equal(theirs.weight, model.weight)
    with pytest.raises(SafetensorError, match=r'Unexpected key\(s\) in state_dict: "norm"'):
        ts.load_model(theirs, tmp_path / "m")


def test_extra_state_for_reading_only_is_not_written_to(tmp_path: Path) -> None:
    state = {"weight": torch.rand(2, 3), "bias": torch.rand(2), "_extra_state": torch.zeros(2, 3)}
    ts.save_file(state, tmp_path / "m")
    model = ReportsMore(3, 2)
    assert ts.load_model(model, tmp_path / "m", strict=False)[0] == []
    assert torch.equal(model.weight, state["weight"])


def test_an_override_of_load_state_dict_is_called(tmp_path: Path) -> None:
    model = Counting(3, 2)
    ts.save_model(model, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert model.loads == 1


def test_names_are_those_that_the_module_loads_and_not_those_it_saves(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)

    def rename(module, state, prefix, local_metadata) -> None:
        state["renamed"] = state.pop("weight")

    model.register_state_dict_post_hook(rename)
    ts.save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert torch.equal(model.weight, torch.zeros(2, 3))


def test_hooks_run_once_with_the_file_s_tensors(tmp_path: Path) -> None:
    model = Tied()
    calls = []
    model.register_load_state_dict_pre_hook(lambda module, state, *args: calls.append(sorted(state)))
    model.register_load_state_dict_post_hook(lambda module, keys: calls.append(list(keys.missing_keys)))
    ts.save_model(model, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert calls == [["decoder.bias", "decoder.weight"], ["embedding.weight"]]


def test_a_post_hook_may_forgive_names(tmp_path: Path) -> None:
    ts.save_file({"weight": torch.zeros(2, 3), "old": torch.zeros(1)}, tmp_path / "m")
    model = nn.Linear(3, 2)

    def forgive(module, keys) -> None:
        keys.missing_keys.clear()
        keys.unexpected_keys.clear()

    model.register_load_state_dict_post_hook(forgive)
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert torch.equal(model.weight, torch.zeros(2, 3))


def test_extra_state_is_left_to_the_module(tmp_path: Path) -> None:
    state = {"weight": torch.rand(2, 3), "bias": torch.rand(2), "_extra_state": torch.tensor([1, 2])}
    ts.save_file(state, tmp_path / "m")
    model = ExtraState(3, 2)
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert model.step.tolist() == [1, 2]
    del state["_extra_state"]
    ts.save_file(state, tmp_path / "m")
    with pytest.raises(SafetensorError, match=r'Missing key\(s\) in state_dict: "_extra_state"'):
        ts.load_model(model, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m", strict=False) == (["_extra_state"], [])


def test_extra_state_that_is_not_a_tensor_is_missing(tmp_path: Path) -> None:
    class Dict(ExtraState):
        def get_extra_state(self) -> object:
            return {"step": 3}

    ts.save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "m")
    model = Dict(3, 2)
    before = bits(model)
    with pytest.raises(SafetensorError, match=r'Missing.*"_extra_state"'):
        ts.load_model(model, tmp_path / "m")
    assert bits(model) == before
    assert ts.load_model(model, tmp_path / "m", strict=False) == (["_extra_state"], [])
    assert torch.equal(model.weight, torch.zeros(2, 3))


def test_a_lazy_module_takes_its_shapes_from_the_file(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    ts.save_model(model, tmp_path / "m")
    lazy = nn.LazyLinear(2)
    assert ts.load_model(lazy, tmp_path / "m") == ([], [])
    assert same_values(model, lazy)
    ts.save_file({"bias": torch.zeros(2)}, tmp_path / "m")
    lazy = nn.LazyLinear(2)
    with pytest.raises(SafetensorError, match=r'Missing key\(s\) in state_dict: "weight"'):
        ts.load_model(lazy, tmp_path / "m")


# --- refusals ---------------------------------------------------------------------------------------


class Recomputing(nn.Module):
    """A hook computes a buffer that is not persistent from what was loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)
        self.b = nn.BatchNorm1d(2)
        self.tie = nn.Linear(3, 2, bias=False)
        self.tie.weight = self.a.weight
        self.register_buffer("cache", torch.rand(2), persistent=False)
        self.register_load_state_dict_post_hook(self.recompute)

    @staticmethod
    def recompute(module, keys) -> None:
        module.cache = module.a.bias.detach() * 2
        module.b.running_mean.fill_(9)


MISFITS = {
    "missing": (lambda s: s.pop("b.bias"), 'Missing key(s) in state_dict: "b.bias"', True),
    "unexpected": (lambda s: s.update(x=torch.ones(1)), 'Unexpected key(s) in state_dict: "x"', True),
    "shape": (lambda s: s.update({"b.bias": torch.zeros(3)}), "size mismatch for b.bias", False),
    "tie with other bytes": (
        lambda s: s.update({"tie.weight": torch.full((2, 3), 5.0)}),
        'Unexpected key(s) in state_dict: "tie.weight"',
        True,
    ),
    "tie with another shape": (lambda s: s.update({"tie.weight": torch.zeros(3)}), "size mismatch for tie", False),
}


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
@pytest.mark.parametrize(("change", "text", "only_strict"), MISFITS.values(), ids=MISFITS)
def test_a_refused_model_is_unchanged(tmp_path: Path, change, text, only_strict, assign, through_module) -> None:
    model = Recomputing()
    state = {name: torch.rand_like(t) if t.dim() else t + 5 for name, t in Recomputing().state_dict().items()}
    del state["tie.weight"]
    change(state)
    ts.save_file(state, tmp_path / "m")
    before = bits(model)
    for strict in [True] if only_strict else [True, False]:
        with pytest.raises(SafetensorError) as caught:
            ts.load_model(model, tmp_path / "m", strict, assign=assign)
        assert text in str(caught.value)
        assert str(caught.value).startswith(f"{tmp_path}/m: Error(s) in loading state_dict for Recomputing:")
        assert bits(model) == before
        assert model.tie.weight is model.a.weight
    if only_strict:
        missing, unexpected = ts.load_model(model, tmp_path / "m", False, assign=assign)
        assert [name for name in missing + unexpected if name in text]
        assert model.cache.tolist() == (model.a.bias * 2).tolist()
    assert through_module


def test_complex_to_real_is_refused(tmp_path: Path) -> None:
    model = with_pre_hook()
    state = model.state_dict()
    ts.save_file({**state, "0.bias": torch.rand(2, dtype=torch.complex64)}, tmp_path / "m")
    before = bits(refill(model))
    with pytest.raises(ValueError, match=r"tensor '0.bias': the file holds .*complex64.* imaginary part"):
        ts.load_model(model, tmp_path / "m")
    assert bits(model) == before


def test_an_expanded_parameter_is_refused_and_the_others_put_back(tmp_path: Path) -> None:
    model = with_pre_hook()
    model[0].bias = nn.Parameter(torch.ones(1).expand(2))
    ts.save_file({name: torch.rand(t.shape).to(t.dtype) for name, t in model.state_dict().items()}, tmp_path / "m")
    before = bits(model)
    with pytest.raises(SafetensorError, match="more than one element of the written-to tensor"):
        ts.load_model(model, tmp_path / "m")
    assert bits(model) == before


def test_inference_tensors_are_refused_and_the_others_put_back(tmp_path: Path) -> None:
    model = with_pre_hook()
    with torch.inference_mode():
        inference = nn.Linear(2, 2)
    model.append(inference)
    ts.save_file({name: torch.rand(t.shape).to(t.dtype) for name, t in model.state_dict().items()}, tmp_path / "m")
    before = bits(model)
    with pytest.raises(SafetensorError, match="Inplace update to inference tensor outside InferenceMode"):
        ts.load_model(model, tmp_path / "m")
    assert bits(model) == before


def test_an_error_of_the_module_s_own_puts_the_model_back(tmp_path: Path) -> None:
    model = Tied()

    def refuse(module, keys) -> None:
        raise KeyError("mine")

    model.register_load_state_dict_post_hook(refuse)
    ts.save_model(Tied(), tmp_path / "m")
    before = bits(model)
    for assign in False, True:
        with pytest.raises(KeyError, match="mine"):
            ts.load_model(model, tmp_path / "m", assign=assign)
        assert bits(model) == before


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (RuntimeError, "mine"),
        (RuntimeError, "{}: mine"),
        (RuntimeError, "Error(s) in loading state_dict for Tied:\n\tWhile copying 'x': ('CUDA out of memory. Tried',)"),
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (torch.OutOfMemoryError, "Error(s) in loading state_dict for Tied"),
        (NotImplementedError, "{}: mine"),
    ],
)
def test_an_error_of_the_module_s_own_keeps_its_type_and_words(
    tmp_path: Path, kind: type[RuntimeError], text: str
) -> None:
    model = Tied()
    error, cause = kind(text.format(tmp_path / "m")), ValueError("why")

    def fail(module, keys) -> None:
        raise error from cause

    model.register_load_state_dict_post_hook(fail)
    ts.save_model(Tied(), tmp_path / "m")
    before = bits(model)
    for assign in False, True:
        with pytest.raises(kind) as caught:
            ts.load_model(model, tmp_path / "m", assign=assign)
        assert caught.value is error
        assert error.__cause__ is cause
        assert bits(model) == before


def test_what_does_not_fit_a_tie_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of ties names the file itself."""

    def refuse(*_arguments: object) -> None:
        raise SafetensorError(f"{tmp_path}/m: bad")

    monkeypatch.setattr(_models, "check_or_load", refuse)
    ts.save_model(Tied(), tmp_path / "m")
    with pytest.raises(SafetensorError, match=f"^{tmp_path}/m: bad$"):
        ts.load_model(with_pre_hook(), tmp_path / "m", False)


def test_autograd_notices_a_load_between_forward_and_backward(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model.register_load_state_dict_pre_hook(lambda *args: None)
    ts.save_model(model, tmp_path / "m")
    loss = model(torch.rand(2, 3)).sum()
    ts.load_model(model, tmp_path / "m")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_batch_norm_without_its_counter_loads(tmp_path: Path) -> None:
    model = with_pre_hook()
    state = {name: t for name, t in model.state_dict().items() if "num_batches" not in name}
    ts.save_file(state, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])


# --- tensors that define what a copy means ----------------------------------------------------------


class Scaled(torch.Tensor):
    """A wrapper with a tensor of half the values; copying to it halves."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Scaled:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"Scaled({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.copy_.default:
            args[0].inner.copy_(args[1].inner if isinstance(args[1], Scaled) else args[1] / 2)
            return args[0]
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return Scaled(func(args[0].inner))
        raise NotImplementedError(str(func))


def test_a_tensor_subclass_copies_as_it_likes(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    model.weight = nn.Parameter(Scaled(torch.ones(1, 2)), requires_grad=False)
    ts.save_file({"weight": torch.tensor([[6.0, 8.0]]), "bias": torch.zeros(1)}, tmp_path / "m")
    assert ts.load_model(model, tmp_path / "m") == ([], [])
    assert model.weight.inner.tolist() == [[3, 4]]
    ts.save_file({"weight": torch.tensor([[2.0, 2.0]]), "bias": torch.zeros(3)}, tmp_path / "m")
    with pytest.raises(SafetensorError, match="size mismatch for bias"):
        ts.load_model(model, tmp_path / "m")
    assert model.weight.inner.tolist() == [[3, 4]]
    with pytest.raises(ValueError, match="'weight': has no memory of its own"):
        ts.save_model(model, tmp_path / "m")
