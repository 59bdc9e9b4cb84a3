"""Pictures of where the bytes of a checkpoint are: by module and dtype, and in the order of the files."""

from __future__ import annotations

import importlib
from pathlib import Path

from .._errors import printable
from .._listing import Listing

__all__ = ["MissingPackageError", "plot"]

#: Which module draws a kind of picture, and the packages it needs.
_KINDS = {".html": ("_html", ("plotly",)), ".png": ("_png", ("matplotlib", "squarify"))}


class MissingPackageError(ImportError):
    """A package that the picture needs is not installed."""


def plot(listing: Listing, title: str, filename: str) -> None:
    """Draws to a file, an existing one included.

    Args:
        listing: what to draw.
        title: what stands above it, usually the path.
        filename: ``.html`` is a page to zoom and point at, which needs no network; ``.png`` a picture.

    Raises:
        ValueError: another suffix.
        MissingPackageError: says which, and how to install it.
        OSError: what the operating system reports.
    """
    kind = Path(filename).suffix.lower()
    if kind not in _KINDS:
        raise ValueError(f"{printable(filename)}: pictures are {' or '.join(_KINDS)}, not {kind or 'without suffix'}")
    module, packages = _KINDS[kind]
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            message = f"{printable(filename)}: needs {package}: pip install 'torch_safetensors[plot]'"
            raise MissingPackageError(message) from error
    content: bytes = importlib.import_module(f".{module}", __package__).draw(listing, title)
    Path(filename).write_bytes(content)
