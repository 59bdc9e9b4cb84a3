from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import re
import signal
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Worker
from faults import failed_call, failing_call, faults
from helpers import assert_same, descriptors, listing, random_tensors, run_in_process

from torch_safetensors import Writer, load_file, save, save_file

OLD = {"w": torch.arange(10.0)}
NEW = {"w": -torch.arange(300.0), "v": torch.ones(3, dtype=torch.int64)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


def write_all(path: Path, tensors: dict[str, torch.Tensor], seed: int = 0, **options: Any) -> None:
    names = list(tensors)
    random.Random(seed).shuffle(names)
    with Writer(path, tensors, **options) as writer:
        for name in names:
            writer.write(name, tensors[name])


def assert_untouched(path: Path, old: bytes | None = None) -> None:
    """The old file, or none, and nothing beside it."""
    assert (path.read_bytes() if path.exists() else None) == old
    assert listing(path.parent) == ([path.name] if old is not None else [])


# --- what it writes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("options", [{}, {"checksum": True}, {"alignment": 4096}, {"fsync": True}], ids=str)
def test_it_writes_what_save_file_writes(path: Path, seed: int, options: dict[str, Any]) -> None:
    tensors = random_tensors(seed)
    metadata = {"b": "2", "a": "1"} if seed % 2 else None
    save_file(tensors, path, metadata, **options)
    expected = path.read_bytes()
    path.unlink()
    write_all(path, tensors, seed, metadata=metadata, **options)
    assert path.read_bytes() == expected
    assert listing(path.parent) == [path.name]


def test_nothing_at_all(path: Path) -> None:
    write_all(path, {}, metadata={})
    assert path.read_bytes() == save({}, {})


def test_checksums_of_another_file_are_left_out(path: Path) -> None:
    metadata = {"torch_safetensors.xxh3_128": "0", "a": "b"}
    write_all(path, NEW, metadata=metadata)
    assert path.read_bytes() == save(NEW, metadata)


def test_specs_of_every_form(path: Path) -> None:
    tensors = {
        "meta": torch.randn(2, 3),
        "pair": torch.ones(4, dtype=torch.bfloat16),
        "list": torch.ones(2, 2, dtype=torch.int8),
        "size": torch.tensor(5),
        "f4": torch.arange(6, dtype=torch.uint8).view(2, 3).view(torch.float4_e2m1fn_x2),
    }
    spec = {
        "meta": torch.empty(2, 3, device="meta"),
        "pair": (torch.bfloat16, (4,)),
        "list": (torch.int8, [2, 2]),
        "size": (torch.int64, torch.Size()),
        "f4": (torch.float4_e2m1fn_x2, (2, 3)),
    }
    with Writer(path, spec) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    assert path.read_bytes() == save(tensors)


def test_tensors_that_save_file_refuses_or_resolves(path: Path) -> None:
    base = torch.randn(6, 8)
    tensors = {
        "transposed": base.t(),
        "strided": base[::2, 1::3],
        "expanded": torch.ones(1).expand(5),
        "conjugate": torch.randn(3, 4, dtype=torch.complex64).conj(),
        "strided conjugate": torch.randn(3, 4, dtype=torch.complex64).conj()[:, ::2],
        "negative": torch.randn(3, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(base),
        "the same memory": base,
    }
    write_all(path, tensors)
    dense = {
        name: tensor.detach().clone().contiguous().resolve_conj().resolve_neg() for name, tensor in tensors.items()
    }
    assert_same(load_file(path), dense)
    assert path.read_bytes() == save(dense)


def writes_from_device(path: Path, device: str) -> None:
    tensors = random_tensors(3, 40) | {"large": torch.randn(300_000), "z": torch.ones(9, dtype=torch.complex64)}
    save_file(tensors, path)
    moved = load_file(path, device)
    path.unlink()
    write_all(path, moved, checksum=True)
    assert path.read_bytes() == save(tensors, checksum=True)


def test_over_the_file_that_the_tensors_are_mapped_from(path: Path) -> None:
    tensors = {"a": torch.arange(100_000.0), "b": torch.arange(50_000)}
    save_file(tensors, path)
    mapped = load_file(path, backend="mmap")
    # In another place than before.
    spec = {"0": tensors["b"], "a": tensors["a"], "b": tensors["b"]}
    with Writer(path, spec) as writer:
        writer.write("b", mapped["b"])
        writer.write("a", mapped["a"])
        writer.write("0", mapped["b"])
    assert_same(mapped, tensors)
    assert_same(load_file(path), spec)


def test_links_and_modes_are_those_of_save_file(path: Path) -> None:
    save_file(OLD, path)
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path.name)
    write_all(link, NEW)
    assert link.is_symlink()
    assert path.read_bytes() == save(NEW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_threads_write_side_by_side(path: Path) -> None:
    tensors = {str(index): torch.full((index * 997 % 5000,), float(index)) for index in range(300)}
    with Writer(path, tensors, checksum=True) as writer, ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(writer.write, name, tensor) for name, tensor in tensors.items()]:
            done.result()
    assert path.read_bytes() == save(tensors, checksum=True)


def test_one_of_many_threads_writes_a_tensor(path: Path) -> None:
    tensors = {"w": torch.randn(100_000)}
    refused = []
    barrier = threading.Barrier(8)

    def write(writer: Writer) -> None:
        barrier.wait()
        try:
            writer.write("w", tensors["w"])
        except ValueError as error:
            refused.append(str(error))

    with Writer(path, tensors) as writer, ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write, writer) for _ in range(8)]:
            done.result()
    assert refused == [f"{path}: tensor 'w': was written before"] * 7
    assert path.read_bytes() == save(tensors)


