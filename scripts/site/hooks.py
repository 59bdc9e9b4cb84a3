"""What mkdocs.yml has mkdocs do beside its own work: see each function."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from cpp_declarations import read_header
from cpp_page import page_of
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
HEADERS = ROOT / "csrc/include"
_log = logging.getLogger("mkdocs.hooks")  # a warning there fails a strict build


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Makes the changelog a page, from where people look for it in a repository."""
    files.append(File.generated(config, "changelog.md", abs_src_path=str(ROOT / "CHANGELOG.md")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the C++ headers in place of ``<!-- header: name -->``, and text in place of links out of docs/."""
    markdown = re.sub(r"<!-- header: (\S+) -->", _header, markdown)
    return re.sub(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)", lambda link: _named(link, page), markdown)


def _header(marker: re.Match[str]) -> str:
    path = HEADERS / marker[1]
    try:
        return page_of(read_header(path.read_text()), marker[1])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _named(link: re.Match[str], page: Page) -> str:
    """The name of a file: the site does not know where the sources are. In the repository the link works."""
    path = (ROOT / "docs" / page.file.src_uri).parent / link[2]
    if not path.exists():
        _log.warning("%s: %s is not in the repository", page.file.src_uri, link[2])
    name = str(path.resolve().relative_to(ROOT))
    text = link[1]
    return f"`{name}`" if text.strip("`") in (name, path.name) else f"{text} (`{name}`)"
