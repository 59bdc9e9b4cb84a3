"""The picture as a page: to zoom into, and to point at. It has all it needs in it, and loads nothing."""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Iterator
from typing import Any

from plotly import graph_objects
from plotly.io import to_html

from .._listing import Listing
from .._text import count_of, format_bytes, format_shape, shortened
from ._boxes import Box, boxes
from ._colours import colours_of, lighter
from ._strips import HEADER, Segment, strips

__all__ = ["draw"]

_MAX_BOXES = 5000
_MIN_SHARE = 1 / 2000
_MAX_SEGMENTS = 1500
#: Of longer ones the middle is left out where they are not pointed at.
_MAX_LABEL = 40
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
#: A module that is open has the colour of its dtype, but for so much white.
_FRAME = 0.85
#: Where there are no tensors at all.
_NONE = "#888888"
_INK = "#1d232b"

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 1800px; padding: 20px 24px; font: 14px {font}; color: {ink}; background: #fff; }}
h1 {{ font-size: 20px; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 14px; margin: 18px 0 4px; }}
h2 small {{ font-weight: normal; color: #5c6672; }}
p {{ margin: 4px 0 0; color: #5c6672; }}
.dtype {{ display: inline-block; margin-right: 16px; color: {ink}; }}
.dtype i {{ display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
<p>{dtypes}</p>
<h2>By module <small>click to open a module, the bar above to leave it</small></h2>
{treemap}
<h2>By place in the file <small>drag to zoom, double-click to see all</small></h2>
{layout}
</body>
</html>
"""


def draw(listing: Listing, title: str) -> bytes:
    """The page."""
    colours = colours_of(listing.tensors)
    header = sum(file.header_bytes for file in listing.files)
    page = _PAGE.format(
        title=html.escape(title),
        font=_FONT,
        ink=_INK,
        summary=f"{count_of(len(listing.tensors), 'tensor')}, {format_bytes(listing.nbytes)} in "
        f"{count_of(len(listing.files), 'file')}, header {format_bytes(header)}",
        dtypes=_legend(listing, colours),
        treemap=_div(_treemap(listing, colours), with_library=True),
        layout=_div(_layout(listing, colours), with_library=False),
    )
    return page.encode("utf-8", "backslashreplace")


def _legend(listing: Listing, colours: dict[str, str]) -> str:
    sizes = dict.fromkeys(colours, 0)
    for tensor in listing.tensors:
        sizes[tensor.dtype] += tensor.nbytes
    return "".join(
        f'<span class="dtype"><i style="background:{colour}"></i>{dtype} {format_bytes(sizes[dtype])}</span>'
        for dtype, colour in colours.items()
        if dtype != HEADER
    )


def _div(figure: graph_objects.Figure, *, with_library: bool) -> str:
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    text: str = to_html(figure, config=config, full_html=False, include_plotlyjs=with_library)
    return text


def _treemap(listing: Listing, colours: dict[str, str]) -> graph_objects.Figure:
    root = boxes(listing.tensors, "all tensors", _MAX_BOXES, _MIN_SHARE)
    keys = ("ids", "parents", "labels", "values", "text", "customdata", "colours", "inks")
    columns: dict[str, list[Any]] = {key: [] for key in keys}
    for identity, parent, shade, box in _walk(root):
        colour = lighter(colours.get(box.dtype, _NONE), _FRAME if box.children else shade)
        columns["ids"].append(identity)
        columns["parents"].append(parent)
        columns["labels"].append(html.escape(box.label))
        columns["values"].append(box.nbytes)
        columns["text"].append(html.escape(shortened(box.label, _MAX_LABEL)))
        columns["customdata"].append(_details(box))
        columns["colours"].append(colour)
        columns["inks"].append(_INK if box.children else "#fff")
    trace = graph_objects.Treemap(
        textfont={"color": columns.pop("inks")},
        branchvalues="total",
        sort=True,
        marker={
            "colors": columns.pop("colours"),
            "line": {"color": "#fff", "width": 1},
            "pad": {"t": 18, "l": 3, "r": 3, "b": 3},
        },
        texttemplate="<b>%{text}</b><br>%{customdata}",
        hovertemplate="<b>%{label}</b><br>%{customdata}<br>%{percentRoot:.2%} of all<extra></extra>",
        pathbar={"thickness": 24},
        tiling={"packing": "squarify", "squarifyratio": 1.4, "pad": 1},
        **columns,
    )
    figure = _figure([trace], 640)
    figure.update_layout(uniformtext={"minsize": 10, "mode": "hide"})
    return figure


def _walk(root: Box) -> Iterator[tuple[str, str, float, Box]]:
    """Each box with an identity, its parent's, and a shade in which it differs from its neighbours."""
    waiting = deque([("0", "", 0.0, root)])
    count = 1
    while waiting:
        identity, parent, shade, box = waiting.popleft()
        yield identity, parent, shade, box
        for position, child in enumerate(box.children):
            waiting.append((str(count), identity, 0.12 * (position % 2), child))
            count += 1


def _details(box: Box) -> str:
    if len(box.tensors) == 1:
        tensor = box.tensors[0]
        return f"{tensor.dtype} {format_shape(tensor.shape)}<br>{format_bytes(tensor.nbytes)}"
    return f"{count_of(len(box.tensors), 'tensor')}<br>{format_bytes(box.nbytes)}"


def _layout(listing: Listing, colours: dict[str, str]) -> graph_objects.Figure:
    """A strip for each file."""
    files = strips(listing, _MAX_SEGMENTS)
    figure = _figure([_bars(files, kind, colour) for kind, colour in colours.items()], 110 + 34 * len(files))
    longest = max(file.nbytes for file in listing.files)
    figure.update_layout(barmode="overlay", bargap=0.25, showlegend=False, hovermode="closest", dragmode="zoom")
    figure.update_layout(margin={"l": 12, "r": 12})
    title = "bytes from the beginning of the file"
    figure.update_xaxes(range=[0, longest], title=title, tickformat="~s", ticksuffix="B", showgrid=False)
    names = [html.escape(file.path.rpartition("/")[2]) for file in listing.files]
    figure.update_yaxes(tickvals=list(range(len(files))), ticktext=names, visible=len(files) > 1, showgrid=False)
    figure.update_yaxes(range=[len(files) - 0.5, -0.5], fixedrange=True, automargin=True, zeroline=False)
    return figure


def _bars(files: list[list[Segment]], kind: str, colour: str) -> graph_objects.Bar:
    """All segments of one kind, in two shades in turn."""
    here = [
        (row, lighter(colour, 0.22 * (position % 2)), segment)
        for row, segments in enumerate(files)
        for position, segment in enumerate(segments)
        if segment.kind == kind
    ]
    return graph_objects.Bar(
        orientation="h",
        y=[row for row, _, _ in here],
        base=[segment.begin for _, _, segment in here],
        x=[segment.nbytes for _, _, segment in here],
        customdata=[_segment_details(segment) for _, _, segment in here],
        marker={"color": [shade for _, shade, _ in here], "line": {"width": 0}},
        hovertemplate="%{customdata}<extra></extra>",
    )


def _segment_details(segment: Segment) -> str:
    place = f"[{segment.begin:,}, {segment.begin + segment.nbytes:,})"
    return f"<b>{html.escape(segment.label)}</b><br>{segment.kind}, {format_bytes(segment.nbytes)}<br>{place}"


def _figure(traces: list[Any], height: int) -> graph_objects.Figure:
    figure = graph_objects.Figure(traces)
    figure.update_layout(
        height=height,
        margin={"l": 0, "r": 0, "t": 4, "b": 4},
        font={"family": _FONT, "color": _INK},
        template="plotly_white",
        hoverlabel={"font": {"family": _FONT}},
    )
    return figure
