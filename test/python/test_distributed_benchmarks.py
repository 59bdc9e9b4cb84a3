"""The benchmarks of loads by several ranks run, and notice what is wrong. Simulation and formulas agree."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

from benchmarks import distributed_cost, distributed_load
from benchmarks.case import CannotRunError
from benchmarks.distributed import loads
from benchmarks.distributed.simulation import simulate
from torch_safetensors.distributed._cost import Hardware, Strategy, Work, seconds

SLOW = Hardware(storage_bandwidth=1e8, client_bandwidth=4e7, network_bandwidth=5e7)


@pytest.mark.parametrize("strategy", distributed_cost.STRATEGIES)
@pytest.mark.parametrize("layout", distributed_cost.LAYOUTS)
@pytest.mark.parametrize("ranks", [1, 2, 4, 16])
def test_simulation_and_formulas_agree(ranks: int, layout: str, strategy: Strategy) -> None:
    work = distributed_cost.work_of(layout, ranks, 10**9, 100)
    assert simulate(strategy, work, SLOW) == pytest.approx(seconds(strategy, work, SLOW), rel=0.02)


def test_equal_rounds_are_not_all_simulated() -> None:
    work = distributed_cost.work_of("replicated", 16, 10**11, 1)
    found = distributed_cost.simulate_at_length("broadcast", work, SLOW, 0)
    assert found == pytest.approx(simulate("broadcast", work, SLOW), rel=0.01)


@pytest.mark.parametrize("strategy", ["independent", "broadcast"])
def test_many_small_requests_are_simulated(strategy: Strategy) -> None:
    work = Work(50, own=10**6, unique=10**6, shared={}, requests=1000)
    hardware = Hardware(storage_requests=1e4)
    assert simulate(strategy, work, hardware) == pytest.approx(seconds(strategy, work, hardware), rel=0.1)


def test_slow_cables_delay_everybody() -> None:
    work = distributed_cost.work_of("replicated", 4, 10**9, 1)
    assert 1.1 < simulate("broadcast", work, SLOW, jitter=1.0) / simulate("broadcast", work, SLOW) < 2


def test_costs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    distributed_cost.main(["--ranks", "1", "16", "--gigabytes", "1", "--tensors", "10"])
    printed = capsys.readouterr().out.splitlines()
    layouts = [line.rsplit(" 16 ", 1)[0].strip() for line in printed if " 16 " in line]
    assert layouts == list(distributed_cost.LAYOUTS)
    assert "a header of 10 tensors: 0.0 MB, read and parsed in " in printed[-1]


def loaded(**changes: Any) -> tuple[dict[str, Any], Any, dict[str, Any], loads.Shapes]:
    """What the second of two ranks has."""
    shapes: loads.Shapes = {"a": (4, 2), "b": (3,)}
    mesh = SimpleNamespace(size=lambda: 2, get_local_rank=lambda: 1)
    placements = {"a": Shard(0), "b": Replicate()}
    parts = {"a": loads.tensor_of(shapes, "a")[2:], "b": loads.tensor_of(shapes, "b"), **changes}
    tensors = {
        name: SimpleNamespace(placements=(placements[name],), to_local=lambda part=part: part)
        for name, part in parts.items()
        if part is not None
    }
    return tensors, mesh, placements, shapes


def test_right_parts_are_right() -> None:
    loads.check(*loaded())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, "1 tensors, not 2"),
        ({"a": torch.zeros(2, 2)}, "a is wrong"),
        ({"a": loads.tensor_of({"a": (4, 2)}, "a")[:2]}, "a is wrong"),
    ],
)
def test_wrong_parts_are_noticed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loads.check(*loaded(**change))


def test_wrong_placements_are_noticed() -> None:
    tensors, *others = loaded()
    tensors["a"].placements = (Replicate(),)
    with pytest.raises(ValueError, match="a is placed"):
        loads.check(tensors, *others)


def test_loads_are_measured(tmp_path: Path) -> None:
    """On FUSE, where there is one; every peer's result is compared with what was saved."""
    options = distributed_load.parse(
        ["--ranks", "2", "--rounds", "1", "--megabytes", "0.2", "--latency", "0", "--dir", str(tmp_path)]
    )
    try:
        results, _ = distributed_load.measure(options, lambda _: None)
    except CannotRunError as error:
        pytest.skip(str(error))
    assert [(result.layout, result.peer, result.failure) for result in results] == [
        (layout, peer, "") for layout in loads.LAYOUTS for peer in loads.PEERS
    ]
    assert all(len(result.times) == 1 and result.nbytes[0] > 0 for result in results)
    assert len(distributed_load.rows(options, results)) == len(results)
