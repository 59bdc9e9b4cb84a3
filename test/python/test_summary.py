"""What a handle looks like in a REPL and in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from helpers import random_tensors

from torch_safetensors import safe_open, save_file, save_sharded
from torch_safetensors._listing import File, list_tensors
from torch_safetensors._text import format_bytes, printable_name, shortened


class Texts(HTMLParser):
    """What a browser shows, and the elements it makes of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    layers = {f"layer.{i}.weight": torch.zeros(10, 10, dtype=torch.bfloat16) for i in range(40)}
    save_file({"step": torch.tensor(1), "scale": torch.zeros(2, 3), **layers}, path)
    return path


def test_the_repr_is_a_handful_of_lines(path: Path) -> None:
    assert repr(safe_open(path)) == (
        f"<safe_open {str(path)!r}: 42 tensors, 8.0 kB\n"
        "  BF16: 40 (8.0 kB), F32: 1 (24 B), I64: 1 (8 B)\n"
        "  step            I64 []\n"
        "  scale           F32 [2,3]\n"
        "  layer.0.weight  BF16 [10,10]\n"
        "  layer.1.weight  BF16 [10,10]\n"
        "  layer.10.weight BF16 [10,10]\n"
        "  and 37 more>"
    )


def test_the_repr_of_few_tensors_of_none_and_of_a_closed_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(3)}, path)
    with safe_open(path) as file:
        assert repr(file) == f"<safe_open {str(path)!r}: 1 tensor, 12 B\n  F32: 1 (12 B)\n  w F32 [3]>"
    assert repr(file) == f"<safe_open {str(path)!r}: closed>"
    assert file._repr_html_() == f"<pre>&lt;safe_open &#x27;{path}&#x27;: closed&gt;</pre>"
    save_file({}, path)
    assert repr(safe_open(path)) == f"<safe_open {str(path)!r}: 0 tensors>"
    assert "0 tensors, 0 B" in safe_open(path)._repr_html_()


def test_the_repr_of_several_files(tmp_path: Path) -> None:
    save_sharded({"a": torch.zeros(3), "b": torch.zeros(3)}, tmp_path, max_shard_size=12)
    assert repr(safe_open(tmp_path)).startswith(f"<safe_open {str(tmp_path)!r}: 2 tensors, 24 B in 2 files\n")


def test_names_in_the_repr(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"n\n\x1b": torch.zeros(1), "l" * 1000: torch.zeros(1)}, path)
    lines = repr(safe_open(path)).splitlines()
    assert len(lines) == 4
    assert "  n\\n\\x1b " in "\n".join(lines)
    assert max(map(len, lines[1:])) < 100


def test_the_table_of_a_notebook(path: Path) -> None:
    page = Texts(safe_open(path)._repr_html_())
    assert page.texts[:2] == [str(path), ": 42 tensors, 8.0 kB"]
    assert page.tags.count("tr") == 31
    step = page.texts.index("step")
    assert page.texts[step : step + 4] == ["step", "I64", "[]", "8 B"]
    assert page.texts[-1] == "and 12 more"


def test_names_are_harmless_in_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "<b>&.safetensors"
    save_file({"<script>alert(1)</script>": torch.zeros(1), '"><img src=x onerror=alert(1)>': torch.zeros(1)}, path)
    page = Texts(safe_open(path)._repr_html_())
    assert set(page.tags) == {"div", "p", "b", "br", "table", "tr", "th", "td"}
    assert "<script>alert(1)</script>" in page.texts
    assert str(path) in page.texts


# --- the listing ---------------------------------------------------------------------------------


def test_the_listing_is_what_the_handle_says(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(random_tensors(5, count=50), path, {"k": "v"})
    file = safe_open(path)
    listing = list_tensors(file)
    assert [tensor.name for tensor in listing.tensors] == file.offset_keys()
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    for tensor in listing.tensors:
        meta = file.get_tensor_meta(tensor.name)
        begin, end = meta.data_offsets
        assert (tensor.dtype, list(tensor.shape)) == (meta.dtype, meta.shape)
        assert (tensor.begin, tensor.nbytes, tensor.file) == (header + begin, end - begin, 0)
        assert tensor.elements == torch.Size(meta.shape).numel()
    assert listing.files == [File(str(path), header, path.stat().st_size)]
    assert listing.metadata == {"k": "v"}


def test_the_listing_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({}, path)
    size = path.stat().st_size
    assert list_tensors(safe_open(path)) == ([], [File(str(path), size, size)], None)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5_300_000_000, "5.3 GB"),
        (7 * 10**12, "7.0 TB"),
        (2**63, "9223.4 PB"),
    ],
)
def test_sizes(nbytes: int, text: str) -> None:
    assert format_bytes(nbytes) == text


def test_texts() -> None:
    assert printable_name("a\u2028b\x9b é") == "a\\u2028b\\x9b é"
    assert shortened("abcdefgh", 5) == "ab…gh"
    assert shortened("abcde", 5) == "abcde"
