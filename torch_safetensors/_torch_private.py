"""The private parts of torch that graphs need, and nothing else that is private.

Tried with the releases in :data:`TRIED_WITH`; a test compares that with the torch at hand.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import torch

from ._import_hook import after_import

#: What this release of torch lacks for operators in graphs, in one line; None where it has everything.
missing_for_graphs: str | None = None
try:
    from torch._guards import TracingContext
    from torch._higher_order_ops.effects import _register_effectful_op
    from torch._library.effects import EffectType as EffectType
    from torch._subclasses.fake_tensor import DynamicOutputShapeException, UnsupportedFakeTensorException
    from torch._subclasses.functional_tensor import FunctionalTensorMode
    from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode, get_proxy_mode
    from torch.utils._python_dispatch import _disable_current_modes
except ImportError as error:
    missing_for_graphs = f"torch {torch.__version__} lacks what operators need in graphs: {error}"
    _DEPENDS_ON_DATA: tuple[type[RuntimeError], ...] = (RuntimeError,)
else:
    # The second is what modes pass over that compare real tensors with fake ones, such as CrossRefFakeMode.
    _DEPENDS_ON_DATA = DynamicOutputShapeException, UnsupportedFakeTensorException

#: Releases of torch that the Python tests passed with.
TRIED_WITH = ("2.11", "2.13", "2.15")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def register_ordered_effect(operator: str) -> None:
    """Keeps graphs from dropping, merging or reordering calls of an operator."""
    _register_effectful_op(operator, EffectType.ORDERED)


def constant_while_compiling(function: _Function) -> _Function:
    """``torch._dynamo.assume_constant_result``, without the import of Dynamo, which takes seconds."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def outside_of_graphs(reason: str) -> Callable[[_Function], _Function]:
    """``torch.compiler.disable``, without the import of Dynamo: compiled code leaves the graph for the call.

    A full graph is refused, and so is export, for the reason.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() and in_tracing_mode():  # and not just some other thread
                raise RuntimeError(reason)
            # Without the attribute while another thread imports it.
            disable = getattr(sys.modules.get("torch._dynamo"), "disable", None)
            return (function if disable is None else disable(function))(*args, **kwargs)

        marked: Any = call
        marked._torchdynamo_disable = True
        marked._torchdynamo_disable_msg = reason
        return marked  # type: ignore[no-any-return]

    return decorate


class DependsOnData(*_DEPENDS_ON_DATA):  # type: ignore[misc]
    """From a fake kernel: compiled code leaves the graph for the call, and a full graph is refused."""

    def __init__(self, operator: Any, message: str) -> None:
        super().__init__(operator)
        self.reason = self._message = message

    def __str__(self) -> str:
        return self._message


@contextlib.contextmanager
def outside_of_modes() -> Iterator[None]:
    """Operators that are called within run for real, also while something is traced."""
    with _disable_current_modes():
        yield


def in_tracing_mode() -> bool:
    """True where this thread's operators are traced or faked: by make_fx, export, AOTAutograd, or FakeTensorMode.

    Other modes (FlopCounterMode, DebugMode, a user's own) watch what really runs.
    """
    # What export traces before dispatch has modes of its own, which torch keeps for all threads together; the key is
    # this thread's.
    if any(map(_is_included, _BEFORE_DISPATCH)):
        return True
    return _count_modes() > 0 and any(_get_mode(key) is not None for key in _TRACING_MODES)


def _members(enumeration: str, *names: str) -> list[Any]:
    """Those of them that this release has."""
    keys = getattr(torch._C, enumeration, None)
    return [getattr(keys, name) for name in names if hasattr(keys, name)]


# On a release without one of these nothing looks traced, and the operators' fake kernels refuse.
_count_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_get_mode: Callable[..., Any] = getattr(torch._C, "_get_dispatch_mode", lambda _: None)
_is_included: Callable[..., Any] = getattr(torch._C, "_dispatch_tls_is_dispatch_key_included", lambda _: False)
_TRACING_MODES = _members("_TorchDispatchModeKey", "FAKE", "PROXY", "FUNCTIONAL")
_BEFORE_DISPATCH = _members("DispatchKey", "PreDispatch")


def register_tracing_rule(operator: str, rule: Callable[..., Any]) -> None:
    """Has ``rule(trace, *args, **kwargs)`` decide what tracing an operator gives.

    ``trace(*args, **kwargs)`` puts the operator into the graph. Export before dispatch (not strict) asks no rules.
    """

    def apply(mode: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def trace(*args: Any, **kwargs: Any) -> Any:
            return mode.__torch_dispatch__(func, types, args, kwargs)

        return rule(trace, *args, **(kwargs or {}))

    for mode in FunctionalTensorMode, ProxyTorchDispatchMode:
        torch.library.register_torch_dispatch(operator, mode, apply)


def is_recorded() -> bool:
    """True where ``make_fx`` records what is called."""
    return get_proxy_mode() is not None


def is_being_traced() -> bool:
    """True inside of fake kernels whose results end up in a graph."""
    return torch.compiler.is_compiling() or TracingContext.try_get() is not None


def inline_in_dynamo(functions: Mapping[Any, Callable[..., Any]]) -> None:
    """Has Dynamo trace a Python function in place of each operator, as soon as Dynamo is imported."""

    def install(_dynamo: ModuleType) -> None:
        module = importlib.import_module("torch._dynamo.variables.torch")
        handlers = module.TorchInGraphFunctionVariable._get_handlers()
        for operator, function in functions.items():
            handlers[operator] = _handler(module, function)

    # The operators' fake kernels then refuse to be traced unchecked.
    after_import("torch._dynamo", install, "torch.ops.safetensors.* cannot be compiled; use torch_safetensors.*")


def _handler(module: ModuleType, function: Callable[..., Any]) -> Callable[..., Any]:
    def handle(self: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
        expect = kwargs.get("expect")
        if expect is not None and not expect.is_constant_none():
            return None  # It carries its expectations already: Dynamo goes on as for any operator.
        variable = module.VariableTracker.build(tx, function)
        return tx.inline_user_function_return(variable, list(args), kwargs)

    return handle


def compile_without_weights(
    program: torch.export.ExportedProgram, options: Mapping[str, Any]
) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Compiles with AOTInductor. Returns the files of a package, and the constants by the names it has for them.

    Constants are made contiguous first, as a file has them: the code is compiled for their strides.
    """
    module = program.module(check_guards=False)
    make_contiguous(module)
    args, kwargs = program.example_inputs
    made: Any = torch._inductor.aot_compile(
        module,
        args,
        kwargs,
        options={
            **options,
            "aot_inductor.package": True,
            "aot_inductor.package_constants_in_so": False,
            "aot_inductor.package_constants_on_disk_format": "pickle_weights",
            # Else the values of small ones become code, and other weights would change nothing.
            "always_keep_tensor_constants": True,
        },
    )
    files = [entry for entry in made if isinstance(entry, str)]
    (weights,) = (entry for entry in made if not isinstance(entry, str))
    return files, {name: tensor for name, (tensor, _) in weights.items()}


def make_contiguous(module: torch.nn.Module) -> None:
    """Replaces what is not; tied names stay tied."""
    made: dict[int, Any] = {}
    for owner in module.modules():
        for names in owner._parameters, owner._buffers, owner.__dict__:
            for name, value in list(names.items()):
                if isinstance(value, torch.Tensor) and not value.is_contiguous():
                    new = made.setdefault(id(value), value.detach().contiguous())
                    names[name] = torch.nn.Parameter(new, False) if isinstance(value, torch.nn.Parameter) else new


def write_package(path: str, files: Sequence[str]) -> None:
    """Packs the files of a model."""
    from torch._inductor.package import package_aoti  # type: ignore[attr-defined]

    package_aoti(path, list(files))


def flatten_call(spec: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors of a call, in the order in which a package takes them."""
    from torch.export._tree_utils import reorder_kwargs

    tree = torch.utils._pytree.treespec_loads(spec)
    flat = torch.utils._pytree.tree_leaves((tuple(args), reorder_kwargs(dict(kwargs), tree)))
    return [value for value in flat if isinstance(value, torch.Tensor)]


def unflatten_result(spec: str, tensors: Sequence[torch.Tensor]) -> Any:
    """What the compiled function returned."""
    return torch.utils._pytree.tree_unflatten(tensors, torch.utils._pytree.treespec_loads(spec))
