"""Writes the seeds of the fuzzers: python fuzz/make_corpus.py <folder> makes <folder>/<fuzzer>/*, always the same."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

DTYPE_BITS = {
    **{"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32},
    **{"C64": 64, "F64": 64, "I64": 64, "U64": 64},
}


def header(tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None = None) -> dict[str, object]:
    """A valid header of tensors that lie in this order."""
    entries: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin = end
        count = 1
        for dim in shape:
            count *= dim
        end += count * DTYPE_BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return entries


def headers() -> Iterator[str]:
    """Valid ones of every kind, and one for each thing that can be wrong."""
    compact = {"separators": (",", ":"), "ensure_ascii": False}
    for dtype in DTYPE_BITS:
        yield json.dumps(header({"w": (dtype, [2, 4])}), **compact)
    layer = {"q.weight": ("BF16", [4, 8]), "q.bias": ("F32", [3]), "scale": ("F32", []), "empty": ("U8", [0, 5])}
    model = {f"layers.{i}.{name}": kind for i in range(3) for name, kind in layer.items()}
    for metadata in None, {}, {"format": "pt", "": "", "\u00e9\U0001f600": "a\nb\\c\u0001"}:
        yield json.dumps(header(model, metadata), **compact)
        yield json.dumps(header(model, metadata), indent=1) + "   "
    one = json.dumps(header({"w": ("F32", [2])}), **compact)
    yield from ("{}", "{} ", one, " \n" + one + "\t\r")
    yield one.replace("w", "")
    yield one.replace("w", "\\u0000\\ud83d\\ude00")
    yield one.replace('"shape"', '"extra":[{"a":[1e5,-0.5,null,true]},"x"],"shape"')
    yield one.replace("{", '{"__metadata__":null,', 1)
    for old, new in {
        "[2]": "[2.0]",
        "[0,": "[-0,",
        "8]": "8,8]",
        "F32": "f32",
        "w": "__metadata__",
        '"dtype"': '"dtype":"F32","dtype"',
        "}}": "}},",
        "[0,8": "[8,16",
        '"w"': '"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w"',
        "2": "9223372036854775808",
        "{": "{" + "[" * 130,
    }.items():
        yield one.replace(old, new, 1)


def indexes() -> Iterator[str]:
    """Those of checkpoints in several files, and what can be wrong with them."""
    one = json.dumps({"metadata": {"total_size": 8, "more": [{}, None]}, "weight_map": {"a": "f-1", "b": "f-2"}})
    yield from ("{}", one, json.dumps(json.loads(one), indent=2) + "\n")
    for old, new in {
        '"f-1"': "1",
        "f-1": "../f",
        '"b"': '"a"',
        "{": "[",
        '"metadata"': '"weight_map"',
        "a": "\\ud83d\\ude00",
        "f-2": "sub/./f",
    }.items():
        yield one.replace(old, new, 1)


def file_of(text: str) -> bytes:
    """With as many data bytes as it says."""
    raw = text.encode()
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(text).items() if name != "__metadata__"]
        size = int(max(ends, default=0))
    except (ValueError, TypeError, KeyError, AttributeError):
        size = 8
    return len(raw).to_bytes(8, "little") + raw + random.Random(len(raw)).randbytes(min(size, 4096))


def main(folder: Path) -> None:
    noise = random.Random(1)
    seeds = {
        "header": [text.encode() for text in headers()],
        "index": [text.encode() for text in indexes()],
        "file": [file_of(text) for text in headers()],
        "writer": [noise.randbytes(size) for size in (8, 40, 200, 600)],
        "slice": [noise.randbytes(size) for size in (16, 60, 200)],
    }
    for fuzzer, contents in seeds.items():
        target = folder / fuzzer
        target.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(contents):
            (target / f"seed_{number:03}").write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