# --- closed, aborted, dropped --------------------------------------------------------------------------------------


def test_the_old_file_stays_until_it_is_closed(path: Path) -> None:
    save_file(OLD, path)
    old = path.read_bytes()
    writer = Writer(path, NEW)
    for name, tensor in NEW.items():
        writer.write(name, tensor)
        assert path.read_bytes() == old
    writer.close()
    assert path.read_bytes() == save(NEW)
    writer.close()
    writer.abort()
    assert path.read_bytes() == save(NEW)
    with pytest.raises(ValueError, match=r"x\.safetensors: the writer is closed"):
        writer.write("w", NEW["w"])


@pytest.mark.parametrize("old", [None, save(OLD)], ids=["new", "existing"])
def test_what_is_missing_is_listed(path: Path, old: bytes | None) -> None:
    if old is not None:
        path.write_bytes(old)
    spec = {f"t{index}": (torch.float32, (2,)) for index in range(14)}
    writer = Writer(path, spec)
    writer.write("t3", torch.ones(2))
    listed = ", ".join(f"'t{index}'" for index in range(11) if index != 3)
    text = f"{path}: 13 of 14 tensors were not written: {listed} and 3 more"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        writer.close()
    assert_untouched(path, old)
    for call in (writer.close, lambda: writer.write("t4", torch.ones(2))):
        with pytest.raises(ValueError, match="the writer was aborted when it could not be closed"):
            call()


def test_what_is_missing_at_the_end_of_a_block(path: Path) -> None:
    with pytest.raises(ValueError, match="1 of 2 tensors were not written: 'v'"), Writer(path, NEW) as writer:
        writer.write("w", NEW["w"])
    assert_untouched(path)


def test_an_exception_in_the_block_aborts(path: Path) -> None:
    path.write_bytes(save(OLD))

    def write() -> None:
        with Writer(path, NEW) as writer:
            for name, tensor in NEW.items():
                writer.write(name, tensor)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write()
    assert_untouched(path, save(OLD))


def test_abort(path: Path) -> None:
    before = descriptors()
    with Writer(path, NEW) as writer:
        writer.write("w", NEW["w"])
        writer.abort()
        assert_untouched(path)
        writer.abort()
        for call in (writer.close, lambda: writer.write("v", NEW["v"])):
            with pytest.raises(ValueError, match=r"x\.safetensors: the writer was aborted$"):
                call()
    assert_untouched(path)
    assert descriptors() == before


