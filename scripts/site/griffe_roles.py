"""Docstrings refer to each other as Sphinx has it, ``:func:`load_file```; here these become links."""

from __future__ import annotations

import re

import griffe

_PACKAGE = "torch_safetensors"
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([\w.]+)`")


class SphinxRoles(griffe.Extension):
    """An extension of griffe, which reads the docstrings."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Called for everything that was read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(role[1], obj), obj.docstring.value)


def _link(name: str, obj: griffe.Object) -> str:
    """A link to where the name is documented, which fails a strict build if it is not."""
    first, *rest = name.split(".")
    try:
        path = ".".join([obj.resolve(first), *rest]) if first != _PACKAGE else name
    except griffe.NameResolutionError:  # of another module of the package
        path = f"{_PACKAGE}.{name}"
    return f"[`{name}`][{path}]"
