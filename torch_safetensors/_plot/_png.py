"""The picture as a PNG."""

from __future__ import annotations

import io
import warnings
from typing import Any

import squarify
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .._listing import Listing
from .._text import count_of, format_bytes, format_shape, shortened
from ._boxes import Box, boxes
from ._colours import colours_of, lighter
from ._strips import strips

__all__ = ["draw"]

_MAX_BOXES = 5000
_MIN_SHARE = 1 / 300
_MAX_SEGMENTS = 800
#: A longer list of files would be a picture of its own; the treemap has all of them.
_MAX_FILES = 40

#: Sizes in points: of the picture, of text, around and above what a box holds.
_WIDTH = 864.0
_HEIGHT = 432.0
_STRIP = 14.0
_FONT = 7.0
_PAD = 1.6
_TITLE = 10.0
#: Of DejaVu Sans, per point of its size, nearly enough.
_CHARACTER = 0.62
_FRAME = 0.85
_INK = "#1d232b"
_GREY = "#5c6672"


def draw(listing: Listing, title: str) -> bytes:
    """The picture."""
    colours = colours_of(listing.tensors)
    files = min(len(listing.files), _MAX_FILES)
    strips_height = _STRIP * files
    height = _HEIGHT + strips_height + 100
    figure = Figure(figsize=(_WIDTH / 72 + 0.4, height / 72), dpi=110)
    FigureCanvasAgg(figure)
    treemap = figure.add_axes((0.015, (strips_height + 52) / height, 0.97, _HEIGHT / height))
    layout = figure.add_axes((0.015, 30 / height, 0.97, strips_height / height))
    _draw_titles(figure, listing, title, colours)
    _draw_treemap(treemap, listing, colours)
    _draw_layout(layout, listing, colours, files)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names may have characters that no font here has.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def _draw_titles(figure: Figure, listing: Listing, title: str, colours: dict[str, str]) -> None:
    header = sum(file.header_bytes for file in listing.files)
    summary = (
        f"{count_of(len(listing.tensors), 'tensor')}, {format_bytes(listing.nbytes)}, header {format_bytes(header)}"
    )
    _text(figure, 0.015, 0.985, shortened(title, 110), fontsize=11, weight="bold", va="top")
    _text(figure, 0.015, 0.953, summary, fontsize=8.5, color=_GREY, va="top")
    handles = [Rectangle((0, 0), 1, 1, color=colour, label=kind) for kind, colour in colours.items()]
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(0.985, 0.995),
        ncols=6,
        frameon=False,
        fontsize=8,
        handlelength=1,
        handleheight=1,
        columnspacing=1.2,
    )


def _draw_treemap(axes: Axes, listing: Listing, colours: dict[str, str]) -> None:
    axes.set(xlim=(0, _WIDTH), ylim=(_HEIGHT, 0))
    axes.axis("off")
    root = boxes(listing.tensors, "", _MAX_BOXES, _MIN_SHARE)
    _draw_children(axes, root, (0, 0, _WIDTH, _HEIGHT), colours)


def _draw_children(axes: Axes, box: Box, area: tuple[float, float, float, float], colours: dict[str, str]) -> None:
    """Into an area (left, top, width, height); largest first, as squarify wants them."""
    left, top, width, height = area
    children = sorted((child for child in box.children if child.nbytes > 0), key=lambda child: -child.nbytes)
    if not children or width <= 0 or height <= 0:
        return
    sizes = squarify.normalize_sizes([child.nbytes for child in children], width, height)
    for position, (child, place) in enumerate(
        zip(children, squarify.squarify(sizes, left, top, width, height), strict=True)
    ):
        area = place["x"], place["y"], place["dx"], place["dy"]
        opened = bool(child.children) and min(area[2], area[3]) > 2 * _TITLE
        shade = _FRAME if opened else 0.12 * (position % 2)
        axes.add_patch(
            Rectangle(area[:2], *area[2:], facecolor=lighter(colours[child.dtype], shade), edgecolor="white", lw=0.7)
        )
        if opened:
            _label(axes, [child.label], area, _INK, least=5)
            inner = area[0] + _PAD, area[1] + _TITLE, area[2] - 2 * _PAD, area[3] - _TITLE - _PAD
            _draw_children(axes, child, inner, colours)
        else:
            _label(axes, _details(child), area, "white", least=8)


def _details(box: Box) -> list[str]:
    if len(box.tensors) == 1:
        tensor = box.tensors[0]
        return [box.label, f"{tensor.dtype} {format_shape(tensor.shape)}", format_bytes(tensor.nbytes)]
    return [box.label, count_of(len(box.tensors), "tensor"), format_bytes(box.nbytes)]


def _label(axes: Axes, lines: list[str], area: tuple[float, float, float, float], colour: str, least: int) -> None:
    """As many lines as there is room for; of the first at least ``least`` characters, or none at all."""
    left, top, width, height = area
    room = int((width - 4) / (_FONT * _CHARACTER))
    rows = int((height - 2) / (_FONT * 1.25))
    if rows < 1 or room < min(least, len(lines[0])):
        return
    first = lines[0] if len(lines[0]) <= room else f"{lines[0][: room - 1]}…"
    shown = [first, *(line for line in lines[1:] if len(line) <= room)][:rows]
    _text(axes, left + 2.5, top + 2, "\n".join(shown), fontsize=_FONT, color=colour, va="top", linespacing=1.15)


def _draw_layout(axes: Axes, listing: Listing, colours: dict[str, str], files: int) -> None:
    longest = max(file.nbytes for file in listing.files)
    for row, segments in enumerate(strips(listing, _MAX_SEGMENTS)[:files]):
        for position, segment in enumerate(segments):
            colour = lighter(colours[segment.kind], 0.22 * (position % 2))
            axes.add_patch(Rectangle((segment.begin, row + 0.08), segment.nbytes, 0.84, facecolor=colour, lw=0))
    axes.set(xlim=(0, longest), ylim=(files, 0), yticks=[])
    axes.spines[["top", "left", "right", "bottom"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: format_bytes(value))
    axes.tick_params(axis="x", labelsize=7, length=2, colors=_GREY)
    hidden = len(listing.files) - files
    where = "file" if len(listing.files) == 1 else f"files{f'; {hidden} more are not shown' if hidden else ''}"
    _text(
        axes,
        0.5,
        1.0,
        f"place in the {where}",
        fontsize=7.5,
        color=_GREY,
        transform=axes.transAxes,
        va="bottom",
        ha="center",
    )


def _text(parent: Any, x: float, y: float, text: str, **style: Any) -> None:
    parent.text(x, y, text, parse_math=False, **style)
