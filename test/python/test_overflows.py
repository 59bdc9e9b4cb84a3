"""Conversions that turn finite values into infinities: one warning a call, with counts and names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Cli
from torch import nn

import torch_safetensors as ts

INF = float("inf")
TENSORS = {
    "large": torch.tensor([1.0, 1e6, -7e4, INF, float("nan")]),
    "larger": torch.tensor([1e39, 2.0], dtype=torch.float64),
    "small": torch.ones(3),
    "whole": torch.full((2,), 10**6),
}
LOST = (
    "3 finite values are out of range of the dtype converted to, and became infinite, NaN or its largest number: "
    "{}; choose a dtype with a larger range to keep them"
)
BOTH = LOST.format("1 of tensor 'larger' (F64 to F16), 2 of tensor 'large' (F32 to F16)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ts.save_file(TENSORS, tmp_path / "x.safetensors", checksum=True)
    return tmp_path / "x.safetensors"


def warned(call: Callable[[], Any]) -> list[str]:
    """What it warned of, each at a line of this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert [warning.filename for warning in caught] == [__file__] * len(caught)
    assert {warning.category for warning in caught} <= {UserWarning}
    return [str(warning.message) for warning in caught]


def load_open(path: Path, **options: Any) -> None:
    with path.open("rb") as file:
        ts.load_file(file, **options)


LOADS: dict[str, Callable[..., Any]] = {
    "load_file": ts.load_file,
    "load_file, verified": lambda path, **options: ts.load_file(path, verify=True, **options),
    "load_file of names": lambda path, **options: ts.load_file(path, names="*", **options),
    "file object": load_open,
    "url": lambda path, **options: ts.load_file(f"file://{path}", **options),
    "iter_tensors": lambda path, **options: list(ts.iter_tensors(path, **options)),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_one_warning_for_a_call(path: Path, load: Callable[..., Any]) -> None:
    assert warned(lambda: load(path, dtype=torch.float16)) == [f"{path}: {BOTH}"]
    text = LOST.replace("3 finite values are", "1 finite value is").format("1 of tensor 'larger' (F64 to F32)")
    assert warned(lambda: load(path, dtype=torch.float32)) == [f"{path}: {text}"]
    assert warned(lambda: load(path, dtype=torch.float64)) == []
    assert warned(lambda: load(path)) == []


def test_of_a_checkpoint_in_several_files(tmp_path: Path) -> None:
    ts.save_sharded(TENSORS, tmp_path, max_shard_size=24)
    (text,) = warned(lambda: ts.load_file(tmp_path, dtype=torch.float16))
    assert text.startswith(f"{tmp_path}: 3 finite values are out of range")


def test_only_what_is_loaded_counts(path: Path) -> None:
    assert warned(lambda: ts.load_file(path, names="small", dtype=torch.float16)) == []
    (text,) = warned(lambda: ts.load_file(path, rename={"large": "x"}, names="large", dtype=torch.float16))
    assert "2 of tensor 'large' (F32 to F16)" in text
    assert warned(lambda: ts.load_file(path, "meta", dtype=torch.float16)) == []


def test_an_iteration_that_is_left_early_tells_of_what_it_gave(path: Path) -> None:
    def first() -> None:
        tensors = ts.iter_tensors(path, names="large", dtype=torch.float16)
        next(tensors)
        tensors.close()

    (text,) = warned(first)
    assert text.startswith(f"{path}: 2 finite values are out of range")


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (torch.float8_e4m3fn, [500.0, -1e30]),  # which has no infinity, and gives 448 or NaN
        (torch.float8_e4m3fnuz, [250.0]),
        (torch.float8_e5m2, [62_000.0]),
        (torch.float8_e5m2fnuz, [62_000.0]),
        (torch.bfloat16, [3.4e38]),
    ],
)
def test_dtypes_with_and_without_infinity(tmp_path: Path, dtype: torch.dtype, values: list[float]) -> None:
    path = tmp_path / "x"
    ts.save_file({"w": torch.tensor([*values, 1.0, INF])}, path)
    (text,) = warned(lambda: ts.load_file(path, dtype=dtype))
    assert f"{len(values)} of tensor 'w' (F32 to " in text
    ts.save_file({"w": torch.tensor([1.0, 200.0, INF])}, path)
    assert warned(lambda: ts.load_file(path, dtype=dtype)) == []


