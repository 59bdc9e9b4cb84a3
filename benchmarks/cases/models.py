"""Whole models: 1,000 parameters, some of which have two names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import contents
from ..case import Action, Case
from ..content import Content, WrongError
from ..peers.base import Peer
from ..raw import Memory, Raw
from ..settings import Settings
from .save import SaveCase

if TYPE_CHECKING:
    from torch import nn


def build_model(content: Content) -> nn.Module:
    """A tree of modules with these parameters; metadata names second names, which are ties."""
    from torch import nn

    root = nn.Module()
    parameters = {name: nn.Parameter(tensor) for name, tensor in content.tensors().items()}
    second_names = content.metadata or {}
    for name, first in {**{name: name for name in parameters}, **second_names}.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, parameters[first])
    return root


class ModelIn(Case):
    verb = "load_model"

    def __init__(self, settings: Settings, content: Content) -> None:
        super().__init__(settings)
        self.content = content
        self.path = settings.disk / f"{content.name}.safetensors"

    def files(self) -> list[tuple[Path, Content]]:
        return [(self.path, self.content)]

    @property
    def resident(self) -> int:
        return self.content.nbytes

    def prepare(self, peer: Peer) -> Action:
        load: Callable[[Any, Path], None] = getattr(peer, self.verb)
        path = peer.own_file(self.path, self.content)
        self._model = build_model(self.content)
        for parameter in self._model.parameters():
            parameter.data.zero_()
        return lambda: load(self._model, path)

    def limit(self, raw: Raw) -> Action:
        memory = Memory.warm(self.path.stat().st_size)
        return lambda: raw.read(self.path, memory)

    def check(self, result: Any) -> None:
        del result
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        for second, first in (self.content.metadata or {}).items():
            if parameters.pop(second) is not parameters[first]:
                raise WrongError(f"{second!r} is no longer tied to {first!r}")
        self.content.check(parameters)


class ModelOut(SaveCase):
    verb = "save_model"

    def _tensors(self) -> nn.Module:
        return build_model(self.content)


class ModelIn1MB(ModelIn):
    what = "load_model, 1,000 parameters and 50 ties, 1 MB"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.tied_model(settings, 1))


class ModelIn257MB(ModelIn):
    what = "load_model, 1,000 parameters and 50 ties, 257 MB"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.tied_model(settings, 251))


class ModelOut1MB(ModelOut):
    what = "save_model, 1,000 parameters and 50 ties, 1 MB"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.tied_model(settings, 1))


class ModelOut257MB(ModelOut):
    what = "save_model, 1,000 parameters and 50 ties, 257 MB"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, contents.tied_model(settings, 251))


CASES: dict[str, Callable[..., Case]] = {
    "model-in-1MB": ModelIn1MB,
    "model-in-257MB": ModelIn257MB,
    "model-out-1MB": ModelOut1MB,
    "model-out-257MB": ModelOut257MB,
}
