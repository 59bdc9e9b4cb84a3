"""Arguments that are wrong: which exception, what it says, and that nothing was written by then."""

from __future__ import annotations

import collections
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch as reference
import torch
from helpers import BACKENDS, make_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_safetensors
from torch_safetensors import SafetensorError, load, load_file, load_tensor, safe_open, save, save_file


class Wrapper(torch.Tensor):
    """A tensor without memory, made of another."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapper:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, function: Any, kinds: Any, arguments: Any = (), options: Any = None) -> Any:
        raise NotImplementedError(function)


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.empty(3)


def overlapping() -> dict[str, Tensor]:
    whole = torch.zeros(8)
    return {"other": torch.ones(1), "base": whole, "w": whole[2:4]}


def interleaved() -> dict[str, Tensor]:
    table = torch.zeros(4, 2)
    return {"base": table[:, 0], "w": table[:, 1]}


def same_memory_in_two_storages() -> dict[str, Tensor]:
    data = bytearray(16)
    return {
        "base": torch.frombuffer(data, dtype=torch.float32),
        "w": torch.frombuffer(data, dtype=torch.float32, offset=4),
    }


def w(make: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {"ok": torch.ones(1), "w": make()}


SHARE = "tensor 'w': Some tensors share memory: it overlaps tensor 'base'; use save_model"
NO_MEMORY = "tensor 'w': has no memory of its own (a FakeTensor, a nested tensor, or a subclass that wraps others)"
SPARSE = ", and the format holds dense tensors; call .to_dense() first"
NOT_CONTIGUOUS = "; call .contiguous() first, or if it is a view of another tensor, save that one"

# What is saved, the exception, what its text contains, and the reference's exception where it is another.
TENSORS = {
    "list": (lambda: [torch.ones(1)], ValueError, "Expected a dict of [str, torch.Tensor] but received <class 'list'>"),
    "None": (lambda: None, ValueError, "Expected a dict of [str, torch.Tensor] but received <class 'NoneType'>"),
    "mapping proxy": (
        lambda: types.MappingProxyType({"w": torch.ones(1)}),
        ValueError,
        "Expected a dict of [str, torch.Tensor] but received <class 'mappingproxy'>",
    ),
    "dict as a value": (w(dict), ValueError, "Key 'w' is invalid, expected torch.Tensor but received <class 'dict'>"),
    "None as a value": (
        w(lambda: None),
        ValueError,
        "Key 'w' is invalid, expected torch.Tensor but received <class 'NoneType'>",
    ),
    "int as a name": (lambda: {1: torch.ones(1)}, TypeError, "Key 1 is invalid, expected str"),
    "bytes as a name": (lambda: {b"w": torch.ones(1)}, TypeError, "Key b'w' is invalid, expected str"),
    "lone surrogate in a name": (
        lambda: {"\ud800": torch.ones(1)},
        ValueError,
        r"tensor name '\ud800': not valid Unicode: surrogates not allowed",
    ),
    "__metadata__ as a name": (
        lambda: {"__metadata__": torch.ones(1)},
        ValueError,
        "tensor '__metadata__': the format keeps this name for metadata; rename it",
        None,
    ),
    "COO": (w(lambda: torch.eye(3).to_sparse()), ValueError, "tensor 'w': is Sparse" + SPARSE),
    "MKLDNN": (w(lambda: torch.ones(3).to_mkldnn()), ValueError, "tensor 'w': is Mkldnn" + SPARSE),
    "overlap": (overlapping, RuntimeError, SHARE),
    "interleaved": (interleaved, RuntimeError, SHARE),
    "overlap of two storages": (same_memory_in_two_storages, RuntimeError, SHARE, None),
    "transposed": (
        w(lambda: torch.zeros(2, 3).t()),
        ValueError,
        "tensor 'w': is not contiguous (shape [3, 2], strides [1, 3])" + NOT_CONTIGUOUS,
    ),
    "channels last": (
        w(lambda: torch.zeros(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)),
        ValueError,
        "tensor 'w': is not contiguous (shape [1, 2, 3, 4], strides [24, 1, 8, 2])" + NOT_CONTIGUOUS,
    ),
    "expanded": (
        w(lambda: torch.zeros(1).expand(3)),
        ValueError,
        "tensor 'w': is not contiguous (shape [3], strides [0])" + NOT_CONTIGUOUS,
    ),
    "meta": (
        w(lambda: torch.empty(2, device="meta")),
        NotImplementedError,
        "tensor 'w': is on the meta device and has no data; load or initialise it first",
    ),
    "empty on meta": (
        w(lambda: torch.empty(0, device="meta")),
        NotImplementedError,
        "tensor 'w': is on the meta device and has no data",
    ),
    "complex128": (
        w(lambda: torch.ones(1, dtype=torch.complex128)),
        ValueError,
        "tensor 'w': the format has no dtype for ComplexDouble; save torch.view_as_real(tensor) instead",
        KeyError,
    ),
    "bits8": (
        w(lambda: torch.empty(1, dtype=torch.bits8)),
        ValueError,
        "tensor 'w': the format has no dtype for Bits8; convert it first",
        KeyError,
    ),
    "uint4": (
        w(lambda: torch.empty(1, dtype=torch.uint4)),
        ValueError,
        "tensor 'w': the format has no dtype for UInt4; convert it first",
        KeyError,
    ),
    "one F4": (
        w(lambda: torch.empty((), dtype=torch.uint8).view(torch.float4_e2m1fn_x2)),
        ValueError,
        "tensor 'w': F4 [] takes 4 bits, which do not end at a byte boundary",
        safetensors.SafetensorError,
    ),
    "fake": (w(fake), ValueError, NO_MEMORY, safetensors.SafetensorError),
    "wrapper": (w(lambda: Wrapper(torch.ones(2))), ValueError, NO_MEMORY, RuntimeError),
}

# Each of these warns when it is made.
WARNING_TENSORS = {
    "CSR": (w(lambda: torch.eye(3).to_sparse_csr()), ValueError, "tensor 'w': is SparseCsr" + SPARSE),
    "jagged": (
        w(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)),
        ValueError,
        "tensor 'w': is Jagged" + SPARSE,
    ),
    "nested": (
        w(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
        ValueError,
        NO_MEMORY,
        RuntimeError,
    ),
    "complex32": (
        w(lambda: torch.ones(1, dtype=torch.complex64).to(torch.complex32)),
        ValueError,
        "tensor 'w': the format has no dtype for ComplexHalf; save torch.view_as_real(tensor) instead",
        KeyError,
    ),
    "quantized": (
        w(lambda: torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)),
        ValueError,
        "tensor 'w': is quantized (QInt8), which the format cannot hold; save .int_repr() with its scale and zero "
        "point, or .dequantize() first",
        KeyError,
    ),
}

METADATA = {
    "list": ([], TypeError, "metadata: expected dict[str, str], not list"),
    "string": ("x", TypeError, "metadata: expected dict[str, str], not str"),
    "int as a key": ({1: "x"}, TypeError, "metadata: key 1 is int, not str"),
    "int as a value": ({"a": "b", "step": 1}, TypeError, "metadata: the value of 'step' is int, not str"),
    "None as a value": ({"step": None}, TypeError, "metadata: the value of 'step' is NoneType, not str"),
    "bytes as a value": ({"step": b"x"}, TypeError, "metadata: the value of 'step' is bytes, not str"),
    "dict as a value": ({"step": {}}, TypeError, "metadata: the value of 'step' is dict, not str"),
    "lone surrogate in a key": ({"\ud800": "x"}, ValueError, r"metadata key '\ud800': not valid Unicode"),
    "lone surrogate in a value": ({"k": "\ud800"}, ValueError, "metadata value of 'k' '\\ud800': not valid Unicode"),
}


def check_refused(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as error:
        call()
    assert type(error.value) is kind
    assert text in str(error.value)


def check_not_saved(arguments: tuple[Any, ...], kind: type[Exception], text: str, folder: Path) -> None:
    """Neither a file nor a change of the one that is there; nor anything beside it."""
    check_refused(lambda: save(*arguments), kind, text)
    tensors, *rest = arguments
    check_refused(lambda: save_file(tensors, folder / "new", *rest), kind, text)
    assert list(folder.iterdir()) == []
    (folder / "old").write_bytes(b"as before")
    check_refused(lambda: save_file(tensors, folder / "old", *rest), kind, text)
    assert list(folder.iterdir()) == [folder / "old"]
    assert (folder / "old").read_bytes() == b"as before"


def check_tensors(folder: Path, make: Callable[[], Any], kind: type[Exception], text: str, *theirs: Any) -> None:
    check_not_saved((make(),), kind, text, folder)
    expected = theirs[0] if theirs else kind
    if expected is not None:
        with warnings.catch_warnings(), pytest.raises(expected):  # noqa: PT012 (the reference itself warns)
            warnings.simplefilter("ignore")
            reference.save(make())


@pytest.mark.parametrize("case", TENSORS.values(), ids=TENSORS)
def test_tensors(tmp_path: Path, case: Any) -> None:
    check_tensors(tmp_path, *case)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", WARNING_TENSORS.values(), ids=WARNING_TENSORS)
def test_tensors_that_warn(tmp_path: Path, case: Any) -> None:
    check_tensors(tmp_path, *case)


@pytest.mark.parametrize(("metadata", "kind", "text"), METADATA.values(), ids=METADATA)
def test_metadata(tmp_path: Path, metadata: Any, kind: type[Exception], text: str) -> None:
    check_not_saved(({"w": torch.ones(1)}, metadata), kind, text, tmp_path)


def test_header_over_the_limit(tmp_path: Path) -> None:
    text = "header too large: 100000056 bytes, the limit is 100000000"
    check_not_saved(({"w" * 99_999_996: torch.ones(0)},), ValueError, text, tmp_path)


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict, type("Own", (dict,), {})])
def test_any_dict(kind: type) -> None:
    assert save(kind(w=torch.ones(1))) == reference.save({"w": torch.ones(1)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file({"w": torch.arange(4.0)}, tmp_path / "x")
    return tmp_path / "x"


READERS = {
    "load_file": load_file,
    "load_tensor": lambda path, *arguments, **options: load_tensor(path, "w", *arguments, **options),
    "safe_open": lambda path, device="cpu", **options: safe_open(path, device=device, **options),
}
each_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@each_reader
@pytest.mark.parametrize("backend", ["x", "", "MMAP", "mmap "])
def test_unknown_backend(path: Path, read: Any, backend: str) -> None:
    text = f"backend '{backend}' is not one of 'auto', 'mmap', 'pread'"
    check_refused(lambda: read(path, backend=backend), ValueError, text)


@each_reader
@pytest.mark.parametrize("backend", [None, 5])
def test_backend_that_is_no_string(path: Path, read: Any, backend: Any) -> None:
    text = f"backend: expected str, not {type(backend).__name__}"
    check_refused(lambda: read(path, backend=backend), TypeError, text)


DEVICES = {
    "unknown": ("nonsense", ValueError, "device: Expected one of cpu, cuda"),
    "upper case": ("CPU", ValueError, "device: Expected one of cpu, cuda"),
    "empty": ("", ValueError, "device: Device string must not be empty"),
    "bad index": ("cpu:x", ValueError, "device: Invalid device string: 'cpu:x'"),
    "negative": (-1, ValueError, "device: Device index must not be negative"),
    "float": (1.5, TypeError, "device() received an invalid combination of arguments"),
    "list": (["cpu"], TypeError, "device() received an invalid combination of arguments"),
}


@pytest.mark.parametrize(
    "read", [*READERS.values(), lambda path, device: load(path.read_bytes(), device)], ids=[*READERS, "load"]
)
@pytest.mark.parametrize(("device", "kind", "text"), DEVICES.values(), ids=DEVICES)
def test_device(path: Path, read: Any, device: Any, kind: type[Exception], text: str) -> None:
    check_refused(lambda: read(path, device), kind, text)


@pytest.mark.parametrize("filename", [5, None, b"x", ["x"]], ids=lambda name: type(name).__name__)
def test_filename_that_is_none(filename: Any) -> None:
    text = f"filename: expected str or os.PathLike, not {type(filename).__name__}"
    for read in READERS.values():
        check_refused(lambda: read(filename), TypeError, text)  # noqa: B023
    check_refused(lambda: save_file({}, filename), TypeError, text)


def test_filename_with_a_nul(tmp_path: Path) -> None:
    filename = f"{tmp_path}/a\0b"
    for call in (*READERS.values(), lambda path: save_file({}, path)):
        check_refused(lambda: call(filename), ValueError, "embedded null character in path")  # noqa: B023
    assert list(tmp_path.iterdir()) == []


DATA = {
    "int": (5, TypeError, ", not int"),
    "None": (None, TypeError, ", not NoneType"),
    "str": (
        "x",
        TypeError,
        "data: expected bytes, bytearray, memoryview, another buffer or a 1-D uint8 tensor, not str",
    ),
    "every other byte": (memoryview(bytes(40))[::2], ValueError, "data: the buffer is not contiguous"),
    "2-D": (
        torch.zeros(2, 8, dtype=torch.uint8),
        ValueError,
        "data must be a 1-D uint8 tensor, not Byte of shape [2, 8]",
    ),
    "float": (torch.zeros(8), ValueError, "data must be a 1-D uint8 tensor, not Float of shape [8]"),
}


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(("data", "kind", "text"), DATA.values(), ids=DATA)
def test_data(data: Any, kind: type[Exception], text: str, copy: bool) -> None:
    check_refused(lambda: load(data, copy=copy), kind, text)


def test_alias_needs_writable_memory() -> None:
    data = save({"w": torch.ones(2)})
    text = "data: copy=False needs a writable buffer, and this {} is read-only"
    check_refused(lambda: load(data, copy=False), ValueError, text.format("bytes"))
    check_refused(lambda: load(memoryview(data), copy=False), ValueError, text.format("memoryview"))
    check_refused(lambda: load(memoryview(bytearray(data)).toreadonly(), copy=False), ValueError, "is read-only")


def test_alias_needs_aligned_data() -> None:
    data = bytearray(make_file('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} ', b"abcd"))
    text = (
        "bytes: tensor 'w': its data begins at an address that is not a multiple of 4 bytes, so it cannot be "
        "aliased; pass copy=True"
    )
    check_refused(lambda: load(data, copy=False), ValueError, text)
    assert load(data)["w"].view(torch.uint8).tolist() == list(b"abcd")


@pytest.mark.parametrize("copy", [True, False])
def test_what_torch_cannot_hold_is_told_before_what_cannot_be_aliased(copy: bool) -> None:
    """To pass copy=True would not help."""
    first, second = '"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', '"x":{"dtype":"F4","shape":[0,5],'
    data = bytearray(make_file(f'{{{first},{second}"data_offsets":[4,4]}}}} ', b"abcd"))
    assert int.from_bytes(data[:8], "little") % 4 != 0
    check_refused(lambda: load(data, copy=copy), SafetensorError, "bytes: tensor 'x': torch cannot hold F4 [0, 5]")


def test_alias_needs_dense_data_on_the_cpu() -> None:
    data = torch.frombuffer(bytearray(save({"w": torch.ones(2)})), dtype=torch.uint8)
    spread = torch.stack([data, data], dim=1)[:, 0]
    check_refused(
        lambda: load(spread, copy=False), ValueError, "copy=False needs contiguous data and tensors on the CPU"
    )
    assert load(spread)["w"].tolist() == [1, 1]
    text = "copy=False needs contiguous data and tensors on the CPU, not data on cpu and tensors on cuda"
    check_refused(lambda: load(data, "cuda", copy=False), ValueError, text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_name(path: Path, backend: str) -> None:
    file = safe_open(path, backend=backend)
    calls = {
        "get_tensor": file.get_tensor,
        "get_tensors": lambda name: file.get_tensors(["w", name]),
        "get_slice": file.get_slice,
        "get_tensor_meta": file.get_tensor_meta,
        "load_tensor": lambda name: load_tensor(path, name, backend=backend),
    }
    for call in calls.values():
        text = f"{path}: tensor 'v': not in this file, which holds 1 tensors"
        check_refused(lambda: call("v"), torch_safetensors.SafetensorError, text)  # noqa: B023
        check_refused(lambda: call(5), TypeError, "name: expected str, not int")  # noqa: B023
        check_refused(lambda: call(b"w"), TypeError, "name: expected str, not bytes")  # noqa: B023
        check_refused(lambda: call("\ud800"), ValueError, r"tensor name '\ud800': not valid Unicode")  # noqa: B023
    for name in ("v", 5, b"w", "\ud800", None):
        assert name not in file


@pytest.mark.parametrize("framework", ["np", "PT", "", None])
def test_framework(path: Path, framework: Any) -> None:
    text = f"framework: {framework!r} is not one of 'pt', 'torch', 'pytorch'"
    check_refused(lambda: safe_open(path, framework), ValueError, text)


@pytest.mark.parametrize(
    "call",
    [
        lambda path: load_file(path, "cpu", "mmap"),
        lambda path: load(path.read_bytes(), "cpu", True),
        lambda path: save_file({}, path, None, True),
        lambda path: safe_open(path, "pt", "cpu", "mmap"),
    ],
    ids=["load_file", "load", "save_file", "safe_open"],
)
def test_options_are_keywords(path: Path, call: Any) -> None:
    check_refused(lambda: call(path), TypeError, "positional argument")


def test_names_of_any_length_and_class_are_told_apart() -> None:
    class Name(str):
        def __len__(self) -> int:
            return 1

    tensors = {"": torch.ones(1), "ä€": torch.ones(2), Name("name"): torch.ones(3), "n\0": torch.ones(4)}
    assert {name: tensor.numel() for name, tensor in load(save(tensors)).items()} == {
        "": 1,
        "ä€": 2,
        "name": 3,
        "n\0": 4,
    }


@pytest.mark.parametrize(
    ("names", "sizes", "tensors", "message"),
    [
        ("ab", [1, 1], [[torch.ones(1)]], "names and tensors do not belong together"),
        ("a", [1], [], "names and tensors do not belong together"),
        ("a", [2], [[torch.ones(1)]], "names are shorter than their sizes say"),
        ("a", [-1], [[torch.ones(1)]], "names are shorter than their sizes say"),
    ],
)
def test_operators_for_python_check_names(
    names: str, sizes: list[int], tensors: list[list[Tensor]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        torch.ops.safetensors._save_small(names, sizes, tensors, None, 1000)
