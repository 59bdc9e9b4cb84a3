"""save_model: shared storage, metadata, and byte equality with the reference on all that it can save."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import safetensors.torch as reference
import torch
from helpers import assert_aligned
from model_zoo import Deep, Tensors, Tied, raw, refill, same_file, same_values, split
from torch import nn

import torch_safetensors as ts


def weight_norm() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))


def channels_last() -> nn.Module:
    return nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)


def inner_views() -> nn.Module:
    # The middle one ends before the last begins, which is inside the full one all the same.
    full = torch.rand(64)
    return Tensors(full=nn.Parameter(full), first=full[:16], second=full[8:32])


def dtype_view() -> nn.Module:
    full = torch.rand(8)
    return Tensors(floats=full, ints=full.view(torch.int32))


CAN_SAVE = {
    "tied": Tied,
    "deep": Deep,
    "empty": nn.Module,
    "no tensors": lambda: nn.Sequential(nn.ReLU()),
    "scripted": lambda: torch.jit.script(Tied()),
    "compiled": lambda: torch.compile(Deep(), backend="eager"),
    "batch norm": lambda: nn.BatchNorm2d(3),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
    "weight norm": weight_norm,
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(3, 3)),
    "half": lambda: Deep().half(),
    "bfloat16": lambda: Deep().bfloat16(),
    "complex": lambda: nn.Linear(2, 2, dtype=torch.complex64),
    "channels last": channels_last,
    "inner views": inner_views,
    "dtype view": dtype_view,
    "empty parameter": lambda: Tensors(a=nn.Parameter(torch.rand(0, 4)), b=torch.rand(2)),
    "transposed alone": lambda: Tensors(a=torch.rand(2, 3).t()),
    "names": lambda: Tensors(
        **{"ä": torch.rand(2), "z": torch.rand(2), "\U0001f600": torch.rand(2), "a\n": torch.rand(1)}
    ),
}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["bare", "metadata"])
@pytest.mark.parametrize("make", CAN_SAVE.values(), ids=CAN_SAVE)
def test_writes_the_bytes_of_the_reference(tmp_path: Path, make, metadata) -> None:
    model = make()
    ts.save_model(model, tmp_path / "ours", metadata)
    reference.save_model(model, tmp_path / "theirs", metadata and dict(metadata))  # which adds to it
    assert same_file(tmp_path / "ours", tmp_path / "theirs")


def test_writes_the_bytes_of_the_reference_with_empty_metadata(tmp_path: Path) -> None:
    ts.save_model(nn.Linear(2, 2), tmp_path / "ours", {})
    reference.save_model(nn.Linear(2, 2), tmp_path / "theirs", {})
    assert split(tmp_path / "ours")[:2] == split(tmp_path / "theirs")[:2]
    assert split(tmp_path / "ours")[0] == {}


def test_an_empty_model_with_empty_metadata_is_readable(tmp_path: Path) -> None:
    ts.save_model(nn.Module(), tmp_path / "m", {})
    assert split(tmp_path / "m") == ({}, "{}", b"")
    assert reference.load_file(tmp_path / "m") == {}


def test_a_tie_is_written_once_under_the_smallest_name(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    assert sorted(ts.load_file(tmp_path / "m")) == ["decoder.bias", "decoder.weight"]
    assert split(tmp_path / "m")[0] == {"embedding.weight": "decoder.weight"}


def test_buffers_that_are_not_persistent_are_left_out(tmp_path: Path) -> None:
    ts.save_model(Deep(), tmp_path / "m")
    assert "steps" in ts.load_file(tmp_path / "m")
    assert "scratch" not in ts.load_file(tmp_path / "m")


def test_names_of_a_compiled_module_are_those_of_its_state_dict(tmp_path: Path) -> None:
    ts.save_model(torch.compile(nn.Linear(2, 2), backend="eager"), tmp_path / "m")
    assert sorted(ts.load_file(tmp_path / "m")) == ["_orig_mod.bias", "_orig_mod.weight"]


def test_state_dict_hooks_decide_what_is_saved(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)

    def rename(module, state, prefix, local_metadata):
        state["renamed"] = state.pop("weight")

    model.register_state_dict_post_hook(rename)
    ts.save_model(model, tmp_path / "ours")
    reference.save_model(model, tmp_path / "theirs")
    assert same_file(tmp_path / "ours", tmp_path / "theirs")
    assert sorted(ts.load_file(tmp_path / "ours")) == ["bias", "renamed"]


# --- alignment --------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", [8, 64, 4096])
@pytest.mark.parametrize("make", CAN_SAVE.values(), ids=CAN_SAVE)
def test_alignment(tmp_path: Path, make, alignment: int) -> None:
    model, other = make(), refill(make())
    ts.save_model(model, tmp_path / "m", {"format": "pt"}, alignment=alignment)
    assert_aligned(tmp_path / "m", alignment)
    plain = tmp_path / "plain"
    ts.save_model(model, plain, {"format": "pt"})
    assert split(tmp_path / "m")[0] == split(plain)[0]
    theirs, expected = reference.load_file(tmp_path / "m"), ts.load_file(plain)
    assert theirs.keys() == expected.keys()
    assert all(raw(theirs[name]) == raw(expected[name]) for name in expected)
    assert ts.load_model(other, tmp_path / "m") == ([], [])
    assert same_values(model, other)


@pytest.mark.parametrize("alignment", [64, 4096])
def test_mapped_weights_begin_at_multiples(tmp_path: Path, alignment: int) -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(64, 64))
    ts.save_model(model, tmp_path / "m", alignment=alignment, checksum=True)
    loaded = ts.load_file(tmp_path / "m", backend="mmap", verify=True)
    for name in "0.weight", "1.weight":  # 4096 and 16384 bytes
        assert loaded[name].data_ptr() % alignment == 0
    assert list(loaded)[-2:] == (["1.bias", "0.bias"] if alignment == 4096 else ["1.bias", "1.weight"])


@pytest.mark.parametrize("alignment", [-64, 4, 24, 8192, True])
def test_other_alignments_are_refused(tmp_path: Path, alignment: int) -> None:
    text = f"alignment must be 0 or a power of two from 8 to 4096, not {int(alignment)}$"
    with pytest.raises(ValueError, match=text):
        ts.save_model(Tied(), tmp_path / "m", alignment=alignment)
    with pytest.raises(TypeError, match=r"^alignment: expected int, not str$"):
        ts.save_model(Tied(), tmp_path / "m", alignment="64")
    assert not (tmp_path / "m").exists()


# --- metadata ---------------------------------------------------------------------------------------


def test_metadata_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    metadata = {"format": "pt"}
    ts.save_model(Tied(), tmp_path / "m", metadata)
    assert metadata == {"format": "pt"}
    assert split(tmp_path / "m")[0] == {"format": "pt", "embedding.weight": "decoder.weight"}


def test_an_entry_of_the_caller_wins_over_a_dropped_name(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m", {"embedding.weight": "mine"})
    assert split(tmp_path / "m")[0] == {"embedding.weight": "mine"}


def test_metadata_is_written_sorted_and_so_every_save_alike(tmp_path: Path) -> None:
    metadata = dict.fromkeys("qwertyuiop", "x")
    ts.save_model(Deep(), tmp_path / "a", metadata)
    names = list(split(tmp_path / "a")[0])
    assert names == sorted(names)
    assert len(names) == 13  # the tie, and weight and bias of the module with two names
    shuffled = dict(reversed(metadata.items()))
    torch.manual_seed(0)
    first = Deep()
    ts.save_model(first, tmp_path / "a", metadata)
    ts.save_model(first, tmp_path / "b", shuffled)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_metadata_that_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="the value of 'epoch' is int"):
        ts.save_model(Tied(), tmp_path / "m", {"epoch": 3})
    assert not (tmp_path / "m").exists()


# --- what the reference cannot save -----------------------------------------------------------------


def a_slice() -> nn.Module:
    return Tensors(w=nn.Parameter(torch.rand(8)[2:6]))


def disjoint_slices() -> nn.Module:
    base = torch.rand(8)
    return Tensors(a=nn.Parameter(base[:4]), b=nn.Parameter(base[4:]))


def overlapping_slices() -> nn.Module:
    base = torch.rand(8)
    return Tensors(a=base[:5], b=base[3:])


def full_and_two_inner_views() -> nn.Module:
    # The reference compares a view with the one before it alone, and so splits the last one off.
    base = torch.rand(64)
    return Tensors(full=nn.Parameter(base), v1=base[16:32], v2=base[32:48])


def transposed_tie() -> nn.Module:
    base = nn.Parameter(torch.rand(3, 4))
    return Tensors(a=base, b=nn.Parameter(base.detach().t()))


def zero_size_view() -> nn.Module:
    base = torch.rand(4)
    return Tensors(full=base, none=base[:0], alone=torch.rand(3)[3:])


def tied_slices() -> nn.Module:
    base = torch.rand(4, 4)
    return Tensors(a=base[:, :2], b=base[:, :2], c=base[:, 2:])


def tied_zero_size_views() -> nn.Module:
    base = torch.rand(4)
    return Tensors(a=base[:0], b=base[:0])


def expanded() -> nn.Module:
    return Tensors(a=torch.rand(3, 1).expand(3, 4))


CANNOT_SAVE = {
    "slice": (a_slice, {}),
    "disjoint": (disjoint_slices, {}),
    "overlapping": (overlapping_slices, {}),
    "full and two views": (full_and_two_inner_views, {}),
    "transposed tie": (transposed_tie, {}),
    "zero-size": (zero_size_view, {}),
    "tied slices": (tied_slices, {"b": "a"}),
    "tied zero-size": (tied_zero_size_views, {"b": "a"}),
    "expanded": (expanded, {}),
}


@pytest.mark.parametrize(("make", "dropped"), CANNOT_SAVE.values(), ids=CANNOT_SAVE)
def test_stores_in_full_what_the_reference_cannot(tmp_path: Path, make, dropped: dict[str, str]) -> None:
    model = make()
    with pytest.raises(RuntimeError):
        reference.save_model(model, tmp_path / "theirs")
    ts.save_model(model, tmp_path / "ours")
    state = model.state_dict()
    loaded = reference.load_file(tmp_path / "ours")
    assert loaded.keys() == state.keys() - dropped.keys()
    assert all(raw(loaded[name]) == raw(state[name]) and loaded[name].shape == state[name].shape for name in loaded)
    assert (split(tmp_path / "ours")[0] or {}) == dropped


@pytest.mark.parametrize(("make", "dropped"), [case for case in CANNOT_SAVE.values() if case[0] is not expanded])
def test_loads_what_the_reference_cannot_save(tmp_path: Path, make, dropped) -> None:
    model, other = make(), refill(make())
    ts.save_model(model, tmp_path / "m")
    assert not same_values(model, other) or make is tied_zero_size_views
    assert ts.load_model(other, tmp_path / "m") == ([], [])
    assert same_values(model, other)


def test_a_lazy_conjugate_is_not_mistaken_for_the_memory_it_shares(tmp_path: Path) -> None:
    base = torch.rand(3, dtype=torch.complex64)
    model = Tensors(a=base.conj(), b=base)
    ts.save_model(model, tmp_path / "m")
    loaded = ts.load_file(tmp_path / "m")
    assert torch.equal(loaded["a"], base.conj().resolve_conj())
    assert torch.equal(loaded["b"], base)
    other = torch.zeros(3, dtype=torch.complex64)
    assert ts.load_model(Tensors(a=other.conj(), b=other), tmp_path / "m") == ([], [])
    assert torch.equal(other, base)


# --- refusals ---------------------------------------------------------------------------------------


class ExtraState(nn.Linear):
    def get_extra_state(self) -> object:
        return {"step": 3}

    def set_extra_state(self, state: object) -> None:
        self.state = state


def test_extra_state_that_is_not_a_tensor_is_a_clear_error(tmp_path: Path) -> None:
    model = nn.Sequential(ExtraState(2, 2))
    with pytest.raises(ValueError, match=r"'0\._extra_state' is extra state of type dict.*tensor"):
        ts.save_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_not_contiguous_without_force_names_the_way_out(tmp_path: Path) -> None:
    model = channels_last()
    with pytest.raises(ValueError, match=r"'weight': is not contiguous.*force_contiguous=True"):
        ts.save_model(model, tmp_path / "m", force_contiguous=False)
    assert not (tmp_path / "m").exists()
    ts.save_model(Tied(), tmp_path / "m", force_contiguous=False)
    assert sorted(ts.load_file(tmp_path / "m")) == ["decoder.bias", "decoder.weight"]


def test_a_save_leaves_the_model_alone(tmp_path: Path) -> None:
    model = channels_last()
    before = [(p.data_ptr(), p.stride(), p._version) for p in model.parameters()]
    ts.save_model(model, tmp_path / "m")
    assert before == [(p.data_ptr(), p.stride(), p._version) for p in model.parameters()]


@pytest.mark.parametrize(
    ("tensor", "error", "text"),
    [
        (torch.eye(2).to_sparse(), ValueError, "'w': is Sparse.*to_dense"),
        (torch.rand(2, dtype=torch.complex128), ValueError, "'w': .*ComplexDouble.*view_as_real"),
        (torch.empty(2, device="meta"), NotImplementedError, "'w': is on the meta device"),
    ],
    ids=["sparse", "complex128", "meta"],
)
def test_tensors_that_the_format_cannot_hold(tmp_path: Path, tensor, error, text: str) -> None:
    with pytest.raises(error, match=text):
        ts.save_model(Tensors(a=torch.rand(2), w=tensor), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_old_file_survives_a_save_that_is_refused(tmp_path: Path) -> None:
    ts.save_model(Tied(), tmp_path / "m")
    before = (tmp_path / "m").read_bytes()
    with pytest.raises(ValueError, match="extra state"):
        ts.save_model(ExtraState(2, 2), tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == before


def test_the_system_s_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ts.save_model(Tied(), tmp_path / "no" / "m")
    with pytest.raises(IsADirectoryError):
        ts.save_model(Tied(), tmp_path)


# --- random models ----------------------------------------------------------------------------------


def random_view(base: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Some view of a storage of 24 elements."""
    start, stop = sorted(rng.sample(range(25), 2))
    return rng.choice(
        [
            lambda: base,
            lambda: base,
            lambda: base.view(4, 6),
            lambda: base.view(4, 6).t(),
            lambda: base.view(2, 3, 4)[:, 1],
            lambda: base[start:stop],
            lambda: base[start:stop],
            lambda: base[start:stop:2],
            lambda: base[start:start],
            lambda: base.view(torch.uint8),
            lambda: base.view(1, 24, 1).transpose(0, 2),
        ]
    )()


