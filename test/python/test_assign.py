"""load_model(assign=True): the file's tensors in place of the model's, which may be on meta."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_zoo import Deep, Tensors, Tied, all_tensors, bits, same_values, versions
from torch import nn

import torch_safetensors as ts
from torch_safetensors import SafetensorError, _models


def on_meta(make) -> nn.Module:
    with torch.device("meta"):
        return make()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The tensors of the file that load_model got."""
    tensors: dict[str, torch.Tensor] = {}
    load_all = _models._load_all

    def spy(file):
        tensors.update(load_all(file))
        return dict(tensors)

    monkeypatch.setattr(_models, "_load_all", spy)
    return tensors


MODELS = {
    "tied": Tied,
    "deep": Deep,
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "compiled": lambda: torch.compile(Deep(), backend="eager"),
    "hooked": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
    "instance norm": lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
}


@pytest.mark.parametrize("backend", ["auto", "mmap", "pread"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_on_meta_takes_the_file_s_tensors_without_a_copy(tmp_path: Path, make, backend, loaded) -> None:
    model, other = make(), on_meta(make)
    ts.save_model(model, tmp_path / "m")
    assert ts.load_model(other, tmp_path / "m", assign=True, backend=backend) == ([], [])
    assert same_values(model, other)
    addresses = {tensor.data_ptr() for tensor in loaded.values()}
    assert all(tensor.data_ptr() in addresses for tensor in other.state_dict().values())
    assert [(name, type(t), t.requires_grad) for name, t in all_tensors(model).items()] == [
        (name, type(t), t.requires_grad) for name, t in all_tensors(other).items()
    ]


def test_a_model_with_values_takes_the_file_s_tensors_too(tmp_path: Path) -> None:
    model, other = Deep(), Deep()
    ts.save_model(model, tmp_path / "m")
    old = dict(other.named_parameters())
    before = {name: (p.data_ptr(), p._version, p.tolist()) for name, p in old.items()}
    assert ts.load_model(other, tmp_path / "m", assign=True) == ([], [])
    assert same_values(model, other)
    assert not {id(p) for p in other.parameters()} & {id(p) for p in old.values()}
    assert before == {name: (p.data_ptr(), p._version, p.tolist()) for name, p in old.items()}


@pytest.mark.parametrize("name", ["embedding.weight", "decoder.weight"])
def test_ties_stay_ties_whichever_name_the_file_has(tmp_path: Path, name: str) -> None:
    weight = torch.rand(6, 4)
    ts.save_file({name: weight, "decoder.bias": torch.zeros(6)}, tmp_path / "m")
    model = on_meta(Tied)
    assert ts.load_model(model, tmp_path / "m", assign=True) == ([], [])
    assert model.decoder.weight is model.embedding.weight
    assert torch.equal(model.decoder.weight, weight)


def test_ties_across_submodules_stay_ties(tmp_path: Path) -> None:
    ts.save_model(Deep(), tmp_path / "m")
    model = on_meta(Deep)
    ts.load_model(model, tmp_path / "m", assign=True)
    assert model.right["inner"][0].weight is model.left[0].weight
    assert model.again is model.right["inner"][1]
    assert not model.again.weight.is_meta
    model.left[1].train()
    model(torch.rand(5, 4)).sum().backward()
    assert model.right["inner"][0].weight.grad is not None


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_parameters_over_one_memory_stay_over_one_memory(tmp_path: Path, device: str) -> None:
    def make() -> nn.Module:
        first = nn.Parameter(torch.rand(3))
        return Tensors(a=first, b=nn.Parameter(first.data, requires_grad=False), c=first.data)

    ts.save_model(make(), tmp_path / "m")
    with torch.device(device):
        model = make()
    assert ts.load_model(model, tmp_path / "m", assign=True) == ([], [])
    assert model.a is not model.b
    assert model.a.data_ptr() == model.b.data_ptr() == model.c.data_ptr() != 0
    assert (model.a.requires_grad, model.b.requires_grad) == (True, False)
    assert "c" in model._buffers


def test_dtypes_become_the_file_s(tmp_path: Path) -> None:
    ts.save_model(Tied().half(), tmp_path / "m")
    for model in Tied(), on_meta(Tied):
        assert ts.load_model(model, tmp_path / "m", assign=True) == ([], [])
        assert model.decoder.weight.dtype == model.decoder.bias.dtype == torch.float16


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    model = on_meta(Tied)
    model.decoder.bias.requires_grad_(False)
    ts.load_model(model, tmp_path / "m", assign=True)
    assert not model.decoder.bias.requires_grad
    assert model.decoder.weight.requires_grad


def test_frozen_parameters_may_be_of_any_dtype(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return Tensors(a=nn.Parameter(torch.tensor([1, 2], dtype=torch.int8), requires_grad=False))

    ts.save_model(make(), tmp_path / "m")
    model = on_meta(make)
    assert ts.load_model(model, tmp_path / "m", assign=True) == ([], [])
    assert model.a.tolist() == [1, 2]


def test_writing_to_the_model_does_not_change_the_file(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    model = on_meta(Tied)
    ts.load_model(model, tmp_path / "m", assign=True, backend="mmap")
    with torch.no_grad():
        model.decoder.weight.zero_()
    assert (tmp_path / "m").read_bytes() == content


def test_on_the_device_of_the_caller(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    model = Tied()
    ts.load_model(model, tmp_path / "m", assign=True, device="meta")
    assert all(p.is_meta for p in model.parameters())


def test_one_element_becomes_a_scalar_as_in_torch(tmp_path: Path) -> None:
    ts.save_file({"a": torch.tensor([2.5]), "b": torch.tensor([4])}, tmp_path / "m")
    model = Tensors(a=nn.Parameter(torch.tensor(0.0)), b=torch.tensor(0))
    assert ts.load_model(model, tmp_path / "m", assign=True) == ([], [])
    assert (model.a.item(), model.b.item(), model.a.shape, model.b.shape) == (2.5, 4, (), ())
    assert isinstance(model.a, nn.Parameter)
    assert model.a.is_leaf
    tie = nn.Parameter(torch.tensor(0.0))
    model = Tensors(a=tie, tie=tie, b=torch.tensor(0))
    assert ts.load_model(model, tmp_path / "m", assign=True) == ([], [])
    assert model.a is model.tie


def test_batch_norm_without_its_counter(tmp_path: Path) -> None:
    state = nn.BatchNorm1d(3).state_dict()
    del state["num_batches_tracked"]
    ts.save_file(state, tmp_path / "m")
    model = on_meta(lambda: nn.BatchNorm1d(3))
    assert ts.load_model(model, tmp_path / "m", assign=True) == ([], [])
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Tied, lambda: on_meta(Tied)], ids=["cpu", "meta"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_refused_model_is_unchanged(tmp_path: Path, make, strict: bool) -> None:
    state = {"embedding.weight": torch.rand(6, 4), "decoder.bias": torch.rand(5)}
    ts.save_file(state, tmp_path / "m")
    model = make()
    before = [(id(tensor), tensor._version) for tensor in all_tensors(model).values()]
    with pytest.raises(SafetensorError, match=r"size mismatch for decoder\.bias"):
        ts.load_model(model, tmp_path / "m", strict, assign=True)
    assert [(id(tensor), tensor._version) for tensor in all_tensors(model).values()] == before


def test_names_that_are_missing(tmp_path: Path) -> None:
    ts.save_file({"decoder.bias": torch.rand(6), "zz": torch.rand(1), "aa": torch.rand(1)}, tmp_path / "m")
    model = on_meta(Tied)
    with pytest.raises(SafetensorError, match=r'Missing.*"decoder\.weight"\n.*Unexpected.*"aa", "zz"'):
        ts.load_model(model, tmp_path / "m", assign=True)
    assert model.decoder.bias.is_meta
    assert ts.load_model(model, tmp_path / "m", False, assign=True) == (["decoder.weight"], ["aa", "zz"])
    assert not model.decoder.bias.is_meta
    assert model.decoder.weight is model.embedding.weight
    assert model.decoder.weight.is_meta


def test_a_view_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    def make() -> nn.Module:
        base = torch.rand(8)
        return Tensors(full=nn.Parameter(base), view=base[2:4])

    ts.save_model(make(), tmp_path / "m")
    for model in make(), on_meta(make):
        before = [id(tensor) for tensor in all_tensors(model).values()]
        with pytest.raises(ValueError, match=r"'view': is a view of another tensor .* load without it"):
            ts.load_model(model, tmp_path / "m", assign=True)
        assert [id(tensor) for tensor in all_tensors(model).values()] == before


def test_a_dtype_that_cannot_require_grad_is_refused_before_anything_is_replaced(tmp_path: Path) -> None:
    ts.save_file({"a": torch.rand(2), "b": torch.tensor([1, 2])}, tmp_path / "m")
    model = Tensors(a=nn.Parameter(torch.rand(2)), b=nn.Parameter(torch.rand(2)))
    before = bits(model), versions(model)
    with pytest.raises(RuntimeError, match="floating point"):
        ts.load_model(model, tmp_path / "m", assign=True)
    assert (bits(model), versions(model)) == before


def test_without_assign_the_error_names_it(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    model = on_meta(Tied)
    with pytest.raises(ValueError, match=r"tensor '[a-z.]+': is on the meta device .*assign=True"):
        ts.load_model(model, tmp_path / "m")
    assert all(p.is_meta for p in model.parameters())


def test_without_assign_the_error_of_a_module_with_hooks_names_it(tmp_path: Path) -> None:
    ts.save_model(MODELS["hooked"](), tmp_path / "m")
    model = on_meta(MODELS["hooked"])
    with pytest.raises(ValueError, match=r"tensor '[a-z.0-9]+': is on the meta device .*assign=True"):
        ts.load_model(model, tmp_path / "m")


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ts.load_model(on_meta(Tied), tmp_path / "no", assign=True)
