"""Every error of any rank arrives on all ranks, with its own words, wherever it is raised."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from ranks import outcomes_of_ranks, run_ranks
from shared_reads import small_blocks
from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import torch_safetensors as ts
from torch_safetensors.distributed import (
    SafetensorsReader,
    SafetensorsWriter,
    _group,
    _share,
    load_file,
    load_model,
    save_file,
    save_model,
)


class TwoArgumentsError(ValueError):
    """Cannot be read again when it was pickled."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


class TwiceError(ValueError):
    """Says something else when it is read again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no {what}")


class WithoutTextError(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def local() -> Exception:
    class LocalError(KeyError):
        pass

    return LocalError("mine")


def with_lock() -> Exception:
    error = OSError(5, "mine")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    return error


def with_tensor() -> Exception:
    error = ValueError("mine")
    error.tensor = torch.ones(3)  # type: ignore[attr-defined]
    return error


def of_this_rank_only() -> Exception:
    module = types.ModuleType("only_here")
    sys.modules["only_here"] = module
    exec("class HereError(Exception): pass", vars(module))
    module.HereError.__module__ = "only_here"
    return module.HereError("mine")


def with_cause() -> Exception:
    error = local()
    error.__cause__ = error.__context__ = TwoArgumentsError(1, 2)
    error.__cause__.__cause__ = error  # which a walk over causes must survive
    return error


#: What one rank raises, and what arrives on the other.
ERRORS: list[tuple[Callable[[], BaseException], type[BaseException], str]] = [
    (lambda: FileNotFoundError(2, "none", "x"), FileNotFoundError, "[Errno 2] none: 'x'"),
    (lambda: ts.SafetensorError("x: bad"), ts.SafetensorError, "x: bad"),
    (lambda: ts.SafetensorError("x: " + "bad " * 100_000), ts.SafetensorError, "x: bad bad "),
    (lambda: ValueError("x: " + "bad " * 100_000), RuntimeError, "ValueError: x: bad bad "),
    (lambda: TwoArgumentsError(1, 2), RuntimeError, "test_distributed_errors.TwoArgumentsError: 1 and 2"),
    (lambda: TwiceError("x"), RuntimeError, "test_distributed_errors.TwiceError: no x"),
    (WithoutTextError, RuntimeError, "test_distributed_errors.WithoutTextError: <exception str() failed>"),
    (local, RuntimeError, "test_distributed_errors.local.<locals>.LocalError: 'mine'"),
    (with_lock, RuntimeError, "OSError: [Errno 5] mine"),
    (with_tensor, RuntimeError, "ValueError: mine"),
    (of_this_rank_only, RuntimeError, "only_here.HereError: mine"),
    (with_cause, RuntimeError, "LocalError: 'mine'\ncaused by test_distributed_errors.TwoArgumentsError: 1 and 2"),
    (lambda: KeyboardInterrupt("stop"), _group.StoppedError, "it: rank 1 raised KeyboardInterrupt: stop while at it"),
    (lambda: SystemExit(0), _group.StoppedError, "it: rank 1 raised SystemExit: 0 while at it"),
    (GeneratorExit, _group.StoppedError, "it: rank 1 raised GeneratorExit while at it"),
]


def tells_errors() -> list[tuple[str, str, str]]:
    told = []
    for make, _, _ in ERRORS:

        def action(make: Callable[[], BaseException] = make) -> None:
            if dist.get_rank() == 1:
                raise make()

        with pytest.raises(BaseException) as caught:  # noqa: PT011
            _group.together(_group.world(), "it", "at it", action)
        with contextlib.suppress(RuntimeError):
            told.append((type(caught.value).__name__, str(caught.value), str(caught.value.__cause__)))
    return told


def test_an_error_of_any_kind_arrives() -> None:
    elsewhere, own = run_ranks(2, tells_errors)
    assert [kind for kind, _, _ in own] == [
        type(make()).__name__ for make, _, _ in ERRORS if make is not WithoutTextError
    ]
    for (kind, text, cause), (_, expected_kind, expected) in zip(elsewhere, ERRORS, strict=True):
        assert (kind, text[: len(expected)] if "bad bad" in text else text[-len(expected) :]) == (
            expected_kind.__name__,
            expected,
        )
        assert len(text) < 70_000
        assert cause.startswith("rank 1:\n")
        assert "bad bad" in cause or "in action\n" in cause


class LoadPlanner(DefaultLoadPlanner):
    def resolve_tensor(self, read_item: Any) -> torch.Tensor:
        if dist.get_rank() == 1:
            raise with_lock()
        return super().resolve_tensor(read_item)


class SavePlanner(DefaultSavePlanner):
    def resolve_data(self, write_item: Any) -> Any:
        if dist.get_rank() == 1:
            raise with_lock()
        return super().resolve_data(write_item)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32))


def functions(folder: str) -> dict[str, Callable[[], object]]:
    """Each way to load and to save, once."""
    mesh = init_device_mesh("cpu", (2,))
    tensors = {name: distribute_tensor(tensor, mesh, [Shard(0)]) for name, tensor in model().state_dict().items()}
    path = f"{folder}/model.safetensors"

    def load_checkpoint(planner: Any = None) -> None:
        state = {name: tensor.clone() for name, tensor in model().state_dict().items()}
        dcp.load(state, storage_reader=SafetensorsReader(folder, strategy="broadcast"), planner=planner)

    def save_checkpoint(planner: Any = None) -> None:
        dcp.save(tensors, storage_writer=SafetensorsWriter(f"{folder}/dcp"), planner=planner)

    return {
        "load_file, independent": lambda: load_file(path, mesh, strategy="independent"),
        "load_file, broadcast": lambda: load_file(path, mesh, strategy="broadcast"),
        "load_model": lambda: load_model(model(), path, strategy="broadcast"),
        "save_file": lambda: save_file(tensors, f"{folder}/new.safetensors"),
        "save_model": lambda: save_model(model(), f"{folder}/new", max_shard_size=4000),
        "dcp.load": load_checkpoint,
        "dcp.load, planner": lambda: load_checkpoint(LoadPlanner()),
        "dcp.save, planner": lambda: save_checkpoint(SavePlanner()),
    }


def attempt(function: Callable[[], object]) -> str:
    try:
        function()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""


@contextlib.contextmanager
def failing_at(number: int, error: Callable[[], BaseException] | None) -> Iterator[list[str]]:
    """The second rank raises in what it does before the exchange of this number; what is done before each is listed."""
    outcome = _group._outcome
    seen: list[str] = []

    def fails(group: Any, source: str, doing: str, action: Callable[[], object]) -> Any:
        fails_here = error is not None and len(seen) == number and dist.get_rank() == 1

        def and_raise() -> object:
            result = action()
            if fails_here:
                raise error()
            return result

        seen.append(doing)
        return outcome(group, source, doing, and_raise)

    with mock.patch.object(_group, "_outcome", fails):
        yield seen


def fails_everywhere(folder: str) -> list[str]:
    """Fails once before each exchange of each function; and nobody waits for the other afterwards."""
    done = []
    every = functions(folder)
    for name in ("load_file, independent", "load_file, broadcast", "load_model", "save_file", "save_model", "dcp.load"):
        with small_blocks(), failing_at(-1, None) as exchanges:
            every[name]()
        count = len(exchanges)
        assert count >= 3, (name, exchanges)
        for number in range(count):
            for error, expected in ((with_lock, "[Errno 5] mine"), (lambda: SystemExit(3), "SystemExit")):
                with small_blocks(), failing_at(number, error) as seen:
                    message = attempt(every[name])
                assert expected in message, (name, seen, message)
                dist.barrier()
                done.append(f"{name}: {seen[number]}")
        every[name]()
    for name in ("dcp.load, planner", "dcp.save, planner"):
        message = attempt(every[name])
        assert "RuntimeError: OSError: [Errno 5] mine" in message, message
        dist.barrier()
        done.append(name)
    return done


def test_a_failure_before_any_exchange_fails_all(tmp_path: Path) -> None:
    ts.save_model(model(), tmp_path / "model.safetensors")
    one, other = run_ranks(2, fails_everywhere, str(tmp_path), timeout=200)
    assert one == other
    assert "load_file, broadcast: making room for what is passed on" in one
    assert {"save_file: finishing the file", "save_model: making the file", "dcp.load: reading"} <= set(one)


@contextlib.contextmanager
def interrupted_at(number: int) -> Iterator[list[int]]:
    """Ctrl-C on the second rank, right when it begins to exchange something for the time of this number."""
    gathered: list[int] = []
    all_gather = _group.all_gather

    def interrupted(everything: torch.Tensor, own: torch.Tensor, group: Any) -> None:
        gathered.append(len(gathered))
        if dist.get_rank() == 1 and gathered[-1] == number:
            os.kill(os.getpid(), signal.SIGINT)
        all_gather(everything, own, group=group)

    with (
        mock.patch.object(_group, "all_gather", interrupted),
        mock.patch.object(_share, "all_gather", interrupted),
    ):
        yield gathered


def is_interrupted_everywhere(folder: str) -> list[tuple[str, int, int, str]]:
    told = []
    every = functions(folder)
    for name in ("load_file, broadcast", "save_file", "dcp.load"):
        with small_blocks(), interrupted_at(-1) as gathered:
            every[name]()
        count = len(gathered)
        for number in range(count):
            with small_blocks(), interrupted_at(number):
                told.append((name, number, count, attempt(every[name])))
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            dist.barrier()
    return told


def test_an_interrupt_while_ranks_exchange_reaches_all(tmp_path: Path) -> None:
    ts.save_model(model(), tmp_path / "model.safetensors")
    others, own = run_ranks(2, is_interrupted_everywhere, str(tmp_path), timeout=200)
    for (name, number, count, elsewhere), (_, _, _, here) in zip(others, own, strict=True):
        assert "KeyboardInterrupt" in here, (name, number, here)
        # What comes with the last exchange is raised where all has been done.
        is_told = "rank 1 was interrupted while" in elsewhere or "KeyboardInterrupt" in elsewhere
        assert is_told or number == count - 1, (name, number, count, elsewhere)


def waits_and_is_interrupted() -> str:
    """The second rank waits for the first, and hears Ctrl-C meanwhile, which both are told when the first has come."""

    def action() -> None:
        if dist.get_rank() == 0:
            time.sleep(1)

    if dist.get_rank() == 1:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    return attempt(lambda: _group.together(_group.world(), "it", "at it", action))


def test_a_rank_that_waits_is_interrupted() -> None:
    assert run_ranks(2, waits_and_is_interrupted) == [
        "StoppedError: it: rank 1 was interrupted while at it",
        "KeyboardInterrupt: ",
    ]


def waits_for_nobody(left: Path) -> str:
    """The first rank never comes: the second leaves at the second Ctrl-C."""
    if dist.get_rank() == 0:
        while not left.exists():
            time.sleep(0.1)
        return ""
    for delay in (0.3, 0.6):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    message = attempt(lambda: _group.together(_group.world(), "it", "at it", lambda: None))
    left.touch()
    return message


def test_a_second_interrupt_ends_a_wait(tmp_path: Path) -> None:
    outcomes = outcomes_of_ranks(2, waits_for_nobody, tmp_path / "left", group_timeout=300)
    assert outcomes[1].value == "KeyboardInterrupt: ", outcomes[1]


def has_no_memory(folder: str) -> str:
    """What fails on one rank in the midst of an exchange is not taken for a lost rank."""
    gathered = _group._all_gather

    def fails(*arguments: Any, **options: Any) -> Any:
        if dist.get_rank() == 1:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return gathered(*arguments, **options)

    with mock.patch.object(_group, "_all_gather", fails):
        return attempt(lambda: _group.together(_group.world(), "it", "at it", lambda: None))


def test_only_lost_ranks_are_taken_for_lost() -> None:
    outcomes = outcomes_of_ranks(2, has_no_memory, "", group_timeout=20)
    assert outcomes[1].value == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert outcomes[0].value.startswith("LostError: it: another rank was lost while at it: ")


def fails_before_it_opens(folder: str) -> list[str]:
    """What only one rank passes."""

    class Odd(nn.Linear):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyError("mine")

    odd = Odd(2, 2) if dist.get_rank() == 1 else model()
    mesh = init_device_mesh("cpu", (2,))
    path: Any = f"{folder}/model.safetensors" if dist.get_rank() == 0 else 7

    class Name(str):
        pass

    name = Name("w") if dist.get_rank() == 1 else "w"
    save_file({name: torch.ones(3)}, f"{folder}/names")
    return [
        attempt(lambda: load_file(path, mesh)),
        attempt(lambda: load_model(model(), path)),
        attempt(lambda: save_file({}, path)),
        attempt(lambda: load_model(odd, f"{folder}/model.safetensors")),
        attempt(lambda: save_model(odd, f"{folder}/x")),
    ]


def test_what_one_rank_alone_passes_fails_all(tmp_path: Path) -> None:
    ts.save_model(model(), tmp_path / "model.safetensors")
    one, other = run_ranks(2, fails_before_it_opens, str(tmp_path))
    assert (
        one == other == [*["TypeError: filename: expected str or os.PathLike, not int"] * 3, *["KeyError: 'mine'"] * 2]
    )