def test_one_that_is_dropped_aborts(path: Path) -> None:
    before = descriptors()
    writer = Writer(path, NEW)
    writer.write("w", NEW["w"])
    assert len(listing(path.parent)) == 1
    del writer
    gc.collect()
    assert_untouched(path)
    assert descriptors() == before


def leave_open(path: Path) -> None:
    global kept
    kept = Writer(path, NEW)
    kept.write("w", NEW["w"])
    assert len(listing(path.parent)) == 1


def test_the_end_of_the_interpreter_aborts(path: Path) -> None:
    assert run_in_process(leave_open, path) == ""
    assert_untouched(path)


def die(path: Path) -> None:
    leave_open(path)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_one_left_is_gone_after_the_next(path: Path) -> None:
    run_in_process(die, path, expected=-signal.SIGKILL)
    assert len(listing(path.parent)) == 1
    write_all(path, NEW)
    assert listing(path.parent) == [path.name]


def fork_while_open(path: Path) -> None:
    writer = Writer(path, NEW)
    writer.write("w", NEW["w"])
    child = os.fork()
    if child == 0:
        for call in (writer.close, lambda: writer.write("v", NEW["v"])):
            with pytest.raises(ValueError, match="belongs to the process that opened it"):
                call()
        writer.abort()
        del writer
        gc.collect()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.write("v", NEW["v"])
    writer.close()


def test_a_forked_child_leaves_it_alone(path: Path) -> None:
    run_in_process(fork_while_open, path)
    assert path.read_bytes() == save(NEW)


# --- refused -------------------------------------------------------------------------------------------------------


def test_tensors_that_do_not_fit_change_nothing(path: Path) -> None:
    cases: list[tuple[str, Any, type[Exception], str]] = [
        ("x", NEW["w"], ValueError, f"{path}: tensor 'x': not in the spec, which has 2 tensors"),
        ("w", NEW["v"], ValueError, f"{path}: tensor 'w': the spec says Float [300] but the tensor is Long [3]"),
        ("w", NEW["w"].double(), ValueError, f"{path}: tensor 'w': the spec says Float [300] but the tensor is Double"),
        ("w", NEW["w"].view(3, 100), ValueError, "the spec says Float [300] but the tensor is Float [3, 100]"),
        ("w", NEW["w"].to_sparse(), ValueError, "tensor 'w': is Sparse"),
        ("w", NEW["w"].to("meta"), NotImplementedError, "tensor 'w': is on the meta device and has no data"),
        ("w", [1.0], TypeError, "tensor 'w': expected torch.Tensor, not list"),
        (b"w", NEW["w"], TypeError, "name: expected str, not bytes"),
        ("\ud800", NEW["w"], ValueError, "not valid Unicode"),
    ]
    with Writer(path, NEW) as writer:
        for name, tensor, error, text in cases:
            with pytest.raises(error) as caught:
                writer.write(name, tensor)
            assert text in str(caught.value)
        for name, tensor in NEW.items():
            writer.write(name, tensor)
    assert path.read_bytes() == save(NEW)


def test_specs_that_are_refused(path: Path) -> None:
    cases: list[tuple[Any, type[Exception], str]] = [
        ([("w", torch.ones(1))], TypeError, "spec: expected a mapping of names to tensors, not list"),
        ({"w": (2, 3)}, TypeError, "spec: 'w': expected a tensor or a pair of torch.dtype and shape, not (2, 3)"),
        ({"w": (torch.float32,)}, TypeError, "spec: 'w': expected a tensor or a pair"),
        ({"w": (torch.float32, (-1,))}, ValueError, "spec: 'w': (-1,) is not a shape"),
        ({"w": (torch.float32, ("x",))}, ValueError, "spec: 'w': ('x',) is not a shape"),
        ({"w": (torch.complex128, (1,))}, ValueError, "tensor 'w': the format has no dtype for ComplexDouble"),
        ({"w": torch.ones(2).to_sparse()}, ValueError, "tensor 'w': is not dense"),
        ({"__metadata__": (torch.float32, (1,))}, ValueError, "tensor '__metadata__': the format keeps this name"),
        ({1: torch.ones(1)}, TypeError, "Key 1 is invalid, expected str"),
    ]
    for spec, error, text in cases:
        with pytest.raises(error) as caught:
            Writer(path, spec)
        assert text in str(caught.value)
    with pytest.raises(ValueError, match="alignment must be 0 or a power of two"):
        Writer(path, NEW, alignment=7)
    with pytest.raises(TypeError, match="metadata: key 1 is int, not str"):
        Writer(path, NEW, {1: "x"})  # type: ignore[dict-item]
    assert_untouched(path)