class Model(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.large = nn.Parameter(torch.zeros(5, dtype=dtype))
        self.larger = nn.Parameter(torch.zeros(2, dtype=dtype))
        self.small = nn.Parameter(torch.zeros(3, dtype=dtype))
        self.register_buffer("whole", torch.zeros(2, dtype=torch.int64))


def test_a_model_of_another_dtype(path: Path) -> None:
    (text,) = warned(lambda: ts.load_model(Model(), path))
    assert text.startswith(f"{path}: 3 finite values are out of range")
    assert "2 of tensor 'large' (F32 to F16)" in text
    assert "1 of tensor 'larger' (F64 to F16)" in text
    assert warned(lambda: ts.load_model(Model(torch.float64), path)) == []
    assert warned(lambda: ts.load_model(Model(), path, assign=True)) == []


def test_whole_numbers_may_be_too_large_for_a_float(path: Path) -> None:
    model = Model(torch.float64)
    model.whole = model.whole.half()
    (text,) = warned(lambda: ts.load_model(model, path))
    assert "2 of tensor 'whole' (I64 to F16)" in text


def test_a_model_with_a_say_in_loading(path: Path) -> None:
    def hooked(dtype: torch.dtype = torch.float16) -> nn.Module:
        model = Model(dtype)
        model.register_load_state_dict_post_hook(lambda *_: None)
        return model

    (text,) = warned(lambda: ts.load_model(hooked(), path))
    assert text.startswith(f"{path}: 3 finite values are out of range")
    assert warned(lambda: ts.load_model(hooked(torch.float64), path)) == []


def test_a_model_that_converts_in_a_way_of_its_own(path: Path) -> None:
    class Scaled(Model):
        def _load_from_state_dict(self, state: dict[str, Any], *arguments: Any) -> None:
            state = {name: values.nan_to_num().clamp(-1, 1) for name, values in state.items()}
            super()._load_from_state_dict(state, *arguments)

    assert warned(lambda: ts.load_model(Scaled(), path)) == []


def test_the_warning_may_be_an_error(path: Path) -> None:
    with pytest.raises(UserWarning, match="3 finite values are out of range"):
        ts.load_file(path, dtype=torch.float16)


def test_many_tensors_are_counted(tmp_path: Path) -> None:
    ts.save_file({f"t{i}": torch.tensor([1e6]) for i in range(240)}, tmp_path / "x")
    (text,) = warned(lambda: ts.load_file(tmp_path / "x", dtype=torch.float16))
    assert text.startswith(f"{tmp_path / 'x'}: 240 finite values are out of range")
    assert ", and 235 more tensors; choose" in text


def test_convert(cli: Cli, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    done = cli("convert", path, target, "--dtype", "f16")
    assert (done.status, done.err) == (0, f"torch-safetensors: {path}: {BOTH}\n")
    torch.save(TENSORS, tmp_path / "in.pt")
    done = cli("convert", tmp_path / "in.pt", target, "--dtype", "f16", "--force")
    assert done.status == 0
    assert done.err.startswith(f"torch-safetensors: {tmp_path / 'in.pt'}: 3 finite values are out of range")
    done = cli("convert", path, tmp_path / "out.pt", "--dtype", "f16")
    assert done.err == f"torch-safetensors: {path}: {BOTH}\n"


def test_graphs_do_not_look(path: Path) -> None:
    """They would have to read each value to decide: docs/limits.md."""
    name = str(path)
    compiled = torch.compile(
        lambda x: x + ts.load_file(name, names="large", dtype=torch.float16)["large"], fullgraph=True, backend="eager"
    )
    assert warned(lambda: compiled(torch.ones(5))) == []


def loads_into_halves(path: Path, strategy: str) -> list[str]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_module, distribute_tensor

    import torch_safetensors.distributed

    mesh = init_device_mesh("cpu", (2,))
    model = Model()

    def replicate(_: str, module: nn.Module, mesh: Any) -> None:
        for key, parameter in module.named_parameters(recurse=False):
            spread = distribute_tensor(parameter.data, mesh, [Replicate()])
            module.register_parameter(key, nn.Parameter(spread))

    distribute_module(model, mesh, replicate)
    return warned(lambda: torch_safetensors.distributed.load_model(model, path, strategy=strategy))


@pytest.mark.parametrize("strategy", ["independent", "broadcast"])
def test_a_model_over_ranks(path: Path, strategy: str) -> None:
    from ranks import run_ranks

    for texts in run_ranks(2, loads_into_halves, path, strategy):
        assert len(texts) == 1
        assert texts[0].startswith(f"{path}: 3 finite values are out of range")
