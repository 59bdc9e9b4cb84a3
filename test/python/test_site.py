"""The documentation's site: mkdocs.yml, and what scripts/site makes of headers and docstrings."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from documented import ROOT, blocks

import torch_safetensors
import torch_safetensors.aoti
import torch_safetensors.distributed

sys.path.insert(0, str(ROOT / "scripts/site"))
from cpp_declarations import Declaration, read_header
from cpp_page import page_of

HEADERS = sorted((ROOT / "csrc/include/torch_safetensors").glob("*.h"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strict build, in which every warning is an error, without the library or a network."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "true", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(mkdocs, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def anchors(page: Path) -> set[str]:
    return set(re.findall(r' id="([^"]+)"', page.read_text()))


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """Fonts, scripts, pictures: whoever reads the pages tells nobody about it."""
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    assert [found for page in pages for found in fetched.findall(page.read_text())] == []


@pytest.mark.parametrize(
    "module",
    [torch_safetensors, torch_safetensors.aoti, torch_safetensors.distributed],
    ids=lambda module: module.__name__,
)
def test_every_public_name_is_on_the_page(site: Path, module: object) -> None:
    wanted = {f"{module.__name__}.{name}" for name in module.__all__}
    assert wanted - anchors(site / "python-api.html") == set()


def test_every_keyword_is_on_the_page(site: Path) -> None:
    assert "ring_size: int | None = None" in text_of(site / "python-api.html")


def test_every_header_is_on_the_page(site: Path) -> None:
    text = text_of(site / "cpp-api.html")
    for header in HEADERS:
        assert f"#include <torch_safetensors/{header.name}>" in text


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.name)
def test_every_exported_declaration_is_on_the_page(site: Path, header: Path) -> None:
    """Found by the macro, in another way than the page is made."""
    code = re.sub(r"//[^\n]*|#[^\n]*", "", header.read_text())
    functions = re.findall(r"TORCH_SAFETENSORS_API\b[^;{(]*?(\w+)\(", code)
    types = re.findall(r"\b(?:class|struct|enum class) (?:TORCH_SAFETENSORS_API )?(\w+)[^;(){}]*\{", code)
    aliases = re.findall(r"^using (\w+) =", code, re.MULTILINE)  # those of classes stand with these
    names = {*functions, *types, *aliases}
    assert names
    assert {f"cpp-{name}" for name in names} - anchors(site / "cpp-api.html") == set()


def test_operators_are_as_the_page_says() -> None:
    (listed, *_) = blocks("docs/operators.md")
    names = [name for name in torch._C._dispatch_get_all_op_names() if re.match(r"safetensors::[a-z]", name)]
    schemas = [str(torch._C._get_schema(name, "")).removeprefix("safetensors::") for name in names]
    assert sorted(listed.text.splitlines()) == sorted(schemas)


# --- what is read of a header ---------------------------------------------------------------------


def read(text: str) -> list[Declaration]:
    return read_header(f"namespace torch_safetensors {{\n{text}\n}}").declarations


@pytest.mark.parametrize(
    ("text", "kind", "name", "shown"),
    [
        ("TORCH_SAFETENSORS_API int f(int a,\n   int b = g());", "function", "f", "int f(int a, int b = g())"),
        ('int f(Options o = {}, text s = "a");', "function", "f", 'int f(Options o = {}, text s = "a")'),
        ("inline int f() { return g({1, 2}); }", "function", "f", "inline int f()"),
        ("A(int a)\n   : B(a), c_(a) {}", "function", "A", "A(int a)"),
        ("using T = c10::Dict<int, int>;", "alias", "T", "using T = c10::Dict<int, int>"),
        ("constexpr int kOne = 1;", "field", "kOne", "constexpr int kOne = 1"),
        ("std::vector<int> many{1, 2};", "field", "many", "std::vector<int> many{1, 2}"),
        ("enum class E { one, two };", "enum", "E", "enum class E { one, two }"),
        ("class TORCH_SAFETENSORS_API C final : public D {};", "class", "C", "class C final : public D"),
        ("template <typename T>\nT f(T t);", "function", "f", "template <typename T> T f(T t)"),
    ],
)
def test_declaration(text: str, kind: str, name: str, shown: str) -> None:
    (found,) = read(f"/// Says what.\n/// And more.\n{text}")
    assert (found.kind, found.name, found.text, found.comment) == (kind, name, shown, "Says what.\nAnd more.")


def test_what_is_not_public_is_left_out() -> None:
    (found,) = read(
        "class C {\n int a_;\n public:\n  C();\n  friend struct D;\n private:\n  struct Impl;\n  int b_;\n};"
    )
    assert [member.name for member in found.members] == ["C"]
    assert read_header("namespace torch::jit {\nstruct Module;\n}").declarations == []


def test_an_overload_without_a_comment_belongs_to_the_one_before() -> None:
    first, second, third = read("/// Both.\nint f(int a);\nint f(char a);\n\nint g();")
    assert [first.joined, second.joined, third.joined] == [False, True, False]
    page = page_of(read_header("namespace torch_safetensors {\n/// Both.\nint f(int a);\nint f(char a);\n}"), "f.h")
    assert "int f(int a);\nint f(char a);\n```\n\nBoth." in page


@pytest.mark.parametrize("text", ["int f(", "class C {", "}", "int f() { if (a) {"])
def test_what_is_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"line \d"):
        read_header(f"namespace torch_safetensors {{\n}}\n{text}")


def test_a_long_signature_has_a_line_for_each_parameter() -> None:
    parameters = ["const std::map<int, int>& first = {}", "std::string second = some_function(1, 2)", "int third = 3"]
    header = read_header(f"namespace torch_safetensors {{\nint f({', '.join(parameters)});\n}}")
    lines = ",\n    ".join(parameters)
    assert f"int f(\n    {lines});" in page_of(header, "f.h")
