"""How much memory a process has, its own apart from pages of mapped files (Linux)."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Usage:
    """In bytes. ``own``: memory of the process alone; ``file``: pages of files, which are the page cache's."""

    own: int
    file: int
    peak: int

    @classmethod
    def now(cls, process: int | str = "self") -> Usage:
        """Of a process; zeros where the system does not tell."""
        try:
            text = Path(f"/proc/{process}/status").read_text()
        except OSError:
            return cls(0, 0, 0)
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

        def field(name: str) -> int:
            return int(fields.get(name, "0 kB").split()[0]) * 1024

        return cls(field("RssAnon"), field("RssFile") + field("RssShmem"), field("VmHWM"))


def forget_peak() -> None:
    """Has the kernel measure this process's peak anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_growth(before: Usage, after: Usage, samples: list[Usage]) -> dict[str, int]:
    """What a run added at its peak.

    Samples from outside may miss a short peak of ``own``. The kernel's own peak misses none, but counts pages of files
    too; less all of these it is a lower bound as well.
    """
    file = max(usage.file for usage in [*samples, after]) - before.file
    sampled = max(usage.own for usage in [*samples, after]) - before.own
    total = after.peak - before.own - before.file
    return {"own": max(sampled, total - max(file, 0), 0), "file": max(file, 0), "total": max(total, 0)}