def random_storages(rng: random.Random) -> list[dict[str, torch.Tensor]]:
    """Named tensors of one storage each: views and ties, which are the most frequent in life."""
    names = rng.sample("abcdefghijklmnop", 16)
    storages = []
    for _ in range(rng.randint(1, 4)):
        dtype = rng.choice([torch.float32, torch.float16, torch.int64, torch.complex64])
        base = torch.randint(1, 100, (24,), generator=torch.Generator().manual_seed(rng.getrandbits(32))).to(dtype)
        views = [random_view(base, rng) for _ in range(rng.choice([1, 1, 2, 3]))]
        views += [rng.choice(views) for _ in range(rng.choice([0, 0, 1]))]
        storages.append({names.pop(): view for view in views})
    return storages


def reference_saves(tensors: dict[str, torch.Tensor], path: Path) -> bool:
    try:
        reference.save_model(Tensors(**tensors), path)
    except RuntimeError:
        return False
    return True


def is_same_view(a: torch.Tensor, b: torch.Tensor) -> bool:
    form = [(t.data_ptr(), t.dtype, t.shape, t.stride()) for t in (a, b)]
    return form[0] == form[1]


def check_file(path: Path, storages: list[dict[str, torch.Tensor]], scratch: Path) -> None:
    """Every name is there in full, or stands for one that holds its values."""
    loaded = ts.load_file(path)
    dropped = split(path)[0] or {}
    for storage in storages:
        resolved = reference_saves(storage, scratch)
        for name, tensor in storage.items():
            if name in loaded:
                assert loaded[name].shape == tensor.shape
                assert raw(loaded[name]) == raw(tensor)
            else:
                kept = storage[dropped[name]]
                assert dropped[name] in loaded
                assert resolved or is_same_view(kept, tensor)


