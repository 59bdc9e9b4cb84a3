"""The benchmark of torch.distributed.checkpoint runs, and every way is in its table. No times are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import distributed_checkpoint


def test_every_way_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distributed_checkpoint.main(["--megabytes", "0.1", "--rounds", "1", "--dir", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    for what, files, way in distributed_checkpoint.CASES:
        assert any(line.split()[:2] == [what, files] and f" {way} " in line for line in lines), (what, files, way)
    assert list(tmp_path.iterdir()) == []
