"""Pictures of a checkpoint: what is in them, that they stay small, and that a real browser shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import Cli

from torch_safetensors import save_file, save_sharded
from torch_safetensors._listing import File, Listing, Tensor
from torch_safetensors._plot._boxes import Box, boxes
from torch_safetensors._plot._colours import colours_of, lighter
from torch_safetensors._plot._strips import HEADER, strips

EVIL = "<script>alert(1)</script></script><img src=x onerror=alert(2)>"


def listing_of(sizes: dict[str, int], dtype: str = "U8", header: int = 100) -> Listing:
    """Made up: tensors of these sizes, in one file."""
    tensors = []
    begin = header
    for name, nbytes in sizes.items():
        tensors.append(Tensor(name, dtype, (nbytes,), nbytes, begin, 0))
        begin += nbytes
    return Listing(tensors, [File("x.safetensors", header, begin)], None)


def labels(box: Box) -> object:
    return {child.label: labels(child) for child in box.children} if box.children else box.nbytes


def leaves(box: Box) -> list[Box]:
    return [leaf for child in box.children for leaf in leaves(child)] if box.children else [box]


# --- boxes ---------------------------------------------------------------------------------------


def test_boxes_are_modules_and_tensors() -> None:
    listing = listing_of({"m.a.w": 5, "m.a.b": 1, "m.10": 2, "m.9": 3, "other": 4, "deep.er.w": 6})
    assert labels(boxes(listing.tensors, "all", 100, 0)) == {
        "deep.er.w": 6,
        "m": {"9": 3, "10": 2, "a": {"b": 1, "w": 5}},
        "other": 4,
    }


def test_a_tensor_named_as_a_module() -> None:
    listing = listing_of({"a": 1, "a.b": 2, "": 3, "..": 4})
    assert sum(leaf.nbytes for leaf in leaves(boxes(listing.tensors, "all", 100, 0))) == 10
    assert labels(boxes(listing.tensors[:2], "all", 100, 0)) == {"a": {"": 1, "b": 2}}


def test_many_siblings_are_gathered_in_ranges() -> None:
    listing = listing_of({f"layers.{i}.w": 10 for i in range(1000)})
    root = boxes(listing.tensors, "all", 100_000, 0)
    (layers,) = root.children
    assert (layers.label, len(layers.children)) == ("layers", 63)
    assert layers.children[0].label == "0.w … 15.w"
    assert [child.label for child in layers.children[0].children][:2] == ["0.w", "1.w"]
    assert len(leaves(root)) == 1000


def test_there_are_never_too_many_boxes() -> None:
    listing = listing_of({f"a.{i // 100}.b.{i}": 1 + i % 7 for i in range(20_000)})
    root = boxes(listing.tensors, "all", 500, 0)
    assert 400 < len(leaves(root)) < 600
    assert sum(leaf.nbytes for leaf in leaves(root)) == listing.nbytes
    assert labels(boxes(listing.tensors, "all", 500, 1.1)) == listing.nbytes


def test_hostile_names() -> None:
    listing = listing_of({"a." * 100_000: 1, "." * 100_000: 2, "a." * 50: 3})
    assert sum(leaf.nbytes for leaf in leaves(boxes(listing.tensors, "all", 1000, 0))) == 6


def test_the_dtype_of_a_box_is_that_of_most_bytes() -> None:
    tensors = [*listing_of({"a": 3, "b": 3}, "F32").tensors, *listing_of({"c": 5}, "I8").tensors]
    assert Box("all", tensors, 0).dtype == "F32"
    assert Box("none", [], 0).dtype == ""


# --- strips --------------------------------------------------------------------------------------


def test_strips_cover_the_file() -> None:
    listing = listing_of({f"t{i}": 1 + 997 * (i % 50 == 0) for i in range(1000)})
    (segments,) = strips(listing, 100)
    assert (segments[0].kind, segments[0].begin, segments[0].nbytes) == (HEADER, 0, 100)
    ends = [segment.begin + segment.nbytes for segment in segments]
    assert [segment.begin for segment in segments[1:]] == ends[:-1]
    assert ends[-1] == listing.files[0].nbytes
    assert len(segments) < 60
    assert segments[1].label == "t0"
    assert segments[2].label == "t1 … t49 (49 tensors)"
    assert sum(segment.tensors for segment in segments) == 1000


def test_strips_keep_dtypes_apart() -> None:
    tensors = [Tensor(str(i), "F32" if i < 5 else "U8", (4,), 4, 10 + 4 * i, 0) for i in range(10)]
    (segments,) = strips(Listing(tensors, [File("x", 10, 50)], None), 2)
    assert [(segment.kind, segment.tensors) for segment in segments] == [(HEADER, 0), ("F32", 5), ("U8", 5)]


def test_colours() -> None:
    tensors = [*listing_of({"a": 1}, "F32").tensors, *listing_of({"b": 2}, "I8").tensors]
    colours = colours_of(tensors)
    assert list(colours) == ["I8", "F32", HEADER]
    assert len({*colours.values()}) == 3
    assert (lighter("#000000", 0.5), lighter("#ff8000", 0)) == ("#808080", "#ff8000")


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    layers = {f"layers.{i}.weight": torch.zeros(50, 50, dtype=torch.bfloat16) for i in range(4)}
    save_file(
        {"embed_tokens": torch.zeros(90, 50), EVIL: torch.zeros(2500), "$\\alpha$ 漢": torch.zeros(2500), **layers},
        path,
    )
    return path


def test_another_suffix(cli: Cli, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jpg"
    message = f"torch-safetensors: {out}: pictures are .html or .png, not .jpg\n"
    assert cli("info", path, "--plot", out) == (2, "", message)


@pytest.mark.parametrize(("suffix", "package"), [("html", "plotly"), ("png", "squarify"), ("png", "matplotlib")])
def test_a_package_that_is_missing(
    cli: Cli, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, package: str
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / f"out.{suffix}"
    message = f"torch-safetensors: {out}: needs {package}: pip install 'torch_safetensors[plot]'\n"
    assert cli("info", path, "--plot", out) == (2, "", message)
    assert not out.exists()


def test_a_png(cli: Cli, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("squarify")
    image = pytest.importorskip("PIL.Image")
    out = tmp_path / "out.png"
    assert cli("info", path, "--plot", out) == (0, f"{out}: written\n", "")
    with image.open(out) as picture:
        colours = dict(zip(*reversed(list(zip(*picture.convert("RGB").getcolors(1 << 24), strict=True))), strict=True))
        pixels = picture.width * picture.height
    by_dtype = {"BF16": "#c4641f", "F32": "#3b6fa6"}
    for dtype, nbytes in {"BF16": 20_000, "F32": 38_000}.items():
        shades = [lighter(by_dtype[dtype], share) for share in (0, 0.12, 0.22)]
        count = sum(colours.get(tuple(bytes.fromhex(shade[1:])), 0) for shade in shades)
        assert 0.5 < count / pixels / (nbytes / 58_000) < 1, dtype


def test_a_page_of_several_files_has_a_strip_for_each(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    save_sharded({"a": torch.zeros(10), "b": torch.zeros(10).half(), "c": torch.zeros(5)}, tmp_path, max_shard_size=40)
    assert cli("info", tmp_path, "--plot", tmp_path / "out.html").status == 0
    page = (tmp_path / "out.html").read_text()
    bars = {bar["customdata"][0].split("<br>")[1].split(",")[0]: bar for bar in figures(page)[1]}
    assert {kind: bar["y"] for kind, bar in bars.items()} == {"F32": [0, 1], "F16": [1], "header": [0, 1]}
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    assert f'"ticktext":{json.dumps(names, separators=(",", ":"))}' in page


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_a_file_without_tensors_and_one_without_bytes(cli: Cli, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("squarify")
    pytest.importorskip("plotly")
    for tensors in {}, {"a.b": torch.zeros(0), "c": torch.zeros(2, 0)}:
        save_file(tensors, tmp_path / "x.safetensors")
        assert cli("info", tmp_path / "x.safetensors", "--plot", tmp_path / f"out.{suffix}").status == 0


def test_a_png_of_many_files(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("squarify")
    save_sharded({str(i): torch.zeros(10) for i in range(50)}, tmp_path / "x", max_shard_size=40)
    assert cli("info", tmp_path / "x", "--plot", tmp_path / "out.png").status == 0


def figures(page: str) -> list[list[dict[str, object]]]:
    """The traces of each figure in a page."""
    found = re.findall(r'Plotly\.newPlot\(\s*"[^"]*",\s*(\[.*?\]),\s*\{"', page, re.DOTALL)
    return [json.loads(traces) for traces in found]


def test_a_page(cli: Cli, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    out = tmp_path / "out.html"
    assert cli("info", path, "--plot", out) == (0, f"{out}: written\n", "")
    page = out.read_text()
    (treemap,), layout = figures(page)
    assert {"all tensors", "layers", "embed_tokens", "0.weight"} <= {*treemap["labels"]}
    root = treemap["labels"].index("all tensors")
    assert (
        treemap["values"][root]
        == 58_000
        == sum(value for value, parent in zip(treemap["values"], treemap["parents"], strict=True) if parent == "0")
    )
    assert [bar["x"] for bar in layout if len(bar["x"]) == 4] == [[5000] * 4]
    # What is not there by itself would have to be loaded.
    assert not re.search(
        r"<(script|link|img)[^>]+(src|href)=", re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    )
    assert EVIL not in page


def test_a_page_of_100_000_tensors_stays_small(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path, out = tmp_path / "x.safetensors", tmp_path / "out.html"
    save_file({f"model.layers.{i // 20}.part{i % 20}": torch.zeros(1) for i in range(100_000)}, path)
    assert cli("info", path, "--plot", out).status == 0
    (treemap,), layout = figures(out.read_text())
    assert 500 < len(treemap["labels"]) <= 5100
    assert sum(len(bar["x"]) for bar in layout) <= 1600


# --- a real browser ------------------------------------------------------------------------------


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: scripts/setup.sh plot")
def test_a_browser_shows_the_page(cli: Cli, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    out = tmp_path / "out.html"
    assert cli("info", path, "--plot", out).status == 0
    page = out.read_text()
    # What the page complains of is put into the document, to be seen from here.
    out.write_text(page.replace("<head>", f"<head><script>{COLLECT_ERRORS}</script>", 1))
    dom = in_browser(out, tmp_path)
    assert re.search(r"data-errors=\"\[\]\"", dom), dom[:2000]
    shown = re.findall(r'<text [^>]*class="slicetext"[^>]*>(.*?)</text>', dom, re.DOTALL)
    texts = " ".join(re.sub("<[^>]+>", " ", text) for text in shown)
    for label in "all tensors", "layers", "embed_tokens", "F32 [90,50]", "18.0 kB", "BF16 [50,50]":
        assert label in texts, texts
    assert "&lt;script&gt;alert(1)" in texts
    assert "<img" not in re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert len(re.findall(r'<g class="point">', dom)) == 8  # a header and seven tensors


#: Errors, complaints and dialogs, put where --dump-dom shows them.
COLLECT_ERRORS = """
const errors = [];
const note = (text) => {
  errors.push(String(text));
  document.documentElement.setAttribute("data-errors", JSON.stringify(errors));
};
document.documentElement.setAttribute("data-errors", "[]");
addEventListener("error", (event) => note(event.message), true);
addEventListener("unhandledrejection", (event) => note(event.reason));
console.error = note;
window.alert = note;
"""


def in_browser(page: Path, folder: Path) -> str:
    """The document once all its scripts have run."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1400,920", "--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
