"""All cases by name, in the order in which they run. To add one: a class in a module of its kind, a line in its CASES.

A name can carry arguments after colons, as ``scale-load:1000`` does.
"""

from __future__ import annotations

from ..case import Case
from ..settings import Settings
from . import buffers, cold, devices, load, models, process, save, scale, slow, transformers

_MODULES = load, slow, cold, buffers, save, models, process, transformers
CASES = {name: make for module in _MODULES for name, make in module.CASES.items()}
#: Not part of a plain run.
SPECIAL = {**scale.CASES, **devices.CASES}


def make_case(name: str, settings: Settings) -> Case:
    base, *arguments = name.split(":")
    case = (CASES | SPECIAL)[base](settings, *arguments)
    case.name = name
    return case
