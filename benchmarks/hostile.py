"""What hostile headers cost, ours and the reference: time and peak memory of ``safe_open``, each in a fresh process.

``python -m benchmarks.hostile [--size BYTES] [--markdown]``; the largest header that the format allows is 100 MB.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .memory import Usage, forget_peak
from .report import seconds, table
from .settings import ROOT

LARGEST = 100_000_000
PACKAGES = {"ours": "torch_safetensors", "reference": "safetensors"}
#: Seconds after which a process is ended.
TIMEOUT = 120.0

TENSOR = b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]'
FIELD = TENSOR + b',"x":'
AS_TENSOR = b'":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'

MakeHeader = Callable[[int], bytes]


def repeated(before: bytes, unit: bytes, after: bytes) -> MakeHeader:
    """``unit`` as often as it fits between the others."""
    return lambda size: before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def listed(before: bytes, entry: Callable[[int], bytes], after: bytes) -> MakeHeader:
    """Entries with a comma between them, as many as fit."""

    def make(size: int) -> bytes:
        entries, left, index = [], size - len(before) - len(after), 0
        while (left := left - len(following := entry(index)) - 1) >= 0:
            entries.append(following)
            index += 1
        return before + b",".join(entries) + after

    return make


def scrambled(index: int) -> bytes:
    return b"%x" % (index * 2654435761 % 2**32)


def tensor(name: bytes) -> bytes:
    return b'"' + name + AS_TENSOR


METADATA = b'{"__metadata__":{'
HEADERS: dict[str, MakeHeader] = {
    "garbage": repeated(b"", bytes(range(256)), b""),
    "numbers 1e100": repeated(FIELD + b"[0", b",1e100", b"]}}"),
    "numbers 1.7e308": repeated(FIELD + b"[0", b",1.7e308", b"]}}"),
    "numbers too large": repeated(FIELD + b"[0", b",-1.8e308", b"]}}"),
    "one number": repeated(FIELD + b"0.", b"1", b"}}"),
    "one integer": repeated(FIELD, b"1", b"}}"),
    "numbers of 100,000 digits": repeated(FIELD + b"[0", b",0." + b"9" * 100_000, b"]}}"),
    "one dimension": repeated(b'{"w":{"shape":[', b"1", b"]}}"),
    "dimensions": repeated(b'{"w":{"dtype":"U8","shape":[0', b",1", b'],"data_offsets":[0,0]}}'),
    "dimensions, name escaped": repeated(b'{"\\u0077":{"dtype":"U8","shape":[0', b",1", b'],"data_offsets":[0,0]}}'),
    "brackets": repeated(b"", b"[", b""),
    "brackets in a field": repeated(FIELD, b"[", b""),
    "flat brackets": repeated(FIELD + b"[[]", b",[]", b"]}}"),
    "one name": repeated(b'{"', b"a", AS_TENSOR + b"}"),
    "one name of escapes": repeated(b'{"', b"\\n", AS_TENSOR + b"}"),
    "one name of commas": repeated(b'{"', b",", AS_TENSOR + b"}"),
    "one ignored string": repeated(FIELD + b'"', b"a", b'"}}'),
    "one string without end": repeated(b'{"', b"a", b""),
    "spaces": repeated(b"{}", b" ", b""),
    "line breaks in the map": repeated(b"{", b"\n", b"}"),
    "tensors": listed(b"{", lambda i: tensor(scrambled(i)), b"}"),
    "tensors, then an escape": listed(b"{", lambda i: tensor(scrambled(i)), b',"\\n":1}'),
    "tensors with like names": listed(b"{", lambda i: tensor(b"a" * 50 + scrambled(i)), b"}"),
    "tensors with long names": listed(b"{", lambda i: tensor(b"a" * 100_000 + scrambled(i)), b"}"),
    "tensors of one name": listed(b"{", lambda i: tensor(b""), b"}"),
    "ignored fields": listed(TENSOR + b",", lambda i: b'"":0', b"}}"),
    "metadata": listed(METADATA, lambda i: b'"%s":""' % scrambled(i), b"}}"),
    "metadata, sorted": listed(METADATA, lambda i: b'"%d":""' % (10_000_000 + i), b"}}"),
    "metadata of one key": listed(METADATA, lambda i: b'"":""', b"}}"),
    "metadata with like keys": listed(METADATA, lambda i: b'"' + b"a" * 16 + b'%s":""' % scrambled(i), b"}}"),
    "metadata of escapes": repeated(METADATA + b'"k":"', b"\\n", b'"}}'),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    seconds: float
    #: Bytes that opening added at its peak, pages of the mapped file among them.
    peak: int
    #: How many tensors there are, or None if the file was refused.
    count: int | None


def write(path: Path, header: bytes) -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def cost_of_opening(package: str, path: Path) -> Cost:
    """In this process; memory that it has freed and kept would be used again and not count."""
    safe_open = importlib.import_module(package).safe_open
    forget_peak()
    before = Usage.now()
    start = time.perf_counter()
    try:
        opened = safe_open(path, "pt")
    except Exception:  # whichever class it has
        opened = None
    elapsed = time.perf_counter() - start
    peak = max(0, Usage.now().peak - before.own - before.file)
    return Cost(elapsed, peak, None if opened is None else len(opened.keys()))


def measure(package: str, path: Path) -> Cost | None:
    """The same in a fresh process; None if it did not end."""
    command = [sys.executable, "-m", "benchmarks.hostile", "--open", str(path), "--package", package]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return None
    return Cost(**json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--size", type=int, default=LARGEST, help="bytes of each header (100,000,000)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--package", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        with tempfile.NamedTemporaryFile() as file:  # what the first use of a package needs is not the header's cost
            write(Path(file.name), b"{}")
            cost_of_opening(options.package, Path(file.name))
        print(json.dumps(dataclasses.asdict(cost_of_opening(options.package, options.open))))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "hostile.safetensors"
        for name, make in HEADERS.items():
            write(path, make(options.size))
            row = [name]
            for package in PACKAGES.values():
                cost = measure(package, path)
                if cost is None:
                    row += [f"over {TIMEOUT:.0f} s", "", ""]
                    continue
                verdict = "refused" if cost.count is None else f"{cost.count:,}"
                row += [seconds(cost.seconds), f"{cost.peak / options.size:.1f}", verdict]
            rows.append(row)
            print(" | ".join(row), file=sys.stderr)
    headings = [
        "header",
        *(f"{peer}{what}" for peer in PACKAGES for what in (", time", ", peak / header", ", tensors")),
    ]
    print(table(headings, rows, markdown=options.markdown))


if __name__ == "__main__":
    main()
