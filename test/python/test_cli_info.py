"""``info``: tables, tree, totals and JSON, on a terminal and in a pipe, from the header alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from command_line import Cli, lines_of
from helpers import DTYPES, entry, make_file, positions

from torch_safetensors import save_file, save_sharded
from torch_safetensors._cli import info

TENSORS = {
    "embed.weight": torch.zeros(10, 4),
    **{f"layers.{i}.{name}": torch.zeros(4, 4, dtype=torch.bfloat16) for i in range(11) for name in ("q", "k")},
    "layers.11.q": torch.zeros(2, dtype=torch.int64),
    "scale": torch.zeros(()),
}
LONG = "a_very_long_name." * 20 + "weight"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, {"format": "pt", "config": "x" * 1000})
    return path


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_a_line_for_each_tensor(cli: Cli, path: Path) -> None:
    lines = lines_of(cli("info", path))
    assert lines[0].startswith(f"{path}: 25 tensors, 395 elements, 884 B, header ")
    tensors = [cells(line) for line in lines if line.startswith(("embed.weight ", "layers.", "scale "))][:25]
    assert {line[0] for line in tensors} == set(TENSORS)
    assert ["embed.weight", "F32", "[10,4]", "160"] in tensors
    assert ["scale", "F32", "[]", "4"] in tensors
    assert [line[0] for line in tensors] == list(positions(path))


@pytest.mark.parametrize(
    ("order", "first"), [("name", "embed.weight"), ("bytes", "embed.weight"), ("offset", "layers.11.q")]
)
def test_the_order(cli: Cli, path: Path, order: str, first: str) -> None:
    lines = lines_of(cli("info", path, "--sort", order))
    header = next(number for number, line in enumerate(lines) if line.startswith("name "))
    assert cells(lines[header + 1])[0] == first


def test_metadata_is_shortened(cli: Cli, path: Path) -> None:
    lines = lines_of(cli("info", path))
    assert "format  pt" in lines
    (config,) = (line for line in lines if line.startswith("config"))
    assert config.endswith("xxx (1,000 characters)")
    assert len(config) < 250
    assert "…" in config


def test_totals(cli: Cli, path: Path) -> None:
    lines = lines_of(cli("info", path, "--depth", "1"))
    by_dtype = lines.index("by dtype")
    assert [cells(line) for line in lines[by_dtype + 2 : by_dtype + 5]] == [
        ["BF16", "22", "352", "704", "79.6%"],
        ["F32", "2", "41", "164", "18.6%"],
        ["I64", "1", "2", "16", "1.8%"],
    ]
    by_module = lines.index("by module")
    assert [cells(line)[:2] for line in lines[by_module + 2 :]] == [["layers", "23"], ["embed", "1"], ["(none)", "1"]]
    deeper = lines_of(cli("info", path))
    assert ["layers.10", "2", "32", "64", "7.2%"] in [cells(line) for line in deeper]


def test_the_tree_shows_what_is_alike_once(cli: Cli, path: Path) -> None:
    lines = lines_of(cli("info", path, "--tree"))
    # Two blanks part cells, but not where they are the tree's.
    tree = [re.split(r"(?<=[\w)\]])\s{2,}", line) for line in lines if re.match("[├└│ ]", line)]
    assert [line[0] for line in tree] == [
        "├── embed",
        "│   └── weight",
        "├── layers",
        "│   ├── 0…10 (11 alike, one of them:)",
        "│   │   ├── k",
        "│   │   └── q",
        "│   └── 11",
        "│       └── q",
        "└── scale",
    ]
    assert tree[2] == ["├── layers", "23", "720"]
    assert tree[3] == ["│   ├── 0…10 (11 alike, one of them:)", "22", "704"]
    assert tree[4] == ["│   │   ├── k", "BF16", "[4,4]", "32"]


def test_the_tree_is_cut_where_asked(cli: Cli, path: Path) -> None:
    out = cli("info", path, "--tree", "--depth", "1").out
    assert "├── layers" in out
    assert "0…10" not in out


def test_the_tree_of_a_tensor_named_as_its_module(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1), "a.b": torch.zeros(2)}, path)
    lines = [cells(line) for line in lines_of(cli("info", path, "--tree"))]
    assert ["└── a", "F32", "[1]", "2", "12"] in lines
    assert ["└── b", "F32", "[2]", "8"] in lines


def test_json(cli: Cli, path: Path) -> None:
    content = json.loads(cli("info", path, "--json", "--depth", "1").out)
    assert list(content) == ["path", "files", "metadata", "totals", "tensors"]
    header = path.stat().st_size - 884
    assert content["files"] == [{"path": str(path), "header_bytes": header, "bytes": path.stat().st_size}]
    assert content["metadata"] == {"format": "pt", "config": "x" * 1000}
    places = positions(path)
    assert [tensor["name"] for tensor in content["tensors"]] == list(places)
    for tensor in content["tensors"]:
        assert (tensor["begin"], tensor["bytes"]) == places[tensor["name"]]
        assert tensor["shape"] == list(TENSORS[tensor["name"]].shape)
        assert tensor["file"] == 0
    totals = content["totals"]
    assert totals["bytes"] == 884
    assert totals["by_dtype"]["BF16"] == {"tensors": 22, "elements": 352, "bytes": 704}
    assert totals["by_module"][""] == {"tensors": 1, "elements": 1, "bytes": 4}


def test_json_of_a_file_without_anything(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    save_file({}, path)
    content = json.loads(cli("info", path, "--json").out)
    assert (content["tensors"], content["metadata"], content["totals"]["by_dtype"]) == ([], None, {})
    assert content["files"] == [{"path": str(path), "header_bytes": path.stat().st_size, "bytes": path.stat().st_size}]
    assert lines_of(cli("info", path))[0].startswith(f"{path}: 0 tensors, 0 elements, 0 B")
    assert cli("info", path, "--tree").status == 0


def test_a_checkpoint_in_several_files(cli: Cli, tmp_path: Path) -> None:
    save_sharded(TENSORS, tmp_path, max_shard_size=300)
    content = json.loads(cli("info", tmp_path, "--json").out)
    files = content["files"]
    assert [Path(file["path"]).name for file in files] == [f"model-0000{i}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert sum(file["bytes"] for file in files) == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    for tensor in content["tensors"]:
        places = positions(Path(files[tensor["file"]]["path"]))
        assert (tensor["begin"], tensor["bytes"]) == places[tensor["name"]]
    assert cli("info", tmp_path / "model.safetensors.index.json", "--json").out.partition("files")[2] != ""
    lines = lines_of(cli("info", tmp_path))
    assert [Path(cells(line)[0]).name for line in lines[4:8]] == [Path(file["path"]).name for file in files]


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F6_E3M2", *DTYPES])
def test_every_dtype(cli: Cli, tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.safetensors"
    bits = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}.get(name) or DTYPES[name].itemsize * 8
    path.write_bytes(make_file({"t": entry(name, [4, 2], 0, bits)}, bytes(bits)))
    assert ["t", name, "[4,2]", str(bits)] in [cells(line) for line in lines_of(cli("info", path))]


def test_only_the_header_is_read(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    size = 1 << 40
    path.write_bytes(make_file({"t": entry("U8", [size], 0, size)}))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size)  # A terabyte, and no disk holds it.
    assert cli("info", path).out.startswith(f"{path}: 1 tensor, 1,099,511,627,776 elements, 1.1 TB")


def test_names_are_one_line_and_harmless(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(
        {"a\nb": torch.zeros(1), "c\x1b[31m\u202e": torch.zeros(1), "é漢": torch.zeros(1)}, path, {"k\n": "v\x1b"}
    )
    for out in cli("info", path).out, cli("info", path, "--tree").out:
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "a\\nb " in out
        assert "c\\x1b[31m\\u202e " in out
        assert "é漢 " in out
    assert "k\\n  v\\x1b" in cli("info", path).out


def test_a_pipe_gets_full_names_and_no_colour(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_file({LONG: torch.zeros(1000)}, path)
    monkeypatch.setenv("COLUMNS", "40")
    lines = lines_of(cli("info", path))
    assert f"{LONG}  F32    [1000]   4000" in lines
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_colour_and_units_and_every_character(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({LONG: torch.zeros(1000), "[red]x": torch.zeros(1)}, path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    out = cli("info", path).out
    assert "\x1b[" in out
    plain = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert "4.0 kB" in plain
    assert "[red]x" in plain
    folded = "".join(re.match(r"\S*", line)[0] for line in plain.splitlines())  # type: ignore[index]
    assert LONG in folded


def test_a_long_table_is_plain_on_a_terminal_too(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"layer.{i}": torch.zeros(1000) for i in range(2001)}, path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert re.search(r"^layer\.2000 +F32 +\[1000\] +4\.0 kB$", cli("info", path).out, re.MULTILINE)


def test_the_help_lists_the_keys_of_the_json(cli: Cli, path: Path) -> None:
    for key in json.loads(cli("info", path, "--json").out):
        assert f"\n  {key} " in info.EPILOG
