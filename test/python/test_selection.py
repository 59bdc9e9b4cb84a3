"""What of a checkpoint is loaded, where to, as what, and under which names."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from helpers import run_in_process
from torch import Tensor

import torch_safetensors as ts

MIB = 1 << 20

TENSORS = {
    "encoder.layer.1.weight": torch.arange(6.0).view(2, 3),
    "encoder.layer.10.weight": torch.ones(2, dtype=torch.float16),
    "encoder.layer.1": torch.zeros(1, dtype=torch.float64),
    "decoder[0]": torch.arange(3),
    "decoder0": torch.tensor([True]),
    "scale": torch.tensor(2.0, dtype=torch.bfloat16),
}


@pytest.fixture
def path(tmp_path) -> Path:
    ts.save_file(TENSORS, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def names_of(path: Path, names: object) -> set[str]:
    loaded = ts.load_file(path, names=names)
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in loaded)
    assert list(loaded) == [name for name in ts.load_file(path) if name in loaded]
    assert sorted(name for name, _ in ts.iter_tensors(path, names=names)) == sorted(loaded)
    return set(loaded)


def test_names_are_exact_or_patterns(path) -> None:
    assert names_of(path, ["scale", "decoder0"]) == {"scale", "decoder0"}
    assert names_of(path, "encoder.*") == {name for name in TENSORS if name.startswith("encoder.")}
    assert names_of(path, ["encoder.layer.?.*", "s*"]) == {"encoder.layer.1.weight", "scale"}
    assert names_of(path, ("*", "scale")) == set(TENSORS)
    assert names_of(path, []) == set()


def test_a_name_with_brackets_is_a_name_first(path) -> None:
    assert names_of(path, "decoder[0]") == {"decoder[0]"}
    assert names_of(path, "decoder[0-9]") == {"decoder0"}


def test_a_name_that_is_not_there(path) -> None:
    message = f"{path}: no tensor has the name 'encoder.x*' or matches it, among 6 tensors"
    with pytest.raises(ts.SafetensorError, match=re.escape(message)):
        ts.load_file(path, names=["scale", "encoder.x*"])
    with pytest.raises(TypeError, match="names: expected str, not int"):
        ts.load_file(path, names=[1])


def test_only_the_tensors_asked_for_are_read(tmp_path, worker) -> None:
    ts.save_file({name: torch.zeros(MIB) for name in "abcd"}, tmp_path / "m")
    assert worker(bytes_read_of_two, tmp_path / "m") < 9 * MIB


def bytes_read_of_two(path: Path) -> int:
    import faults

    with faults.faults():
        ts.load_file(path, names=["a", "c"], backend="pread")
        return faults.bytes_read()


def test_rename(path) -> None:
    loaded = ts.load_file(path, rename=lambda name: name.removeprefix("encoder."))
    assert list(loaded) == [name.removeprefix("encoder.") for name in ts.load_file(path)]
    assert torch.equal(loaded["layer.1.weight"], TENSORS["encoder.layer.1.weight"])
    loaded = ts.load_file(path, names="scale", rename={"scale": "s", "decoder0": "x"})
    assert list(loaded) == ["s"]
    assert dict(ts.iter_tensors(path, names="scale", rename={"scale": "s"})).keys() == {"s"}


@pytest.mark.parametrize("load", [ts.load_file, lambda *args, **options: list(ts.iter_tensors(*args, **options))])
def test_entries_for_no_tensor_are_refused(path, load) -> None:
    message = f"{path}: no tensor fits these entries of rename=: 'typo', 'Scale'; leave them out"
    with pytest.raises(ValueError, match=re.escape(message)):
        load(path, rename={"typo": "x", "scale": "s", "Scale": "t"})
    message = f"{path}: no tensor fits these entries of device=: 'encoder.layer.2', 'scale.'; leave them out"
    with pytest.raises(ValueError, match=re.escape(message)):
        load(path, {"": "cpu", "encoder.layer.2": "cpu", "encoder.layer.1.": "cpu", "scale.": "cpu", "scale": "cpu"})
    many = {str(number): "x" for number in range(8)}
    with pytest.raises(ValueError, match=r"'0', '1', '2', '3', '4' and 3 more; leave them out"):
        load(path, rename=many)
    with pytest.raises(TypeError, match="rename: expected names of type str, not int"):
        load(path, rename={1: "x"})


def test_no_tensors_have_every_prefix(tmp_path) -> None:
    ts.save_file({}, tmp_path / "m")
    assert ts.load_file(tmp_path / "m", {"": "cpu"}, rename={}) == {}
    # A function is asked for each name, and may leave all of them as they are.
    assert ts.load_file(tmp_path / "m", rename=lambda name: name) == {}


def test_a_name_of_many_dots_costs_nothing(tmp_path) -> None:
    name = "." * 200_000
    ts.save_file({name: torch.ones(1)}, tmp_path / "m")
    assert list(ts.load_file(tmp_path / "m", {"": "cpu", ".": "meta"})) == [name]


def test_rename_must_keep_tensors_apart(path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{path}: rename gives 'x' for both 'decoder[0]' and ")):
        ts.load_file(path, rename=lambda _: "x")
    with pytest.raises(TypeError, match="rename: gives NoneType for "):
        ts.load_file(path, rename=lambda _: None)
    with pytest.raises(TypeError, match="rename: expected a mapping or a callable, not str"):
        ts.load_file(path, rename="x")


@pytest.mark.parametrize("verify", [False, True])
def test_dtype_converts_floating_point_tensors_and_no_others(tmp_path, verify: bool) -> None:
    ts.save_file(TENSORS, tmp_path / "m", checksum=True)
    loaded = ts.load_file(tmp_path / "m", dtype=torch.float16, verify=verify)
    assert list(loaded) == list(ts.load_file(tmp_path / "m"))
    for name, tensor in TENSORS.items():
        expected = tensor.half() if tensor.is_floating_point() else tensor
        assert loaded[name].dtype == expected.dtype
        assert torch.equal(loaded[name], expected)
    for name, tensor in ts.iter_tensors(tmp_path / "m", dtype=torch.float16):
        assert tensor.dtype == loaded[name].dtype


def test_dtype_on_meta(path) -> None:
    loaded = ts.load_file(path, "meta", dtype=torch.float16)
    assert all(tensor.is_meta for tensor in loaded.values())
    assert loaded["scale"].dtype == torch.float16
    assert loaded["decoder0"].dtype == torch.bool


def test_dtype_must_be_one_of_floating_point(path) -> None:
    with pytest.raises(ValueError, match=r"dtype: expected a floating-point dtype, not torch.int64"):
        ts.load_file(path, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"dtype: expected torch.dtype, not str"):
        ts.load_file(path, dtype="float16")


def test_a_dtype_that_torch_cannot_convert(tmp_path) -> None:
    ts.save_file({"w": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}, tmp_path / "m")
    message = f"{tmp_path / 'm'}: tensor 'w': torch cannot convert torch.float4_e2m1fn_x2 to torch.float32: "
    with pytest.raises(ValueError, match=re.escape(message)):
        ts.load_file(tmp_path / "m", dtype=torch.float32)


def test_damage_is_found_before_a_conversion_hides_it(tmp_path) -> None:
    ts.save_file({"w": torch.ones(4)}, tmp_path / "m", checksum=True)
    damaged = bytearray((tmp_path / "m").read_bytes())
    damaged[-4] ^= 1
    (tmp_path / "m").write_bytes(damaged)
    with pytest.raises(ts.SafetensorError, match=r"tensor 'w': .*damaged"):
        ts.load_file(tmp_path / "m", dtype=torch.float16, verify=True)


def test_devices_by_the_longest_prefix(path) -> None:
    loaded = ts.load_file(path, {"": "cpu", "encoder": "meta", "encoder.layer.1": torch.device("cpu")})
    on_meta = {name for name, tensor in loaded.items() if tensor.is_meta}
    # encoder.layer.1 does not stand for encoder.layer.10.
    assert on_meta == {"encoder.layer.10.weight"}
    assert list(loaded) == list(ts.load_file(path))
    assert torch.equal(loaded["scale"], TENSORS["scale"])


def test_a_prefix_may_end_in_a_dot(path) -> None:
    loaded = ts.load_file(path, {"encoder.layer.1.": "meta", "": "cpu"})
    assert [name for name, tensor in loaded.items() if tensor.is_meta] == ["encoder.layer.1.weight"]


def test_a_tensor_without_device(path) -> None:
    message = "tensor 'decoder[0]': no prefix of device= fits, among ['encoder', 'scale']; '' fits all others"
    with pytest.raises(ValueError, match=re.escape(message)):
        ts.load_file(path, {"encoder": "cpu", "scale": "cpu"})
    with pytest.raises(TypeError, match="device: expected prefixes of type str, not int"):
        ts.load_file(path, {0: "cpu"})
    assert set(ts.load_file(path, {"scale": "cpu"}, names="scale")) == {"scale"}


def test_iteration_has_no_meta_device(path) -> None:
    with pytest.raises(ValueError, match="nothing to iterate over on the meta device"):
        ts.iter_tensors(path, {"": "cpu", "scale": "meta"})


def test_iteration_checks_its_arguments_at_once(tmp_path, path) -> None:
    with pytest.raises(FileNotFoundError):
        ts.iter_tensors(tmp_path / "none")
    with pytest.raises(ts.SafetensorError, match="no tensor has the name 'x'"):
        ts.iter_tensors(path, names="x")


def test_iteration_that_is_left_early_ends_its_threads(tmp_path) -> None:
    ts.save_file({str(i): torch.zeros(1000) for i in range(100)}, tmp_path / "m")
    before = len(list(Path("/proc/self/task").iterdir()))
    tensors = ts.iter_tensors(tmp_path / "m", buffer_size=5000)
    next(tensors)
    del tensors
    gc.collect()
    assert len(list(Path("/proc/self/task").iterdir())) <= before


def peak_of_conversion(path: Path) -> None:
    def kilobytes(what: str) -> int:
        status = Path("/proc/self/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status)[1])

    ts.load_file(path, names="0", dtype=torch.bfloat16)
    before = kilobytes("VmRSS")
    loaded = ts.load_file(path, dtype=torch.bfloat16)
    print(kilobytes("VmHWM") - before, sum(tensor.nbytes for tensor in loaded.values()) // 1024)


def test_conversion_does_not_hold_both(tmp_path) -> None:
    """768 MiB in the file and 384 in memory, with up to 256 read ahead; both together would be 1152."""
    ts.save_file({str(i): torch.zeros(8 * MIB) for i in range(24)}, tmp_path / "m")
    peak, result = map(int, run_in_process(peak_of_conversion, tmp_path / "m").split())
    assert result == 384 * 1024
    assert peak < 800 * 1024


class TestGraphs:
    def test_what_is_chosen_becomes_part_of_the_graph(self, path) -> None:
        filename = str(path)  # torch 2.11 takes no other form within a graph

        @torch.compile(fullgraph=True, backend="aot_eager")
        def chosen(x: Tensor) -> Tensor:
            tensors = ts.load_file(
                filename,
                {"": "cpu"},
                names=["encoder.*.1.*", "scale"],
                dtype=torch.float64,
                rename=lambda name: name.removeprefix("encoder.layer."),
            )
            return x * tensors["1.weight"] * tensors["scale"]

        out = chosen(torch.ones(2, 3))
        assert out.dtype == torch.float64
        assert torch.equal(out, TENSORS["encoder.layer.1.weight"].double() * 2)
        ts.save_file({**TENSORS, "scale": torch.tensor(3.0)}, path)
        with pytest.raises(RuntimeError, match=r"tensor 'scale': the file holds F32\[\] but BF16\[\] is expected"):
            chosen(torch.ones(2, 3))

    def test_all_names_are_checked_whichever_device_they_go_to(self, path) -> None:
        filename = str(path)

        @torch.compile(fullgraph=True, backend="aot_eager")
        def renamed(x: Tensor) -> Tensor:
            return x * ts.load_file(filename, {"": "cpu"}, rename={"scale": "s"})["s"]

        assert renamed(torch.ones(1)).item() == 2
        ts.save_file({**TENSORS, "one more": torch.ones(1)}, path)
        with pytest.raises(RuntimeError, match="tensor 'one more': not expected"):
            renamed(torch.ones(1))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_conversion_without_memory_is_no_wrong_argument(tmp_path: Path, error: RuntimeError) -> None:
    ts.save_file({"w": torch.ones(3)}, tmp_path / "x")

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    with mock.patch.object(torch.Tensor, "to", fail), pytest.raises(RuntimeError) as caught:
        ts.load_file(tmp_path / "x", dtype=torch.float64)
    assert caught.value is error
