"""A real model through transformers, with each package in the place that the reference has there."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..case import Action, CannotRunError, Case
from ..content import WrongError
from ..peers.base import Peer

if TYPE_CHECKING:
    from torch import nn


class Bert(Case):
    what = "transformers' BertModel.from_pretrained, 90 MB (scripts/fetch_model.py)"
    verb = "patch_transformers"
    memory = False

    def surroundings(self) -> contextlib.AbstractContextManager[Any]:
        if importlib.util.find_spec("transformers") is None:
            raise CannotRunError("transformers is missing")
        if not (self.settings.model / "model.safetensors").exists():
            raise CannotRunError(f"no model in {self.settings.model}: scripts/fetch_model.py")
        return contextlib.nullcontext()

    def prepare(self, peer: Peer) -> Action:
        os.environ["HF_HUB_OFFLINE"] = "1"
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        getattr(peer, self.verb)()
        return lambda: transformers.BertModel.from_pretrained(self.settings.model)

    def check(self, result: nn.Module) -> None:
        """Compares every parameter with the bytes that the file has under its name."""
        import torch

        data = (self.settings.model / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        for name, parameter in result.named_parameters():
            begin, end = header[name]["data_offsets"]
            raw = parameter.detach().contiguous().view(-1).view(torch.uint8).numpy()
            if raw.tobytes() != data[8 + size + begin : 8 + size + end]:
                raise WrongError(f"parameter {name!r} is wrong")


CASES: dict[str, Callable[..., Case]] = {"bert": Bert}
