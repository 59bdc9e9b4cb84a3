"""A slow, read-only file system over a folder: ``python -m benchmarks.slow_fs FOLDER MOUNT BANDWIDTH LATENCY COUNTS``.

Like a network file system: every request waits, and all of them share a bandwidth. Hard links of a file are files of
their own to the page cache, as they are to several hosts. Until it is unmounted. Needs libfuse 3 and mfusepy.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .case import CannotRunError
from .settings import ROOT, Settings

LATENCY = 1e-3  # seconds a request
BANDWIDTH = 400e6  # bytes a second, of all requests together


class Counts:
    """What a mount has been asked for, in a file that the server shares."""

    _FORMAT = struct.Struct("=QQ")

    def __init__(self, path: Path) -> None:
        path.touch()
        os.truncate(path, self._FORMAT.size)
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self._FORMAT.size)

    def add(self, size: int) -> None:
        requests, nbytes = self.get()
        self._FORMAT.pack_into(self._memory, 0, requests + 1, nbytes + size)

    def get(self) -> tuple[int, int]:
        """Requests, and bytes read."""
        return self._FORMAT.unpack_from(self._memory)


@contextlib.contextmanager
def mounted(
    settings: Settings, folder: Path, mount: Path, bandwidth: float = BANDWIDTH, latency: float = LATENCY
) -> Iterator[Counts]:
    """Shows ``folder`` at ``mount``; raises CannotRunError where the system has no FUSE."""
    mount.mkdir(exist_ok=True)
    counts = settings.disk / "slow-fs.counts"
    numbers = str(bandwidth), str(latency), str(counts)
    command = [sys.executable, "-m", "benchmarks.slow_fs", str(folder), str(mount), *numbers]
    paths = os.pathsep.join([str(settings.peers / "mfusepy"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths}
    log_path = settings.disk / "slow-fs.log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while not os.path.ismount(mount):
            if server.poll() is not None or time.monotonic() > deadline:
                last_words = log_path.read_text(errors="replace").strip().splitlines()[-1:]
                raise CannotRunError(f"no FUSE here (apt-get install fuse3): {' '.join(last_words)}")
            time.sleep(0.05)
        yield Counts(counts)
    finally:
        unmount = shutil.which("fusermount3") or shutil.which("fusermount")
        if unmount is not None and os.path.ismount(mount):
            subprocess.run([unmount, "-u", "-z", str(mount)], check=False)
        server.terminate()
        server.wait()


class Throttle:
    """When a request of so many bytes may be answered."""

    def __init__(self, bandwidth: float, latency: float, counts: Counts) -> None:
        self._bandwidth, self._latency = bandwidth, latency
        self._counts = counts
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, size: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + size / self._bandwidth
            answer_at = self._free_at + self._latency
            self._counts.add(size)
        time.sleep(answer_at - now)


def serve(folder: str, mount: str, bandwidth: str, latency: str, counts: str) -> None:
    import mfusepy

    throttle = Throttle(float(bandwidth), float(latency), Counts(Path(counts)))

    class SlowFolder(mfusepy.Operations):
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            status = os.lstat(folder + path)
            names = "st_mode", "st_size", "st_nlink", "st_uid", "st_gid"
            return {name: getattr(status, name) for name in names}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *(entry.name for entry in Path(folder + path).iterdir())]

        def open(self, path: str, flags: int) -> int:
            throttle.wait(0)
            return os.open(folder + path, os.O_RDONLY)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            throttle.wait(size)
            return os.pread(fh, size, offset)

        def release(self, path: str, fh: int) -> int:
            os.close(fh)
            return 0

    mfusepy.FUSE(SlowFolder(), mount, foreground=True, ro=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
