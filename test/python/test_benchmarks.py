"""The benchmarks run, and would notice a peer that is fast because it is wrong. No times are looked at."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import accelerator, cli, plot, report, scaling, transfers
from benchmarks.case import CannotRunError, Case
from benchmarks.cases import CASES, make_case
from benchmarks.content import Content, Entry, WrongError
from benchmarks.goals import GOALS, judge
from benchmarks.memory import Usage, peak_growth
from benchmarks.peers import PEERS
from benchmarks.peers.base import Peer, Tensors
from benchmarks.peers.limit import Limit
from benchmarks.peers.ours import Ours
from benchmarks.peers.reference import Reference
from benchmarks.raw import Raw
from benchmarks.remote import RemoteWorker, WorkerError
from benchmarks.results import CaseResult, PeerResult
from benchmarks.runner import Runner
from benchmarks.settings import Settings

SPECIAL = ["scale-load:100", "scale-keys:100", "scale-save:100", "scale-model:100", "threads:2", "device-warm:30:0.1"]
#: Runs in a worker only: it changes transformers for the whole process.
IN_PROCESS = [name for name in CASES if name != "bert"]
BYTES = [name for name in IN_PROCESS if name != "import"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folders = tmp_path / "disk", tmp_path / "tmpfs"
    for folder in folders:
        folder.mkdir()
    return Settings(*folders, small=True, rounds=2, memory=False)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    return Raw(tmp_path_factory.mktemp("raw"))


def run(name: str, settings: Settings, peer: Peer, raw: Raw | None = None) -> Case:
    """A run, judged where the peer is not the limit. Skips what this machine cannot do."""
    case = make_case(name, settings)
    for path, content in case.files():
        content.write(path)
    peer.start()
    try:
        with case.surroundings():
            action = case.limit(raw) if raw is not None else case.prepare(peer)
            assert case.sample(action) > 0
            result = case.take_result()
            if raw is None:
                case.check(result)
            case.finish()
    except CannotRunError as error:
        pytest.skip(str(error))
    return case


@pytest.mark.parametrize("peer", [Ours, Reference])
@pytest.mark.parametrize("name", [*IN_PROCESS, *SPECIAL])
def test_what_peers_do_is_right(name: str, peer: type[Peer], settings: Settings) -> None:
    """Saves are compared with files written by hand, so this also holds those to what the reference writes."""
    run(name, settings, peer())


@pytest.mark.parametrize("name", [name for name in IN_PROCESS if name not in ("import", "first-tensor")])
def test_limits_run(name: str, settings: Settings, raw: Raw) -> None:
    run(name, settings, Limit(), raw)


def broken(tensors: Tensors) -> Tensors:
    """One bit of the last tensor is another."""
    name, tensor = list(tensors.items())[-1]
    changed = tensor.clone()
    changed.view(-1).view(torch.uint8)[-1] ^= 1
    return {**tensors, name: changed}


class Wrong(Ours):
    """Does everything almost right."""

    name = "wrong"

    def load_file(self, path: Path) -> Tensors:
        return broken(super().load_file(path))

    def load_operator(self, path: Path) -> Tensors:
        return broken(dict(super().load_operator(path)))

    def keys(self, path: Path) -> list[str]:
        return super().keys(path)[:-1]

    def read_rows(self, path: Path, name: str, begin: int, end: int) -> torch.Tensor:
        return super().read_rows(path, name, begin + 1, end + 1)

    def load_bytes(self, data: bytes) -> Tensors:
        return broken(super().load_bytes(data))

    def alias_bytes(self, data: bytearray) -> Tensors:
        return broken(super().alias_bytes(data))

    def save_file(self, tensors: Tensors, path: Path) -> None:
        super().save_file(broken(tensors), path)

    def save_durably(self, tensors: Tensors, path: Path) -> None:
        super().save_durably(broken(tensors), path)

    def save_bytes(self, tensors: Tensors) -> bytes:
        return super().save_bytes(broken(tensors))

    def load_model(self, model: torch.nn.Module, path: Path) -> None:
        super().load_model(model, path)
        next(model.parameters()).data.view(-1).view(torch.uint8)[0] ^= 1

    def save_model(self, model: torch.nn.Module, path: Path) -> None:
        next(model.parameters()).data.view(-1).view(torch.uint8)[0] ^= 1
        super().save_model(model, path)

    def load_code(self) -> str:
        return super().load_code() + "\nfor tensor in tensors.values(): tensor.zero_()"


@pytest.mark.parametrize("name", BYTES)
def test_a_wrong_peer_is_noticed(name: str, settings: Settings) -> None:
    with pytest.raises(WrongError):
        run(name, settings, Wrong())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("b"), "1 tensors instead of 2"),
        (lambda tensors: tensors.update(c=tensors.pop("b")), "tensor 'b' is missing"),
        (lambda tensors: tensors.update(b=tensors["b"].view(torch.int32)), "tensor 'b' is torch.int32"),
        (lambda tensors: tensors.update(b=tensors["b"].view(2, 2)), r"tensor 'b' is torch.float32 \(2, 2\)"),
        (lambda tensors: tensors.update(a=tensors["b"], b=tensors["a"]), "the bytes up to 'b' are wrong"),
    ],
)
def test_content_is_compared(change: Callable[[Any], Any], message: str) -> None:
    content = Content("two", [Entry("a", "F32", (4,)), Entry("b", "F32", (4,))])
    tensors = content.tensors()
    content.check(tensors)
    change(tensors)
    with pytest.raises(WrongError, match=message):
        content.check(tensors)


@pytest.fixture
def runner(settings: Settings) -> Iterator[Runner]:
    runner = Runner(settings, ["ours", "reference", "instanttensor", "limit"], lambda text: None)
    yield runner
    runner.close()


def test_peers_take_turns_in_processes_of_their_own(runner: Runner, settings: Settings) -> None:
    many, bytes_out = runner.run(["many", "bytes-out-warm"])
    for result in many, bytes_out:
        assert {name: len(peer.samples) for name, peer in result.peers.items()} == {
            "ours": 2,
            "reference": 2,
            "limit": 2,
        }
        assert all(sample > 0 for peer in result.peers.values() for sample in peer.samples)
    assert list(settings.disk.glob("*.safetensors")) == []


def test_slow_peers_take_part_in_fewer_rounds(settings: Settings) -> None:
    runner = Runner(dataclasses.replace(settings, rounds=7, budget=10), [], lambda text: None)

    def counts(**seconds: float) -> Counter[str]:
        return Counter(name for names in runner.rounds(seconds) for name in names)

    assert counts(ours=0.1, reference=0.1, torch=1) == {"ours": 7, "reference": 7, "torch": 7}
    assert counts(ours=0.1, reference=2, torch=1, runai=2) == {"ours": 7, "reference": 7, "torch": 3, "runai": 3}
    assert counts(ours=0.1, reference=12) == {"ours": 7, "reference": 7}
    assert counts(ours=0.1, reference=13) == {"ours": 7, "reference": 3}


def test_memory_is_measured_in_a_fork(settings: Settings) -> None:
    with contextlib.closing(RemoteWorker("ours", settings)) as worker:
        growth = worker.peak_in_fork("bytes-out-warm")
        assert growth.keys() == {"own", "file", "total"}
        assert worker.call("finish") == []  # the worker itself has done nothing


def test_a_worker_that_dies_is_a_line(settings: Settings) -> None:
    worker = RemoteWorker("reference", settings)
    with pytest.raises(WorkerError, match="failed: RuntimeError: prepare comes first"):
        worker.call("sample")
    os.kill(worker.process, signal.SIGKILL)
    with pytest.raises(WorkerError, match="died with -9") as caught:
        worker.call("sample")
    assert caught.value.lost


@pytest.mark.model
def test_transformers_case(settings: Settings) -> None:
    runner = Runner(settings, ["ours", "reference"], lambda text: None)
    (result,) = runner.run(["bert"])
    runner.close()
    if result.failure:
        pytest.skip(result.failure)
    assert {name: peer.failure for name, peer in result.peers.items()} == {"ours": None, "reference": None}


def result_of(name: str, peak: int = 0, **seconds: float) -> CaseResult:
    peers = {peer: PeerResult([time] * 3, {"own": peak, "file": 0, "total": peak}) for peer, time in seconds.items()}
    return CaseResult(name, "", 100, peers)


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (result_of("many", ours=1, reference=19), "missed"),
        (result_of("many", ours=1, reference=20), "met"),
        (result_of("many", ours=1, reference=50), "stretch"),
        (result_of("cold", ours=1, reference=9), ""),
        (result_of("cold", ours=1, runai=1.1), "met"),
        (result_of("import", ours=0.04, reference=1), "met"),
        (result_of("bytes-out-warm", ours=1, reference=11, peak=105), "met"),
        (result_of("bytes-out-warm", ours=1, reference=11, peak=106), "memory"),
    ],
)
def test_goals_are_judged(result: CaseResult, outcome: str) -> None:
    verdict = judge(result)
    assert verdict is not None
    assert verdict.outcome == outcome


def test_every_goal_has_a_case() -> None:
    assert set(GOALS) <= set(CASES)
    assert all(goal.against in PEERS for goal in GOALS.values())


def test_a_peak_between_samples_is_seen_by_the_kernel() -> None:
    before, after = Usage(own=10, file=5, peak=0), Usage(own=20, file=8, peak=100)
    assert peak_growth(before, after, []) == {"own": 82, "file": 3, "total": 85}
    assert peak_growth(before, after, [Usage(own=95, file=8, peak=0)])["own"] == 85


def test_the_limit_is_the_best_sample() -> None:
    result = CaseResult("open", "", 0, {peer: PeerResult([1.0, 2.0, 3.0]) for peer in ("ours", "limit")})
    assert (result.time("ours"), result.time("limit"), result.ratio("ours", to="limit")) == (2, 1, 2)


def test_slope_is_the_power() -> None:
    assert scaling.slope({100: 1e9, 1_000: 1e3, 10_000: 1e5, 100_000: 1e7}) == pytest.approx(2)
    assert scaling.slope({1_000: 1}) is None


def test_reports_have_a_row_for_each_result() -> None:
    failed = CaseResult("slow-fs", "", 0, failure="no FUSE here")
    lost = CaseResult("many", "", 0, {"ours": PeerResult([1e-3]), "reference": PeerResult(failure="died")})
    results = [result_of("open", ours=0.001, reference=0.005, torch=0.01, limit=0.0005), lost, failed]
    row = report.row(results[0])
    assert row[:6] == ["open", "1 ms ±0%", "5 ms ±0%", "5.00x", "2.00x", "torch 0.50x"]
    assert report.row(lost)[2:4] == ["failed", ""]
    assert report.lines(results, {"runai": "no module"}) == [
        "runai: missing: no module",
        "many, reference: died",
        "slow-fs: not measured: no FUSE here",
    ]
    rows = [report.row(result) for result in results]
    assert report.table(report.HEADINGS, rows, markdown=True).count("\n") == 4
    assert "device" not in accelerator.report([result_of("device-warm:300:1", ours=1, limit=0.5)])


def test_charts_are_drawn(tmp_path: Path, settings: Settings) -> None:
    """Where there is a matplotlib."""
    try:
        plot.load_pyplot(settings)
    except ImportError as error:
        pytest.skip(str(error))
    results = [result_of("open", ours=1, reference=5, torch=7, limit=0.1), result_of("moe", ours=2, reference=1)]
    plot.draw_ratios(results, tmp_path / "ratios.png", settings)
    sizes = [result_of(f"scale-load:{size}", ours=size, reference=2 * size) for size in (100, 1000)]
    plot.draw_curves(scaling.curves(sizes), tmp_path / "curves.png", settings)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--small", "--case", "small-save", "--peer", "reference", "--rounds", "1", "--dir", str(tmp_path)]
    cli.main([*options, "--json", str(tmp_path / "run.json"), "--markdown"])
    assert "| small-save |" in capsys.readouterr().out
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["machine"]["versions"].keys() == {"ours", "reference"}
    assert len(content["cases"][0]["peers"]["ours"]["samples"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--case", "open", "opne"])
    assert "no case opne; there are open, read, many" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--list"])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in CASES)


def test_transfers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transfers.main([str(tmp_path), "--device", "cpu", "--megabytes", "2", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| way |") for line in lines) == 6
    assert not list(tmp_path.iterdir())
