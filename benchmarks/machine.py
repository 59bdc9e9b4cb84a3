"""What a run was measured on, and whether there is room for it."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .case import Case
from .runner import takes_part
from .settings import ROOT, Settings


def describe(settings: Settings) -> dict[str, Any]:
    """For the JSON file."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory": memory()["MemTotal"],
        "kernel": platform.platform(),
        "huge pages": _text("/sys/kernel/mm/transparent_hugepage/enabled"),
        "disk": _file_system(settings.disk),
        "tmpfs": _file_system(settings.tmpfs),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "device": _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
    }


def one_line(facts: dict[str, Any]) -> str:
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory'] / 2**30:.0f} GiB, {facts['kernel']}, "
        f"{facts['disk']}, Python {facts['python']}, torch {facts['torch']}, {facts['date'][:10]}, "
        f"commit {facts['commit']}"
    )


def memory() -> dict[str, int]:
    """Of the machine, in bytes; zeros where the system does not tell."""
    found = {"MemTotal": 0, "MemAvailable": 0}
    for line in _text("/proc/meminfo").splitlines():
        name, value = line.split(":")
        found[name] = int(value.split()[0]) * 1024
    return found


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    names = [
        line.split(":")[1].strip() for line in _text("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()


def _file_system(path: Path) -> str:
    return _output("stat", "-f", "-c", "%T", str(path))


def needs(cases: Sequence[Case], peers: Iterable[str]) -> tuple[int, int]:
    """Bytes on the disk and bytes of memory that a run needs at most, about."""
    uses = Counter(path for case in cases for path, _ in case.files())
    there: dict[Path, int] = {}
    disk = most = 0
    for case in cases:
        there.update({path: content.nbytes + len(content.header) for path, content in case.files()})
        # Everything once more for torch's own format, and what is saved.
        disk = max(disk, 2 * sum(there.values()) + case.nbytes)
        workers = sum(takes_part(peer, case) for peer in peers)
        most = max(most, workers * (case.resident + (300 << 20)) + 3 * case.nbytes)
        uses.subtract(path for path, _ in case.files())
        there = {path: size for path, size in there.items() if uses[path] > 0}
    return disk, most


def lack_of_room(settings: Settings, disk: int, most: int) -> str | None:
    """Why the run had better not start."""
    free = shutil.disk_usage(settings.disk).free
    if free < disk:
        return f"needs {disk / 1e9:.1f} GB in {settings.disk}, {free / 1e9:.1f} are free (--dir, --small or --case)"
    available = memory()["MemAvailable"]
    if 0 < available < most:
        return f"needs {most / 1e9:.1f} GB of memory, {available / 1e9:.1f} are available (--small, --case or --peer)"
    return None
