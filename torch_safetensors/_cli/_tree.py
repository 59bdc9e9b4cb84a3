"""The tensors of a checkpoint as the tree that the dots in their names make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from .._listing import Tensor
from .._text import format_shape, is_number, natural_order, printable_name
from ._grid import Cell, Column, Size
from ._totals import Total

__all__ = ["COLUMNS", "tree_rows"]

COLUMNS = (
    Column("name"),
    Column("dtype", "cyan"),
    Column("shape", "green"),
    Column("tensors", right=True),
    Column("bytes", "magenta", right=True),
)


@dataclass
class Node:
    """A module, a tensor, or both: nothing forbids `a` beside `a.b`."""

    total: Total = field(default_factory=Total)
    tensor: Tensor | None = None
    children: dict[str, Node] = field(default_factory=dict)

    def child(self, label: str) -> Node:
        """The child of that name, made where there is none."""
        return self.children.setdefault(label, Node())

    def sorted_children(self) -> list[tuple[str, Node]]:
        """By name, numbers as numbers."""
        return sorted(self.children.items(), key=lambda item: natural_order(item[0]))


def tree_rows(tensors: Sequence[Tensor], depth: int | None) -> list[list[Cell]]:
    """Rows for :data:`COLUMNS`. Numbered siblings that are alike share a row; ``depth`` levels are shown."""
    root = Node()
    for tensor in tensors:
        node = root
        node.total.add(tensor)
        for label in tensor.parts:
            node = node.child(label)
            node.total.add(tensor)
        node.tensor = tensor
    forms: dict[object, int] = {}
    return list(_rows(root, "", depth, forms))


def _form(node: Node, forms: dict[object, int]) -> int:
    """A number that nodes share which have the same tensors under the same names below them."""
    own = node.tensor and (node.tensor.dtype, node.tensor.shape)
    below = tuple((label, _form(child, forms)) for label, child in node.sorted_children())
    return forms.setdefault((own, below), len(forms))


def _rows(node: Node, indent: str, depth: int | None, forms: dict[object, int]) -> Iterator[list[Cell]]:
    if depth == 0:
        return
    groups = _groups(node, forms)
    for position, group in enumerate(groups):
        is_last = position == len(groups) - 1
        child = group[0][1]
        yield [f"{indent}{'└── ' if is_last else '├── '}{_label(group)}", *_cells(group)]
        below = None if depth is None else depth - 1
        yield from _rows(child, indent + ("    " if is_last else "│   "), below, forms)


def _groups(node: Node, forms: dict[object, int]) -> list[list[tuple[str, Node]]]:
    """The children; numbered ones that are alike and follow each other, together."""
    children = node.sorted_children()
    # Others have a key of their own, which keeps them apart.
    keys = [
        (True, _form(child, forms)) if is_number(label) else (False, position)
        for position, (label, child) in enumerate(children)
    ]
    groups = groupby(zip(keys, children, strict=True), key=lambda item: item[0])
    return [[child for _, child in group] for _, group in groups]


def _label(group: list[tuple[str, Node]]) -> str:
    first, last = printable_name(group[0][0]), printable_name(group[-1][0])
    return first if len(group) == 1 else f"{first}…{last} ({len(group)} alike, one of them:)"


def _cells(group: list[tuple[str, Node]]) -> list[Cell]:
    node = group[0][1]
    tensors = sum(child.total.tensors for _, child in group)
    nbytes = sum(child.total.nbytes for _, child in group)
    dtype, shape = (node.tensor.dtype, format_shape(node.tensor.shape)) if node.tensor else ("", "")
    return [dtype, shape, tensors if node.children or len(group) > 1 else "", Size(nbytes)]
