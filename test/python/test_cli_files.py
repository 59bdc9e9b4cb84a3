"""``split``, ``merge``, ``extract``, ``rename``: other files of the same tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Cli, lines_of
from helpers import assert_same, listing, random_tensors

from torch_safetensors import load_file, safe_open, save_file, save_sharded

TENSORS = {
    "model.a.weight": torch.rand(4, 4),
    "model.a.bias": torch.rand(4),
    "model.b.weight": torch.rand(4, 4).bfloat16(),
    "model.w[0]": torch.arange(3),
}
TIES = {"format": "pt", "model.tied": "model.a.weight"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, TIES)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def metadata(path: Path) -> dict[str, str] | None:
    with safe_open(path) as file:
        return file.metadata()


def test_split(cli: Cli, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    lines = lines_of(cli("split", path, folder, "--max-shard-size", "100B"))
    assert lines == [
        f"{folder}/model-00001-of-00002.safetensors: 2 tensors, 40 B",
        f"{folder}/model-00002-of-00002.safetensors: 2 tensors, 96 B",
    ]
    assert (folder / "model.safetensors.index.json").exists()
    assert_same(load_file(folder), TENSORS)
    assert metadata(folder) == TIES


def test_split_into_one(cli: Cli, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()  # An empty one is as good as none.
    assert lines_of(cli("split", path, folder)) == [f"{folder}/model.safetensors: 4 tensors, 136 B"]


def test_split_does_not_overwrite_unasked(cli: Cli, path: Path, tmp_path: Path) -> None:
    message = f"torch-safetensors: {tmp_path}: exists already; pass --force to replace it\n"
    assert cli("split", path, tmp_path) == (2, "", message)
    assert listing(tmp_path) == ["x.safetensors"]
    assert cli("split", path, tmp_path, "--force").status == 0


def test_split_with_a_size_that_is_none(cli: Cli, path: Path, tmp_path: Path) -> None:
    status, out, err = cli("split", path, tmp_path / "shards", "--max-shard-size", "big")
    assert (status, out) == (2, "")
    assert err.startswith("torch-safetensors: max_shard_size: 'big' is not a size")


def test_merge(cli: Cli, tmp_path: Path, target: Path) -> None:
    tensors = random_tensors(3, count=40)
    save_sharded(tensors, tmp_path / "shards", TIES, max_shard_size=100)
    save_file(tensors, tmp_path / "expected.safetensors", TIES)
    assert lines_of(cli("merge", tmp_path / "shards", target))[0].startswith(f"{target}: {len(tensors)} tensors, ")
    assert target.read_bytes() == (tmp_path / "expected.safetensors").read_bytes()
    assert cli("merge", tmp_path / "shards", target).status == 2
    assert cli("merge", tmp_path / "shards" / "model.safetensors.index.json", target, "--force").status == 0


def test_convert_from_safetensors_to_safetensors(cli: Cli, path: Path, target: Path) -> None:
    assert cli("convert", path, target, "--dtype", "f16").status == 0
    expected = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in TENSORS.items()}
    assert_same(load_file(target), expected)
    assert metadata(target) == TIES


def test_extract_names_and_patterns(cli: Cli, path: Path, target: Path) -> None:
    assert lines_of(cli("extract", path, "model.w[0]", "*.a.*", "-o", target)) == [f"{target}: 3 tensors, 104 B"]
    assert_same(load_file(target), {name: tensor for name, tensor in TENSORS.items() if name != "model.b.weight"})
    assert metadata(target) == TIES


def test_extract_forgets_ties_of_what_is_not_there(cli: Cli, path: Path, target: Path) -> None:
    assert cli("extract", path, "*.b.*", "-o", target).status == 0
    assert metadata(target) == {"format": "pt"}


def test_extract_what_is_not_there(cli: Cli, path: Path, target: Path) -> None:
    message = f"torch-safetensors: {path}: no tensor is named or matches 'x*'\n"
    assert cli("extract", path, "*.a.*", "x*", "-o", target) == (2, "", message)
    assert not target.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--strip-prefix", "model."], ["a.bias", "a.weight", "b.weight", "w[0]"]),
        (["--add-prefix", "x."], ["x.model.a.bias", "x.model.a.weight", "x.model.b.weight", "x.model.w[0]"]),
        (["--map", "model.w[0]=w=0"], ["model.a.bias", "model.a.weight", "model.b.weight", "w=0"]),
        (["--regex", r"s/model\.(\w)/\1x/"], ["ax.bias", "ax.weight", "bx.weight", "wx[0]"]),
        (["--regex", "s|e||g"], ["modl.a.bias", "modl.a.wight", "modl.b.wight", "modl.w[0]"]),
        (["--regex", "s|e||"], ["modl.a.bias", "modl.a.weight", "modl.b.weight", "modl.w[0]"]),
        (
            ["--strip-prefix", "model.", "--map", "a.bias=c", "--add-prefix", "y."],
            ["y.a.weight", "y.b.weight", "y.c", "y.w[0]"],
        ),
    ],
)
def test_rename(cli: Cli, path: Path, target: Path, options: list[str], expected: list[str]) -> None:
    assert lines_of(cli("rename", path, target, *options)) == [f"{target}: 4 tensors, 136 B"]
    loaded = load_file(target)
    assert sorted(loaded) == expected
    assert sorted(map(str, loaded.values())) == sorted(map(str, TENSORS.values()))


def test_rename_renames_ties(cli: Cli, path: Path, target: Path) -> None:
    assert cli("rename", path, target, "--strip-prefix", "model.").status == 0
    assert metadata(target) == {"format": "pt", "tied": "a.weight"}


def test_a_name_that_is_a_tie_of_the_file_is_one_to_rename(cli: Cli, path: Path, target: Path) -> None:
    assert cli("rename", path, target, "--map", "model.tied=t", "--map", "model.a.bias=b").status == 0
    assert metadata(target) == {"format": "pt", "t": "model.a.weight"}


def test_each_step_sees_what_those_before_it_have_made(cli: Cli, path: Path, target: Path) -> None:
    assert cli("rename", path, target, "--map", "model.a.bias=b", "--map", "b=c").status == 0
    assert "c" in load_file(target)


def test_rename_without_writing(cli: Cli, path: Path, target: Path) -> None:
    lines = lines_of(cli("rename", path, target, "--map", "model.a.bias=b", "--dry-run"))
    assert [line.split() for line in lines] == [["old", "new"], ["model.a.bias", "b"]]
    assert not target.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to rename: pass --map, --strip-prefix, --add-prefix or --regex"),
        (["--strip-prefix", "x."], "{path}: no tensor has a name that would change by --strip-prefix 'x.'"),
        (
            ["--map", "model.a.bias=b", "--map", "typo=x", "--regex", "s/typo/x/"],
            "{path}: no tensor has a name that would change by --map 'typo=x', --regex 's/typo/x/'",
        ),
        (["--add-prefix", "x.", "--strip-prefix", "x."], "{path}: no name would change"),
        (
            ["--regex", "s/.*weight/w/"],
            "{path}: 'model.a.weight' and 'model.b.weight' would both be named 'w'",
        ),
    ],
)
def test_rename_refuses(cli: Cli, path: Path, target: Path, options: list[str], message: str) -> None:
    expected = f"torch-safetensors: {message.format(path=path)}\n"
    assert cli("rename", path, target, *options) == (2, "", expected)
    assert not target.exists()


@pytest.mark.parametrize(
    "option", ["--map=x", "--regex=x", "--regex=s/a", "--regex=s/a/b/x", "--regex=s/(/b/", r"--regex=s/a/\1/"]
)
def test_rename_explains_its_options(cli: Cli, path: Path, target: Path, option: str) -> None:
    status, _, err = cli("rename", path, target, option)
    assert status == 2
    assert f"argument {option.partition('=')[0]}: {option.partition('=')[2]!r}" in err


@pytest.mark.parametrize("command", [("extract", "*", "-o"), ("rename", "--add-prefix=x")], ids=lambda words: words[0])
def test_nothing_is_overwritten_unasked(cli: Cli, path: Path, target: Path, command: tuple[str, ...]) -> None:
    target.write_bytes(b"old")
    name, *rest = command
    message = f"torch-safetensors: {target}: exists already; pass --force to replace it\n"
    assert cli(name, path, *rest, target) == (2, "", message)
    assert target.read_bytes() == b"old"
    assert cli(name, path, *rest, target, "--force").status == 0
    assert len(load_file(target)) == 4
