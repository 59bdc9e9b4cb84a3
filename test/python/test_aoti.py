"""AOTInductor packages whose weights live in a file: what they need, and other weights for them."""

from __future__ import annotations

import errno
import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import failed_call, failing_call
from helpers import run_in_process
from torch import Tensor

from torch_safetensors import SafetensorError, aoti, load_file, save_file, save_sharded

MB = 1 << 20


class Model(torch.nn.Module):
    """Ties, a large weight, one that is not contiguous, buffers that are not persistent, constants, and what a compiler
    would like to replace by its values: ones, zeros, a single number, and few of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(64, 64)
        self.decoder = torch.nn.Linear(64, 64)
        self.decoder.weight = self.encoder.weight
        self.wide = torch.nn.Parameter(torch.rand(64, 65_536))
        self.turned = torch.nn.Parameter(torch.rand(64, 32).t())
        self.ones = torch.nn.Parameter(torch.ones(64))
        self.zeros = torch.nn.Parameter(torch.zeros(64))
        self.zero = torch.nn.Parameter(torch.zeros(()))
        self.few = torch.nn.Parameter(torch.ones(3))
        self.register_buffer("scale", torch.rand(64))
        self.register_buffer("mask", torch.rand(64, 2)[:, 0], persistent=False)
        self.shift = torch.rand(64)

    def forward(self, x: Tensor, *, factor: Tensor) -> dict[str, Tensor]:
        hidden = self.decoder(self.encoder(x).relu()) * self.scale * self.mask + self.shift
        hidden = hidden + torch.tensor([float(i) for i in range(64)])
        hidden = hidden * (self.ones * 2) + self.zeros + self.zero + (self.few * self.few)[:, None]
        return {"narrow": self.turned @ hidden.t(), "wide": (hidden @ self.wide).sum(1) * factor}


class Folded(torch.nn.Module):
    """Computes something of its weights alone, which a package can do once for each file."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Parameter(torch.ones(8, 8))
        self.right = torch.nn.Parameter(torch.ones(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.left @ self.right).relu()


def make_model(seed: int) -> Model:
    torch.manual_seed(seed)
    model = Model().eval().requires_grad_(False)
    if seed > 1:
        for parameter in model.ones, model.zeros, model.zero, model.few:
            parameter.uniform_()
    torch.manual_seed(0)  # what is not in the state_dict is the package's
    model.mask.copy_(torch.rand(64))
    model.shift.copy_(torch.rand(64))
    return model


def arguments() -> tuple[tuple[Tensor], dict[str, Tensor]]:
    return (torch.linspace(0, 1, 192).view(3, 64),), {"factor": torch.tensor(0.5)}


def make_packages(folder: Path) -> None:
    """In a process of its own: the caches of Inductor are chosen when it is imported."""
    program = torch.export.export(make_model(1), *arguments())
    aoti.package(program, folder / "model.pt2", weights=folder / "first.safetensors", digest=True)
    tensors = load_file(folder / "first.safetensors")
    tensors["encoder.weight"] = tensors.pop("decoder.weight")  # as another writer may call it, without a note
    save_file(tensors | {"unused": torch.ones(2)}, folder / "hub.safetensors")
    aoti.package(program, folder / "hub.pt2", weights=folder / "hub.safetensors", write_weights=False)
    for name, bad in {
        "missing 'scale'": {name: tensor for name, tensor in tensors.items() if name != "scale"},
        "different 'scale': the program needs torch.float32 [64], the file has torch.float64 [64]": tensors
        | {"scale": torch.ones(64, dtype=torch.float64)},
        "no checksums to record": tensors,
    }.items():
        save_file(bad, folder / "bad.safetensors")
        with pytest.raises(SafetensorError, match=r"bad\.safetensors: ") as error:
            aoti.package(
                program, folder / "no.pt2", weights=folder / "bad.safetensors", write_weights=False, digest=True
            )
        assert name in str(error.value) or "no checksums" in str(error.value)
    assert not (folder / "no.pt2").exists()
    aoti.package(
        torch.export.export(Folded().eval().requires_grad_(False), (torch.ones(2, 8),)),
        folder / "folded.pt2",
        weights=folder / "folded.safetensors",
        inductor_configs={"aot_inductor.use_runtime_constant_folding": True},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("aoti")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        run_in_process(make_packages, folder)
        save_file(fine_tuned(2), folder / "second.safetensors")
        yield folder


def fine_tuned(seed: int) -> dict[str, Tensor]:
    state = dict(make_model(seed).state_dict())
    del state["decoder.weight"]
    return {name: tensor.contiguous() for name, tensor in state.items()}


def expect(model: aoti.Model, seed: int) -> None:
    args, kwargs = arguments()
    torch.testing.assert_close(model(*args, **kwargs), make_model(seed)(*args, **kwargs), rtol=1e-4, atol=1e-4)


def mappings(name: str) -> int:
    return sum(line.rstrip().endswith(f"/{name}") for line in Path("/proc/self/maps").read_text().splitlines())


def test_weights_are_not_in_the_package(folder: Path) -> None:
    assert (folder / "model.pt2").stat().st_size < 4 * MB < 16 * MB < (folder / "first.safetensors").stat().st_size
    names = [
        "decoder.bias",
        "decoder.weight",
        "encoder.bias",
        "few",
        "ones",
        "scale",
        "turned",
        "wide",
        "zero",
        "zeros",
    ]
    assert sorted(load_file(folder / "first.safetensors")) == names


def test_it_computes_what_the_model_does(folder: Path) -> None:
    expect(aoti.load(folder / "model.pt2", folder / "first.safetensors", strict_digest=True), 1)
    expect(aoti.load(folder / "model.pt2", folder / "second.safetensors", backend="pread"), 2)


def test_a_file_of_others(folder: Path) -> None:
    """With another name for the tie, and a tensor that the program does not have."""
    model = aoti.load(folder / "hub.pt2", folder / "hub.safetensors")
    expect(model, 1)
    model.swap(folder / "second.safetensors")
    expect(model, 2)


def test_weights_in_several_files(folder: Path, tmp_path: Path) -> None:
    save_sharded(fine_tuned(2), tmp_path, max_shard_size="1KB")
    model = aoti.load(folder / "model.pt2", tmp_path)
    expect(model, 2)
    model.swap(folder / "first.safetensors")
    expect(model, 1)
    for backend in "mmap", "pread":
        model.swap(tmp_path / "model.safetensors.index.json", backend=backend)
        expect(model, 2)
        model.swap(folder / "first.safetensors", in_place=backend == "pread")
        expect(model, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_mapped_and_given_back(folder: Path) -> None:
    model = aoti.load(folder / "model.pt2", folder / "first.safetensors")
    for name, seed in ("second", 2), ("first", 1), ("second", 2):
        aoti.swap(model, folder / f"{name}.safetensors")
        expect(model, seed)
        assert mappings("first.safetensors") + mappings("second.safetensors") == 1
    del model
    assert mappings("second.safetensors") == 0


def test_other_values_are_refused_on_request(folder: Path) -> None:
    with pytest.raises(SafetensorError, match=r"second\.safetensors: tensor '.*': not what the package was made with"):
        aoti.load(folder / "model.pt2", folder / "second.safetensors", strict_digest=True)
    with pytest.raises(SafetensorError, match="package: no checksums to compare with"):
        aoti.load(folder / "hub.pt2", folder / "hub.safetensors", strict_digest=True)


def test_weights_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    """All that is wrong is told, and the old ones stay."""
    model = aoti.load(folder / "model.pt2", folder / "first.safetensors")
    tensors = fine_tuned(2)
    del tensors["scale"]
    tensors["turned"] = torch.ones(64, 32)
    tensors["wide"] = tensors["wide"].half()
    save_file(tensors | {"more": torch.ones(1)}, tmp_path / "bad.safetensors")
    with pytest.raises(SafetensorError) as error:
        model.swap(tmp_path / "bad.safetensors")
    assert sorted(str(error.value).splitlines()) == [
        "  different 'turned': the package needs F32 [32, 64], the file has F32 [64, 32]",
        "  different 'wide': the package needs F32 [64, 65536], the file has F16 [64, 65536]",
        "  missing 'scale'",
        "  unexpected 'more'",
        f"{tmp_path}/bad.safetensors: these are not weights of this package:",
    ]
    expect(model, 1)
    with pytest.raises(FileNotFoundError):
        model.swap(tmp_path / "none.safetensors")
    expect(model, 1)
    save_file(fine_tuned(2) | {"more": torch.ones(1)}, tmp_path / "more.safetensors")
    with pytest.raises(SafetensorError, match="unexpected 'more'"):
        model.swap(tmp_path / "more.safetensors")
    model.swap(tmp_path / "more.safetensors", strict=False)
    expect(model, 2)


def test_swap_while_threads_call(folder: Path) -> None:
    model = aoti.load(folder / "model.pt2", folder / "first.safetensors", runners=2)
    args, kwargs = arguments()
    first = model(*args, **kwargs)["narrow"]
    model.swap(folder / "second.safetensors")
    second = model(*args, **kwargs)["narrow"]
    assert not torch.equal(first, second)
    done = threading.Event()
    seen: list[str] = []

    def call() -> None:
        while not done.is_set():
            result = model(*args, **kwargs)["narrow"]
            seen.append("first" if torch.equal(result, first) else "second" if torch.equal(result, second) else "mixed")

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        swaps = 0
        while swaps < 20 or not {"first", "second"} <= set(seen):
            model.swap(folder / ("first.safetensors" if swaps % 2 == 0 else "second.safetensors"))
            swaps += 1
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {"first", "second"}


def test_swap_while_calls_always_overlap(folder: Path) -> None:
    """Torch's own lock lets calls pass a swap that waits, which never comes to an end then."""
    model = aoti.load(folder / "model.pt2", folder / "first.safetensors")
    args, kwargs = arguments()
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            model(*args, **kwargs)

    def swap() -> None:
        for _ in range(5):
            model.swap(folder / "second.safetensors")

    callers = [threading.Thread(target=call) for _ in range(6)]
    swapper = threading.Thread(target=swap, daemon=True)
    for thread in [*callers, swapper]:
        thread.start()
    swapper.join(60)
    came_to_an_end = not swapper.is_alive()
    done.set()
    for thread in callers:
        thread.join()
    assert came_to_an_end
    expect(model, 2)


def test_what_is_computed_from_weights_alone(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = aoti.load(folder / "folded.pt2", folder / "folded.safetensors", backend="pread")
    torch.testing.assert_close(model(torch.ones(2, 8)), torch.full((2, 8), 64.0))
    for value, in_place in (2.0, False), (3.0, True):
        tensors = {"left": torch.full((8, 8), value), "right": torch.ones(8, 8)}
        save_file(tensors, tmp_path / "other.safetensors")
        model.swap(tmp_path / "other.safetensors", backend="pread", in_place=in_place)
        torch.testing.assert_close(model(torch.ones(2, 8)), torch.full((2, 8), 64 * value))
    assert capfd.readouterr() == ("", "")


# --- over the old weights ------------------------------------------------------------------------


def growth_of_swaps(folder: Path) -> list[int]:
    """By how many bytes the memory of this process grew in a swap of copies, and in one in place."""
    model = aoti.load(folder / "model.pt2", folder / "first.safetensors", backend="pread")
    expect(model, 1)
    growth = []
    for name, seed, in_place in ("second", 2, False), ("first", 1, True), ("second", 2, True):
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        model.swap(folder / f"{name}.safetensors", backend="pread", in_place=in_place)
        growth.append(memory("VmHWM") - before)
        expect(model, seed)
    return growth


def memory(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def test_a_swap_in_place_needs_no_memory(folder: Path, worker: Any) -> None:
    both, *in_place = worker(growth_of_swaps, folder)
    assert both > 15 * MB
    assert max(in_place) < 4 * MB


def failures_of_swaps(folder: Path, count: int) -> list[tuple[str, bool]]:
    """Swaps in place, in each of which so many system calls fail, later and later ones. What failed last where that
    made the swap fail, and whether calls raised then; if they did not, the old weights served.
    """
    outcomes = []
    model = aoti.load(folder / "model.pt2", folder / "first.safetensors", backend="pread")
    for index in itertools.count():
        in_service = 2
        with failing_call(index, errno.EIO, count):
            try:
                model.swap(folder / "second.safetensors", backend="pread", in_place=True)
            except OSError:
                in_service = 1
            name = failed_call()
        try:
            expect(model, in_service)
            raises = False
        except RuntimeError as error:
            if "a swap in place failed, and so did reading the old weights again" not in str(error):
                raise
            raises = True
        if name is None:
            return outcomes
        if in_service == 1:
            outcomes.append((name, raises))
        model.swap(folder / "first.safetensors", backend="pread", in_place=index % 2 == 0)
        expect(model, 1)
    raise AssertionError


def test_a_swap_in_place_that_fails_leaves_the_old_weights(folder: Path, worker: Any) -> None:
    """What preadv could not read is read by pread once more: both must fail."""
    outcomes = worker(failures_of_swaps, folder, 2)
    assert sum(name == "pread" for name, raises in outcomes) > 1  # the header, and what goes over the old weights
    assert not any(raises for name, raises in outcomes)


def test_a_swap_in_place_without_a_way_back(folder: Path, worker: Any) -> None:
    """Rather no results than wrong ones; and another swap mends it."""
    outcomes = worker(failures_of_swaps, folder, 1000)
    assert any(raises for name, raises in outcomes)
    assert not all(raises for name, raises in outcomes)  # those that did not come to writing


def test_not_a_package_of_ours(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(RuntimeError):
        aoti.load(tmp_path / "none.pt2", folder / "first.safetensors")


def test_another_kind_of_device_than_it_was_compiled_for(folder: Path) -> None:
    package, weights = folder / "model.pt2", folder / "first.safetensors"
    message = f"device: meta was asked for, but {package} was compiled for cpu"
    with pytest.raises(ValueError, match=re.escape(message)):
        aoti.load(package, weights, device="meta")
    expect(aoti.load(package, weights, device="cpu"), 1)


def test_a_header_that_is_malformed_is_told_as_everywhere(tmp_path: Path) -> None:
    """Before the program, which is not looked at then, is compiled or anything of the file is kept in memory."""
    path = tmp_path / "x.safetensors"
    for content, text in (
        (b"junk", "header too small: 4 bytes"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "header too large"),
        ((2).to_bytes(8, "little") + b"{]", "invalid JSON in header at byte 1"),
        ((9).to_bytes(8, "little") + b'{"a":\xff\xff}}', "invalid"),
    ):
        path.write_bytes(content)
        with pytest.raises(SafetensorError, match=text):
            aoti._record({}, {}, path, digest=False)
    with pytest.raises(FileNotFoundError):
        aoti._record({}, {}, tmp_path / "none", digest=False)


def test_the_record_is_the_header(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2, 3), "a": torch.zeros(4, dtype=torch.int64), "é": torch.empty(0)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, {"k": "v"}, checksum=True)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(aoti._record(tensors, tensors, path, digest=True)) == header