def test_random_models_against_the_reference(tmp_path: Path) -> None:
    ours, theirs, scratch = tmp_path / "ours", tmp_path / "theirs", tmp_path / "scratch"
    equal = 0
    for seed in range(400):
        storages = random_storages(random.Random(seed))
        tensors = {name: tensor for storage in storages for name, tensor in storage.items()}
        ts.save_model(Tensors(**tensors), ours)
        if reference_saves(tensors, theirs):
            assert same_file(ours, theirs), seed
            equal += 1
        else:
            check_file(ours, storages, scratch)
    assert 40 < equal < 360  # both cases are tested


def test_random_models_come_back(tmp_path: Path) -> None:
    for seed in range(400):
        model, other = (
            Tensors(
                **{name: tensor for storage in random_storages(random.Random(seed)) for name, tensor in storage.items()}
            )
            for _ in range(2)
        )
        ts.save_model(model, tmp_path / "m")
        with torch.no_grad():
            for tensor in other.buffers():
                tensor.zero_()
        assert ts.load_model(other, tmp_path / "m") == ([], []), seed
        assert same_values(model, other), seed


class Stateful(torch.nn.Module):
    """With extra state that says nothing until it has been used."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.state: object = None

    def get_extra_state(self) -> object:
        return self.state

    def set_extra_state(self, state: object) -> None:
        self.state = state


def test_extra_state_of_none_is_left_out_and_not_missed(tmp_path: Path) -> None:
    model = torch.nn.Sequential(Stateful(), Stateful())
    assert model.state_dict()["0._extra_state"] is None
    saves = {
        "file": lambda path: ts.save_model(model, path),
        "shards": lambda path: ts.save_sharded(model, path, max_shard_size=8),
    }
    for name, save in saves.items():
        save(tmp_path / name)
        assert sorted(ts.load_file(tmp_path / name)) == ["0.weight", "1.weight"]
        other = torch.nn.Sequential(Stateful(), Stateful())
        with torch.no_grad():
            other[0].weight.zero_()
        assert ts.load_model(other, tmp_path / name) == ([], [])
        assert torch.equal(other[0].weight, model[0].weight)
        assert ts.load_model(other, tmp_path / name, assign=True) == ([], [])


def test_extra_state_that_would_be_lost_is_refused_and_missed(tmp_path: Path) -> None:
    model = torch.nn.Sequential(Stateful(), Stateful())
    ts.save_model(model, tmp_path / "x")
    model[1].state = {"step": 3}
    with pytest.raises(ValueError, match=r"'1\._extra_state' is extra state of type dict"):
        ts.save_model(model, tmp_path / "y")
    with pytest.raises(ts.SafetensorError, match=r'Missing key\(s\) in state_dict: "1\._extra_state"$'):
        ts.load_model(model, tmp_path / "x")
    assert ts.load_model(model, tmp_path / "x", strict=False) == (["1._extra_state"], [])
    model[1].state = torch.tensor(3)
    ts.save_model(model, tmp_path / "y")
    other = torch.nn.Sequential(Stateful(), Stateful())
    ts.load_model(other, tmp_path / "y")
    assert other[1].state == 3
