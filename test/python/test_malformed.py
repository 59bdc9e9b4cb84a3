"""Files that break a rule of the format, files that only look so, and paths that are no files."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch as reference
import torch
from helpers import BACKENDS, assert_same, entry, make_file

import torch_safetensors
from torch_safetensors import SafetensorError, load, load_file, load_tensor, safe_open

FIELDS = '"dtype":"F32","shape":[2],"data_offsets":[0,8]'
DATA = bytes(range(8))
DTYPE_NAMES = (
    "BOOL, F4, F6_E2M3, F6_E3M2, U8, I8, F8_E5M2, F8_E4M3, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, I16, U16, F16, "
    "BF16, I32, U32, F32, C64, F64, I64, U64"
)


def one(value: str) -> bytes:
    """A file with one tensor, and eight bytes of data."""
    return make_file('{"w":' + value + "}", DATA)


def field(name: str, value: str) -> bytes:
    """The same, with one field replaced."""
    fields = {"dtype": '"F32"', "shape": "[2]", "data_offsets": "[0,8]"} | {name: value}
    return one("{" + ",".join(f'"{key}":{text}' for key, text in fields.items()) + "}")


def offsets(*ranges: tuple[int, int], size: int) -> bytes:
    """U8 tensors a, b, c, ... at these places."""
    entries = {
        name: entry("U8", [abs(end - begin)], begin, end) for name, (begin, end) in zip("abc", ranges, strict=False)
    }
    return make_file(entries, bytes(size))


# What stands between `<file>: ` and the end of the message.
LAYOUT = {
    "no bytes": (b"", "header too small: 0 bytes, but the length field alone has 8"),
    "seven bytes": (bytes(7), "header too small: 7 bytes, but the length field alone has 8"),
    "header over the limit": (
        (100_000_001).to_bytes(8, "little") + b"{}",
        "header too large: 100000001 bytes, the limit is 100000000",
    ),
    "header of 2^64-1": (
        b"\xff" * 8,
        "header too large: 18446744073709551615 bytes, the limit is 100000000",
    ),
    "header past the end": (
        (3).to_bytes(8, "little") + b"{}",
        "invalid header length: the header of 3 bytes ends at byte 11 of a file of 10 bytes",
    ),
    "header of 0 bytes": (bytes(8), "invalid JSON in header at byte 0: the header is empty"),
    "trailing byte": (
        one("{" + FIELDS + "}") + b"x",
        "incomplete metadata, file not fully covered: the tensors end at byte 8 but the file has 9 bytes of data",
    ),
    "missing byte": (
        one("{" + FIELDS + "}")[:-1],
        "incomplete metadata, file not fully covered: the tensors end at byte 8 but the file has 7 bytes of data",
    ),
    "data without tensors": (
        make_file("{}", b"x"),
        "incomplete metadata, file not fully covered: the tensors end at byte 0 but the file has 1 bytes of data",
    ),
}

UTF8 = {
    "0xFF": make_file(b'{"\xff":1}'),
    "overlong": make_file(b'{"\xc0\xaf":1}'),
    "surrogate": make_file(b'{"\xed\xa0\x80":1}'),
    "cut": make_file(b'{"\xe6\xbc'),
    "above U+10FFFF": make_file(b'{"\xf4\x90\x80\x80":1}'),
    "after the object": make_file(b"{}\xff"),
}

JSON = {
    "array": ("[]", 0, "expected an object, found an array"),
    "null": ("null", 4, "expected an object, found null"),
    "string": ('"a"', 3, "expected an object, found a string"),
    "number": ("5", 0, "expected an object, found a number"),
    "spaces": ("    ", 4, "the header is empty"),
    "byte order mark": ("\ufeff{}", 0, "invalid value"),
    "NUL in front": ("\0{}", 0, r"unexpected control character '\x00'"),
    "NUL padding": ("{}\0\0", 2, "trailing characters after the object"),
    "junk after the object": ("{} x", 3, "trailing characters after the object"),
    "two objects": ("{}{}", 2, "trailing characters after the object"),
    "form feed": ("\f{}", 0, r"unexpected control character '\x0c'"),
    "trailing comma": ('{"__metadata__":{},}', 19, "missing a name for object member"),
    "trailing comma in an entry": ('{"w":{"dtype":"F32",}}', 20, "missing a name for object member"),
    "missing colon": ('{"w" {}}', 5, "missing a colon after a name of object member"),
    "unfinished": ('{"w":{', 6, "missing a name for object member"),
    "comment": ("{/**/}", 1, "missing a name for object member"),
    "comment in front": ("/**/{}", 0, "invalid value"),
    "single quotes": ("{'w':{}}", 1, "missing a name for object member"),
    "raw newline in a string": ('{"\n":{}}', 2, r"unexpected control character '\x0a'"),
    "raw NUL in a string": ('{"\0":{}}', 2, r"unexpected control character '\x00'"),
    "bad escape": ('{"\\x":{}}', 2, "invalid escape character in string"),
    "bad hex escape": ('{"\\u12g4":{}}', 2, "incorrect hex digit after \\u escape in string"),
    "lone high surrogate": ('{"\\ud800":{}}', 2, "lone surrogate in a string"),
    "two high surrogates": ('{"\\ud800\\ud800":{}}', 2, "lone surrogate in a string"),
    "lone low surrogate": ('{"\\udc00":{}}', 9, "lone surrogate in a string"),
    "lone low surrogate in a value": ('{"w":{"dtype":"\\udc00"}}', 22, "lone surrogate in a string"),
    "NaN": ('{"w":{"x":NaN}}', 10, "invalid value"),
    "Infinity": ('{"w":{"x":Infinity}}', 10, "invalid value"),
    "1e999": ('{"w":{"x":1e999}}', 10, "number out of range"),
    "128 levels": (
        '{"w":{"x":' + "[" * 126 + "]" * 126 + "}}",
        135,
        "recursion limit exceeded: more than 127 levels",
    ),
    "100,000 levels": ("[" * 100_000, 0, "expected an object, found an array"),
    "100,000 levels where they are ignored": (
        '{"w":{"x":' + "[" * 100_000,
        135,
        "recursion limit exceeded: more than 127 levels",
    ),
    "metadata twice": (
        '{"__metadata__":null,"__metadata__":{}}',
        35,
        "duplicate field `__metadata__`",
    ),
    "metadata is an array": (
        '{"__metadata__":[]}',
        16,
        "__metadata__: expected an object of strings, found an array",
    ),
    "metadata is a string": (
        '{"__metadata__":"x"}',
        19,
        "__metadata__: expected an object of strings, found a string",
    ),
    "metadata holds a number": (
        '{"__metadata__":{"a":1}}',
        21,
        "__metadata__: key 'a': expected a string, found a number",
    ),
    "metadata holds null": (
        '{"__metadata__":{"a":null}}',
        25,
        "__metadata__: key 'a': expected a string, found null",
    ),
    "metadata holds an object": (
        '{"__metadata__":{"a":{}}}',
        21,
        "__metadata__: key 'a': expected a string, found an object",
    ),
    "metadata holds an array": (
        '{"__metadata__":{"a":["b"]}}',
        21,
        "__metadata__: key 'a': expected a string, found an array",
    ),
    "metadata is a tensor": (
        '{"__metadata__":{' + FIELDS + "}}",
        39,
        "__metadata__: key 'shape': expected a string, found an array",
    ),
}

ENTRIES = {
    "null": (one("null"), 9, "expected an object, found null"),
    "string": (one('"x"'), 8, "expected an object, found a string"),
    "number": (one("1"), 5, "expected an object, found a number"),
    "boolean": (one("true"), 9, "expected an object, found a boolean"),
    "empty": (one("{}"), 6, "missing field `dtype`"),
    "no dtype": (one('{"shape":[2],"data_offsets":[0,8]}'), 38, "missing field `dtype`"),
    "no shape": (one('{"dtype":"F32","data_offsets":[0,8]}'), 40, "missing field `shape`"),
    "no data_offsets": (one('{"dtype":"F32","shape":[2]}'), 31, "missing field `data_offsets`"),
    "two dtypes": (one("{" + FIELDS + ',"dtype":"F32"}'), 60, "duplicate field `dtype`"),
    "two shapes": (one("{" + FIELDS + ',"shape":[2]}'), 60, "duplicate field `shape`"),
    "two data_offsets": (
        one("{" + FIELDS + ',"data_offsets":[0,8]}'),
        67,
        "duplicate field `data_offsets`",
    ),
    "a field twice by escapes": (
        one("{" + FIELDS + ',"\\u0073hape":[2]}'),
        65,
        "duplicate field `shape`",
    ),
    "dtype null": (field("dtype", "null"), 18, "dtype: expected a string, found null"),
    "dtype 3": (field("dtype", "3"), 14, "dtype: expected a string, found a number"),
    "dtype [F32]": (field("dtype", '["F32"]'), 14, "dtype: expected a string, found an array"),
    "shape null": (
        field("shape", "null"),
        32,
        "shape: expected an array of unsigned integers, found null",
    ),
    "shape 2": (field("shape", "2"), 28, "shape: expected an array of unsigned integers, found a number"),
    'shape "2"': (
        field("shape", '"2"'),
        31,
        "shape: expected an array of unsigned integers, found a string",
    ),
    "shape {}": (
        field("shape", "{}"),
        28,
        "shape: expected an array of unsigned integers, found an object",
    ),
    "data_offsets null": (
        field("data_offsets", "null"),
        51,
        "data_offsets: expected an array of two unsigned integers, found null",
    ),
    "data_offsets {}": (
        field("data_offsets", "{}"),
        47,
        "data_offsets: expected an array of two unsigned integers, found an object",
    ),
    "no offsets": (field("data_offsets", "[]"), 48, "data_offsets: expected 2 numbers, found 0"),
    "one offset": (field("data_offsets", "[8]"), 49, "data_offsets: expected 2 numbers, found 1"),
    "three offsets": (field("data_offsets", "[0,8,8]"), 53, "data_offsets: expected 2 numbers, found 3"),
    **{
        f"dtype {name!r}": (
            field("dtype", f'"{name}"'),
            16 + len(name),
            f"unknown dtype '{name}', expected one of {DTYPE_NAMES}",
        )
        for name in ("f32", "F128", "F32 ", "")
    },
}

# How a 2 or an 8 must not be written, how far from its first byte that is noticed, and what is said.
NUMBERS = {
    "{}.0": (0, "a number that is not an integer"),
    "{}e0": (0, "a number that is not an integer"),
    "18446744073709551616": (0, "a number over 18446744073709551615"),
    "-0": (0, "a negative number"),
    "-{}": (0, "a negative number"),
    '"{}"': (3, "a string"),
    "true": (4, "a boolean"),
    "null": (4, "null"),
    "[{}]": (0, "an array"),
    "{{}}": (0, "an object"),
}

OFFSETS = {
    "hole": (
        offsets((0, 4), (6, 10), size=10),
        "tensor 'b': invalid offset: data_offsets [6, 10) leave a hole after byte 4",
    ),
    "overlap": (
        offsets((0, 4), (2, 6), size=6),
        "tensor 'b': invalid offset: data_offsets [2, 6) overlap the tensor that ends at byte 4",
    ),
    "inside of another": (
        offsets((0, 8), (2, 6), size=8),
        "tensor 'b': invalid offset: data_offsets [2, 6) overlap the tensor that ends at byte 8",
    ),
    "the same range": (
        offsets((0, 4), (0, 4), size=4),
        "tensor 'b': invalid offset: data_offsets [0, 4) overlap the tensor that ends at byte 4",
    ),
    "empty, inside of another": (
        offsets((0, 8), (2, 2), size=8),
        "tensor 'b': invalid offset: data_offsets [2, 2) overlap the tensor that ends at byte 8",
    ),
    "late start": (
        offsets((4, 8), size=8),
        "tensor 'a': invalid offset: data_offsets [4, 8) leave a hole after byte 0",
    ),
    "reversed": (
        offsets((4, 0), size=4),
        "tensor 'a': invalid offset: data_offsets [4, 0) end before they begin",
    ),
    "at the end of 64 bits": (
        offsets((2**64 - 5, 2**64 - 1), size=4),
        "tensor 'a': invalid offset: data_offsets [18446744073709551611, 18446744073709551615) leave a hole "
        "after byte 0",
    ),
    "too few bytes": (
        field("shape", "[2,2]"),
        "tensor 'w': data_offsets [0, 8) hold 8 bytes but F32 [2, 2] needs 16",
    ),
    "too many bytes": (field("shape", "[]"), "tensor 'w': data_offsets [0, 8) hold 8 bytes but F32 [] needs 4"),
    "bytes for none": (
        field("shape", "[0, 3]"),
        "tensor 'w': data_offsets [0, 8) hold 8 bytes but F32 [0, 3] needs 0",
    ),
    "overflow of the product": (
        make_file({"w": entry("U8", [2**62, 4], 0, 0)}),
        "tensor 'w': overflow: the size of U8 [4611686018427387904, 4] does not fit in 64 bits",
    ),
    "overflow before a zero": (
        make_file({"w": entry("U8", [2**62, 4, 0], 0, 0)}),
        "tensor 'w': overflow: the size of U8 [4611686018427387904, 4, 0] does not fit in 64 bits",
    ),
    "overflow in bits": (
        make_file({"w": entry("F32", [2**62], 0, 0)}),
        "tensor 'w': overflow: the size of F32 [4611686018427387904] does not fit in 64 bits",
    ),
    "half a byte": (
        make_file({"w": entry("F4", [3], 0, 2)}, bytes(2)),
        "tensor 'w': F4 [3] takes 12 bits, which do not end at a byte boundary",
    ),
    "one F4": (
        make_file({"w": entry("F4", [], 0, 1)}, bytes(1)),
        "tensor 'w': F4 [] takes 4 bits, which do not end at a byte boundary",
    ),
    "six bits": (
        make_file({"w": entry("F6_E3M2", [3], 0, 3)}, bytes(3)),
        "tensor 'w': F6_E3M2 [3] takes 18 bits, which do not end at a byte boundary",
    ),
}

# DESIGN section 5: the reference lets these through, or has torch fail later.
DEVIATIONS = {
    "a name twice for the same bytes": (
        make_file(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "tensor 'a': duplicate name: two tensors of the header have it",
    ),
    "a name twice": (
        make_file(
            '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}'
        ),
        "tensor 'a': duplicate name: two tensors of the header have it",
    ),
    "a name twice by escapes": (
        make_file(
            '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        ),
        "tensor 'a': duplicate name: two tensors of the header have it",
    ),
    "an entry as an array": (
        one('["F32",[2],[0,8]]'),
        "invalid JSON in header at byte 5: tensor 'w': expected an object, found an array",
    ),
    "a dtype as a map": (
        field("dtype", '{"F32":null}'),
        "invalid JSON in header at byte 14: tensor 'w': dtype: expected a string, found an object",
    ),
    "a dimension over 2^63-1": (
        make_file({"w": entry("U8", [0, 2**63], 0, 0)}),
        "invalid JSON in header at byte 30: tensor 'w': shape: 9223372036854775808 is over the largest "
        "dimension, 9223372036854775807",
    ),
}


def params(cases: dict[str, tuple[Any, ...]], prefix: str) -> list[Any]:
    return [pytest.param(*case, id=f"{prefix}: {name}") for name, case in cases.items()]


def json_error(offset: int, reason: str) -> str:
    return f"invalid JSON in header at byte {offset}: {reason}"


RULES = [
    *params(LAYOUT, "layout"),
    *params({name: (raw, "invalid UTF-8 in header at byte 2") for name, raw in UTF8.items()}, "UTF-8"),
    *params({name: (make_file(text), json_error(*why)) for name, (text, *why) in JSON.items()}, "JSON"),
    *params(
        {name: (raw, json_error(offset, f"tensor 'w': {reason}")) for name, (raw, offset, reason) in ENTRIES.items()},
        "entry",
    ),
    *params(
        {
            f"{name} {form}": (
                field(name, before + form.format(number) + "]"),
                json_error(at + late, f"tensor 'w': {name}: expected an unsigned integer, found {found}"),
            )
            for form, (late, found) in NUMBERS.items()
            for name, before, number, at in (("shape", "[", 2, 29), ("data_offsets", "[0,", 8, 50))
        },
        "number",
    ),
    *params(
        {
            "02": (field("shape", "[02]"), json_error(30, "missing a comma or ']' after an array element")),
            "+2": (field("shape", "[+2]"), json_error(29, "invalid value")),
        },
        "number",
    ),
    *params(OFFSETS, "offsets"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bad.safetensors"


def check_refused(raw: bytes, message: str, path: Path) -> None:
    path.write_bytes(raw)
    with pytest.raises(SafetensorError) as error:
        load(raw)
    assert str(error.value) == f"bytes: {message}"
    for backend in BACKENDS:
        for read in (load_file, safe_open, lambda path, backend: load_tensor(path, "w", backend=backend)):
            with pytest.raises(SafetensorError) as error:
                read(path, backend=backend)
            assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(("raw", "message"), RULES)
def test_rule(raw: bytes, message: str, path: Path) -> None:
    check_refused(raw, message, path)
    with pytest.raises(safetensors.SafetensorError):
        reference.load(raw)


@pytest.mark.parametrize(("raw", "message"), params(DEVIATIONS, "stricter"))
def test_stricter_than_the_reference(raw: bytes, message: str, path: Path) -> None:
    check_refused(raw, message, path)
    safetensors.deserialize(raw)


def test_error_is_a_runtime_error_and_survives_pickling() -> None:
    with pytest.raises(RuntimeError) as error:
        load(b"")
    copy = pickle.loads(pickle.dumps(error.value))
    assert type(copy) is SafetensorError
    assert str(copy) == str(error.value)


def test_messages_escape_and_shorten_names(path: Path) -> None:
    name = "\n'" + "x" * 300
    path.write_bytes(make_file({name: entry("U8", [2], 0, 1)}, b"x"))
    shortened = f"'\\x0a'{'x' * 98}[...]{'x' * 100}' (302 bytes)"
    with pytest.raises(SafetensorError) as error:
        load_file(path)
    assert str(error.value) == f"{path}: tensor {shortened}: data_offsets [0, 1) hold 1 bytes but U8 [2] needs 2"


def test_header_of_the_largest_size(path: Path) -> None:
    header = b"{" + b" " * (100_000_000 - 2) + b"}"
    path.write_bytes(make_file(header))
    assert load_file(path) == {}


W = torch.frombuffer(bytearray(DATA), dtype=torch.float32)

ACCEPTED = {
    "whitespace around the object": (make_file(" \t\r\n{" + '"w":{' + FIELDS + "}} \n\t\r", DATA), {"w": W}),
    "whitespace between tokens": (
        make_file('{ "w"\t:\r{\n"dtype" : "F32" , "shape":[ 2 ],"data_offsets":[ 0 , 8 ] } }', DATA),
        {"w": W},
    ),
    "fields in another order": (one('{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}'), {"w": W}),
    "unknown fields": (
        one(
            '{"x":[1,{"dtype":[-1.5e3,null,true]}],'
            + FIELDS
            + ',"y":"z","y":-0,"__metadata__":{},"z":0.0000000001e-2147483639}'
        ),
        {"w": W},
    ),
    "127 levels": (one("{" + FIELDS + ',"x":' + "[" * 125 + "]" * 125 + "}"), {"w": W}),
    "metadata at the end": (make_file('{"w":{' + FIELDS + '},"__metadata__":{"a":"b"}}', DATA), {"w": W}),
    "metadata null": (make_file('{"__metadata__":null,"w":{' + FIELDS + "}}", DATA), {"w": W}),
    "a metadata key twice": (
        make_file('{"__metadata__":{"a":"1","a":"2"},"w":{' + FIELDS + "}}", DATA),
        {"w": W},
    ),
    "any name": (
        make_file({name: entry("I8", [0], 0, 0) for name in ("", "\0", "\x7f", "é", "🦙", "a" * 1000)}),
        {name: torch.zeros(0, dtype=torch.int8) for name in ("", "\0", "\x7f", "é", "🦙", "a" * 1000)},
    ),
    "escapes": (make_file('{"\\ud83e\\udd99\\/\\u0077":{' + FIELDS + "}}", DATA), {"🦙/w": W}),
    "unaligned": (
        make_file({"a": entry("U8", [1], 0, 1), "w": entry("F32", [2], 1, 9)}, b"\1" + DATA),
        {"a": torch.ones(1, dtype=torch.uint8), "w": W},
    ),
    "header of any length": (make_file('{"w":{' + FIELDS + "}}   ", DATA), {"w": W}),
    "booleans other than 0 and 1": (
        make_file({"w": entry("BOOL", [2], 0, 2)}, b"\2\xff"),
        {"w": torch.tensor([2, 255], dtype=torch.uint8).view(torch.bool)},
    ),
    "70 dimensions": (
        make_file({"w": entry("I8", [1] * 70, 0, 1)}, b"\1"),
        {"w": torch.ones([1] * 70, dtype=torch.int8)},
    ),
    "a zero and a large dimension": (
        make_file({"w": entry("U8", [0, 2**62], 0, 0)}),
        {"w": torch.empty((0, 2**62), dtype=torch.uint8)},
    ),
    "header in another order than the data": (
        make_file({"a": entry("U8", [1], 1, 2), "b": entry("U8", [1], 0, 1)}, b"\1\2"),
        {"b": torch.tensor([1], dtype=torch.uint8), "a": torch.tensor([2], dtype=torch.uint8)},
    ),
    "no tensors": (make_file("{}"), {}),
    "spaces for padding": (make_file("{}      "), {}),
}


@pytest.mark.parametrize(("raw", "expected"), params(ACCEPTED, "accepted"))
def test_accepted(raw: bytes, expected: dict[str, torch.Tensor], path: Path) -> None:
    path.write_bytes(raw)
    assert_same(reference.load_file(path), expected)
    for loaded in (load(raw), *(load_file(path, backend=backend) for backend in BACKENDS)):
        assert_same(loaded, expected)


def test_last_of_two_metadata_keys_counts(path: Path) -> None:
    path.write_bytes(ACCEPTED["a metadata key twice"][0])
    assert safe_open(path).metadata() == {"a": "2"} == safetensors.safe_open(path, "pt").metadata()


NOT_HELD = {
    "F6_E2M3": ("F6_E2M3", [4], 3, "F6_E2M3 [4]: it has no such dtype; load the other tensors by name"),
    "F6_E3M2": ("F6_E3M2", [4], 3, "F6_E3M2 [4]: it has no such dtype; load the other tensors by name"),
    "odd F4": ("F4", [2, 1], 1, "F4 [2, 1]: the last dimension must be a multiple of 2, which share a byte"),
    "strides beyond 64 bits": (
        "F16",
        [0, 4, 2**62],
        0,
        "F16 [0, 4, 4611686018427387904]: its strides do not fit in 64 bits",
    ),
}


@pytest.mark.parametrize(("dtype", "shape", "size", "message"), params(NOT_HELD, "not held"))
def test_what_torch_cannot_hold(dtype: str, shape: list[int], size: int, message: str, path: Path) -> None:
    header = {"w": entry(dtype, shape, 0, size), "x": entry("U8", [1], size, size + 1)}
    path.write_bytes(make_file(header, bytes(size) + b"\7"))
    message = f"tensor 'w': torch cannot hold {message}"
    with pytest.raises(SafetensorError) as error:
        load(path.read_bytes())
    assert str(error.value) == f"bytes: {message}"
    for backend in BACKENDS:
        file = safe_open(path, backend=backend)
        assert file.get_tensor_meta("w") == (dtype, shape, (0, size))
        assert file.get_tensor("x").tolist() == [7]
        assert load_tensor(path, "x", backend=backend).tolist() == [7]
        with pytest.raises(SafetensorError) as error:
            file.get_tensor("w")
        assert str(error.value) == f"{path}: {message}"
        with pytest.raises(SafetensorError) as error:
            load_file(path, backend=backend)
        assert str(error.value) == f"{path}: {message}"


READERS: dict[str, Callable[..., Any]] = {
    "load_file": load_file,
    "load_tensor": lambda path, **options: load_tensor(path, "w", **options),
    "safe_open": safe_open,
}


def each_reader(test: Any) -> Any:
    test = pytest.mark.parametrize("read", READERS.values(), ids=READERS)(test)
    return pytest.mark.parametrize("backend", BACKENDS)(test)


def os_error(read: Callable[..., Any], path: Any, **options: Any) -> OSError:
    with pytest.raises(OSError) as error:  # noqa: PT011 (what it is, the caller compares)
        read(path, **options)
    assert error.value.filename == os.fspath(path)
    return error.value


@each_reader
def test_missing(tmp_path: Path, read: Any, backend: str) -> None:
    error = os_error(read, tmp_path / "none", backend=backend)
    assert type(error) is FileNotFoundError
    assert str(error) == f"[Errno {errno.ENOENT}] No such file or directory: '{tmp_path / 'none'}'"


@each_reader
def test_directory(tmp_path: Path, read: Any, backend: str) -> None:
    error = os_error(read, tmp_path, backend=backend)
    assert type(error) is IsADirectoryError
    assert error.errno == errno.EISDIR


@each_reader
def test_device_file(read: Any, backend: str) -> None:
    error = os_error(read, "/dev/null", backend=backend)
    assert (error.errno, error.strerror) == (errno.EINVAL, "not a regular file")


def read_all(path: Path) -> list[OSError]:
    return [os_error(read, path, backend=backend) for read in READERS.values() for backend in BACKENDS]


def test_fifo_does_not_hang(tmp_path: Path, worker: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    for error in worker(read_all, tmp_path / "fifo"):
        assert (error.errno, error.strerror) == (errno.EINVAL, "not a regular file")


def read_as_nobody(path: Path) -> list[OSError]:
    if os.geteuid() != 0:
        return read_all(path)
    os.seteuid(65534)
    try:
        return read_all(path)
    finally:
        os.seteuid(0)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Pytest's own folders are closed to other users."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_unreadable(open_directory: Path, worker: Any) -> None:
    path = open_directory / "x.safetensors"
    path.write_bytes(make_file("{}"))
    path.chmod(0)
    for error in worker(read_as_nobody, path):
        assert type(error) is PermissionError
        assert error.errno == errno.EACCES


def test_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # the names of sockets are short
        server.bind("socket")
        assert os_error(load_file, "socket").strerror == "not a regular file"


def test_truncated_after_opening(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    torch_safetensors.save_file({"w": torch.zeros(4096)}, path)
    file = safe_open(path, backend="pread")
    os.truncate(path, 1000)
    error = os_error(lambda _: file.get_tensor("w"), path)
    assert error.errno == errno.EIO
    assert "ended at byte 1000" in str(error.strerror)


@pytest.mark.parametrize("name", [b"caf\xe9.safetensors", b"\xff\xfe", "漢 🦙.safetensors".encode()])
def test_any_name_that_the_system_allows(tmp_path: Path, name: bytes) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    torch_safetensors.save_file({"w": W}, path)
    assert os.listdir(os.fsencode(tmp_path)) == [name]  # noqa: PTH208 (bytes)
    for read in (load_file, lambda path: safe_open(path).get_tensors(), lambda path: {"w": load_tensor(path, "w")}):
        for form in (path, Path(path)):
            assert_same(read(form), {"w": W})
    Path(path).write_bytes(b"")
    with pytest.raises(SafetensorError, match="header too small"):
        load_file(path)
    assert os_error(load_file, path + "2").filename == path + "2"