def test_errors_of_the_system_name_the_file(path: Path) -> None:
    for target, error in ((path / "x", FileNotFoundError), (path.parent, IsADirectoryError)):
        with pytest.raises(error) as caught:
            Writer(target, NEW)
        assert caught.value.filename == str(target)


# --- system calls that fail ----------------------------------------------------------------------------------------


def write_with_fault(path: Path, call: str, error: int) -> None:
    path.write_bytes(save(OLD))
    before = descriptors()
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(path, NEW))
        with pytest.raises(OSError, match=os.strerror(error)) as caught, faults(**{call: error}):
            writer.write("w", NEW["w"])
        assert (caught.value.errno, caught.value.filename) == (error, str(path))
        assert_untouched(path, save(OLD))
        with pytest.raises(ValueError, match="was aborted when tensor 'w' could not be written"):
            writer.write("v", NEW["v"])
        with pytest.raises(ValueError, match="was aborted when tensor 'w' could not be written"):
            stack.close()
    assert descriptors() == before


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_write_that_fails_aborts(path: Path, worker: Worker, error: int) -> None:
    worker(write_with_fault, path, "pwrite", error)


def open_on_full_disk(path: Path) -> None:
    with faults(fallocate=errno.ENOSPC), pytest.raises(OSError, match="No space left") as caught:
        Writer(path, NEW)
    assert caught.value.filename == str(path)
    with faults(fallocate=errno.EOPNOTSUPP):
        write_all(path, NEW)


def test_a_disk_that_is_too_full_is_found_out_at_once(path: Path, worker: Worker) -> None:
    worker(open_on_full_disk, path)
    assert path.read_bytes() == save(NEW)
    assert listing(path.parent) == [path.name]


def write_while_calls_fail(path: Path, error: int) -> list[str]:
    """Each call of the whole life of a writer fails once; the names of the calls."""
    seen: list[str] = []
    while True:
        path.write_bytes(save(OLD))
        outcome: OSError | None = None
        before = descriptors()
        with failing_call(len(seen), error):
            try:
                write_all(path, NEW, checksum=True)
            except OSError as caught:
                outcome = caught.with_traceback(None)
            call = failed_call()
        assert descriptors() == before, call
        if call is None:
            return seen
        seen.append(call)
        if outcome is not None:
            assert (outcome.errno, outcome.filename) == (error, str(path)), call
        assert path.read_bytes() == (save(NEW, checksum=True) if outcome is None else save(OLD)), call
        assert listing(path.parent) == [path.name], call


@pytest.mark.parametrize("error", [errno.EIO, errno.EINTR], ids=errno.errorcode.get)
def test_each_call_fails(path: Path, worker: Worker, error: int) -> None:
    seen = worker(write_while_calls_fail, path, error)
    assert {"stat", "open", "flock", "fallocate", "pwrite", "fcntl", "rename", "close"} <= set(seen)


def memory_peak(path: Path, count: int) -> int:
    """Bytes that the process grew by while it wrote so many tensors of 4 MiB, each made when it is its turn."""
    spec = {str(index): (torch.float32, (1 << 20,)) for index in range(count)}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_memory()
    with Writer(path, spec) as writer:
        for index, name in enumerate(spec):
            writer.write(name, torch.full((1 << 20,), float(index)))
    return peak_memory() - before


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_no_more_memory_than_one_tensor_needs(path: Path, worker: Worker) -> None:
    assert worker(memory_peak, path, 20) < 16 << 20
    tensors = load_file(path)
    assert len(tensors) == 20
    assert all((tensor == int(name)).all() for name, tensor in tensors.items())
