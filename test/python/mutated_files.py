"""Files that are nearly valid: headers made at random, written with every freedom of JSON, and then broken a little."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

BITS = {
    **{"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32},
    **{"C64": 64, "F64": 64, "I64": 64, "U64": 64},
}
#: At the borders of what a number of the format may be, and how JSON may write numbers otherwise.
NUMBERS = [
    *("0", "1", "2", "7", "8", "9", "16", "255", "4611686018427387904", "9223372036854775807", "9223372036854775808"),
    *("18446744073709551615", "18446744073709551616", "340282366920938463463374607431768211456", "-1", "-0", "1.0"),
    *("1e0", "0e400", "1E2", "0.5", "02", "+2", "0x1", "1e400", "1e-400", "NaN", "9" * 400, "9" * 309 + "e-300"),
]
#: What may stand where it does not belong.
VALUES = [
    *(
        "null",
        "true",
        "false",
        "[]",
        "{}",
        '""',
        '"1"',
        '"F32"',
        "[0,8]",
        "[[1]]",
        '{"a":[1,{"b":null}]}',
        '{"F32":null}',
    ),
    *("[" * 126 + "]" * 126, "[" * 127 + "]" * 127, "[" * 124 + '{"a":0}' + "]" * 124),
]
#: Bytes that matter to a parser of JSON or of UTF-8.
PIECES = [
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b" ", b"\n", b"\t", b"\r", b"\0", b"\x01", b"\x1f", b"\x7f"),
    *(b"\x80", b"\xc0\x80", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xf4\x90\x80\x80", b"\xff"),
    *(
        b"\xef\xbb\xbf",
        b"\\u0061",
        b"\\u0000",
        b"\\ud800",
        b"\\udc00",
        b"\\ud83d\\ude00",
        b"\\n",
        b"\\/",
        b"\\x",
        b"//",
    ),
    *(b"'", b"//", b"/**/", b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"dtype", b"shape", b"data_offsets"),
    *(b'"__metadata__":{}', b'"x":0', b",,", b"{}"),
]
NAMES = [
    "",
    "w",
    "a",
    "b.c",
    "\0",
    "\x1f",
    '"\\/',
    "\x7f",
    "\u00e9",
    "\u6f22",
    "\U0001f999",
    "\u2028",
    "dtype",
    "x" * 70,
]


class Raw(str):
    """A piece of JSON that is written as it stands."""


class Pairs(list[tuple[Any, Any]]):
    """A JSON object that may have a key twice."""


class FileMaker:
    """Makes files from a seed: ``next(maker)`` is one."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        header, size = self._header()
        for _ in range(self._rng.choice((0, 0, 1, 1, 1, 2, 3))):
            self._change(header)
        text = self._write(header).encode("utf-8", "surrogatepass")
        if self._one_in(6):
            text = self._with_whitespace_around(text)
        for _ in range(self._rng.choice((0, 0, 0, 1, 2))):
            text = self._change_bytes(text)
        return self._file(text, size)

    def _one_in(self, chances: int) -> bool:
        return self._rng.randrange(chances) == 0

    # --- a valid header ----------------------------------------------------------------------------

    def _header(self) -> tuple[Pairs, int]:
        """With the size of its data."""
        rng = self._rng
        header = Pairs()
        end = 0
        for name in rng.sample(NAMES, rng.choice((0, 1, 1, 2, 2, 3, 5))):
            dtype = rng.choice(list(BITS))
            shape = [rng.choice((0, 1, 2, 3, 4, 8)) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))]
            if BITS[dtype] < 8:
                shape.append(4)
            count = 1
            for dim in shape:
                count *= dim
            begin, end = end, end + count * BITS[dtype] // 8
            entry = Pairs([("dtype", dtype), ("shape", shape), ("data_offsets", [begin, end])])
            if self._one_in(3):
                rng.shuffle(entry)
            header.append((name, entry))
        if self._one_in(2):
            keys = [rng.choice(NAMES) for _ in range(rng.randrange(4))]
            metadata = None if self._one_in(9) else Pairs((key, rng.choice(NAMES)) for key in keys)
            header.append(("__metadata__", metadata))
        if self._one_in(2):
            rng.shuffle(header)
        return header, end

    # --- what JSON leaves open -----------------------------------------------------------------------

    def _write(self, value: Any) -> str:
        if isinstance(value, Raw):
            return value
        if isinstance(value, Pairs):
            return "{" + ",".join(f"{self._write(key)}{self._space()}:{self._write(item)}" for key, item in value) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self._write(item) for item in value) + self._space() + "]"
        if isinstance(value, str):
            return self._write_string(value)
        return self._space() + json.dumps(value) + self._space()

    def _space(self) -> str:
        return self._rng.choice((" ", "\n", "\t", "\r\n")) if self._one_in(12) else ""

    def _write_string(self, text: str) -> str:
        if self._one_in(10):
            return '"' + "".join(self._escape(letter) for letter in text) + '"'
        return json.dumps(text, ensure_ascii=self._one_in(3))

    def _escape(self, letter: str) -> str:
        units = letter.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))

    # --- what breaks it ------------------------------------------------------------------------------

    def _change(self, header: Pairs) -> None:
        rng = self._rng
        entries = [item for _, item in header if isinstance(item, Pairs)]
        change = rng.randrange(9)
        if change == 0 or not entries:
            header.append((rng.choice(NAMES), Raw(rng.choice(VALUES + NUMBERS))))
        elif change == 1:
            header.append(rng.choice(header))
        elif change == 2:
            name, item = header.pop(rng.randrange(len(header)))
            header.append((rng.choice(NAMES), item) if self._one_in(2) else (name, self._as_array(item)))
        else:
            self._change_entry(rng.choice(entries), change)

    @staticmethod
    def _as_array(item: Any) -> Any:
        return [value for _, value in item] if isinstance(item, Pairs) else [item]

    def _change_entry(self, entry: Pairs, change: int) -> None:
        rng = self._rng
        if change == 3 or not entry:
            entry.insert(rng.randrange(len(entry) + 1), (rng.choice(NAMES), Raw(rng.choice(VALUES + NUMBERS))))
            return
        index = rng.randrange(len(entry))
        key, value = entry[index]
        if change == 4:
            del entry[index]
        elif change == 5:
            entry.append((key, value))
        elif change == 6:
            entry[index] = (key, Raw(rng.choice(VALUES + NUMBERS)))
        elif isinstance(value, list) and value and not isinstance(value, Pairs):
            at = rng.randrange(len(value))
            if isinstance(value[at], int) and self._one_in(2):
                value[at] += rng.choice((-8, -1, 1, 8))
            else:
                value[at] = Raw(rng.choice(NUMBERS))
        elif isinstance(value, str):
            words = [*BITS, value.lower(), value + " ", value[:-1]]
            entry[index] = (key, Pairs([(value, None)]) if self._one_in(5) else rng.choice(words))

    def _with_whitespace_around(self, text: bytes) -> bytes:
        space = bytes(self._rng.choices(b" \t\r\n", k=self._rng.randrange(9)))
        return self._rng.choice((space + text, text + space))

    def _change_bytes(self, text: bytes) -> bytes:
        rng = self._rng
        at = rng.randrange(len(text) + 1)
        size = rng.choice((0, 1, 1, 2, rng.randrange(30)))
        piece = rng.choice(
            (b"", rng.choice(PIECES), rng.choice(NUMBERS).encode(), rng.randbytes(1), text[at : at + size])
        )
        return text[:at] + piece + text[at + rng.choice((0, size)) :]

    def _file(self, text: bytes, size: int) -> bytes:
        rng = self._rng
        length = len(text)
        if self._one_in(25):
            length = rng.choice(
                (0, 1, 7, max(0, length - 1), length + 1, length + size, 100_000_000, 100_000_001, 2**63, 2**64 - 1)
            )
        if self._one_in(25):
            size = max(0, size + rng.choice((-8, -1, 1, 8)))
        file = length.to_bytes(8, "little") + text + rng.randbytes(size)
        return file[: rng.randrange(len(file))] if self._one_in(60) else file
