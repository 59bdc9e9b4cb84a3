"""The benchmark of torch.distributed.checkpoint runs, and every way is in its table. No times are looked at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import distributed_checkpoint


def test_every_way_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distributed_checkpoint.main(["--megabytes", "0.1", "--rounds", "1", "--pieces", "10", "--dir", str(tmp_path)])
    rows = [tuple(re.split(r" {2,}", line)[:3]) for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == distributed_checkpoint.CASES
    assert list(tmp_path.iterdir()) == []
