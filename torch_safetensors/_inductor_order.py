"""The order of the operators in code that Inductor compiles."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from . import _torch_private
from ._import_hook import after_import

__all__ = ["keep_order_in_inductor"]

#: Where a graph being compiled has the last of the operators that are kept in order.
_LAST = "_torch_safetensors_last_operation"


def keep_order_in_inductor(operators: Sequence[Any]) -> Callable[[], None]:
    """Makes Inductor run these operators in the order of the program.

    torch 2.11 to 2.14 note the order of operators with effects under the names of buffers and look it up by those of
    operations, so that it is lost: with ``reorder_for_peak_memory``, which is on, a save was moved in front of a load
    of the same file. torch 2.15 keeps it. In all of them an operator that mutates its argument, as ``load_into``, can
    have no effect in torch's sense, and has no place in that order.

    So these operators get lowerings of their own, which add what is missing where every one of these releases looks
    for it. Nothing changes for other operators.

    Returns:
        What to call while a graph with these operators is traced: it makes up for an import that went unnoticed.
    """

    def install(lowering: ModuleType) -> None:
        graph: Any = importlib.import_module("torch._inductor.virtualized").V
        for operator in operators:
            fall_back = lowering.fallback_handler(operator)
            lowering.lowerings[operator] = functools.partial(_lower, graph, operator, fall_back)

    return after_import("torch._inductor.lowering", install, "Inductor may move loads and saves of compiled code")


def _lower(virtualized: Any, operator: Any, fall_back: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    graph, ordered = virtualized.graph, _torch_private.EffectType.ORDERED
    try:
        effectful, dependencies = graph.effectful_ops, graph.additional_buffer_deps
    except AttributeError as error:
        raise RuntimeError(
            f"{operator} cannot be compiled by Inductor of torch {torch.__version__}, which could move it past other "
            f'loads and saves ({error}): use torch.compile(..., backend="aot_eager")'
        ) from None
    # Of others, too: they may stand between two of these, and torch's note of that may be lost.
    before = [last.get_name() for last in (effectful.get(ordered), getattr(graph, _LAST, None)) if last is not None]
    count = len(graph.operations)
    result = fall_back(*args, **kwargs)
    operations = graph.operations[count:]
    for operation in operations:
        dependencies[operation.get_operation_name()].update(before)
    setattr(graph, _LAST, operations[-1])
    if operator._schema.is_mutable:
        effectful[ordered] = operations[-1]  # as torch itself does for operators with effects
    return result
