"""The comparison of packages that use the reference runs. No times are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
from clients import needs

import torch_safetensors as ts
from benchmarks import clients

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def test_every_operation_has_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in "transformers", "accelerate", "diffusers", "peft", "torchao":
        needs(package)
    clients.main([str(tmp_path), "--rounds", "1", "--width", "64", "--layers", "1"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].removeprefix("| ") for row in rows] == list(clients.OPERATIONS)
    assert all(row[1].endswith(" ms") and row[2].endswith(" ms") for row in rows)
    assert safetensors.safe_open is not ts.safe_open


def test_missing_packages_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(folder: Path, size: clients.Size) -> clients.Action:
        raise ImportError("no such package")

    monkeypatch.setattr(clients, "OPERATIONS", {"missing: load": missing, "nothing": lambda folder, size: lambda: None})
    clients.main([str(tmp_path), "--rounds", "1"])
    out, error = capsys.readouterr()
    assert error == "missing: load: left out: no such package\n"
    assert out.splitlines()[-1].startswith("| nothing | 0.0 ms |")
