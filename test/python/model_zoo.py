"""Models for the tests of load_model and save_model, and what these compare."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn


class Tied(nn.Module):
    """A language model in small: the decoder's weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.decoder = nn.Linear(4, 6)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.embedding(tokens))


class Deep(nn.Module):
    """A tie across submodules, a module under two names, and buffers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.right = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(4, 4, bias=False), nn.Conv1d(4, 2, 3))})
        self.right["inner"][0].weight = self.left[0].weight
        self.again = self.right["inner"][1]
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("scratch", torch.rand(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x)


class Tensors(nn.Module):
    """Has just these: parameters as parameters, other tensors as buffers."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of the tensor's elements."""
    dense = tensor.detach().resolve_conj().clone(memory_format=torch.contiguous_format)
    return bytes(dense.reshape(-1).view(torch.uint8).tolist()) if dense.numel() else b""


def all_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, those that are not persistent included."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return dict(named)


def bits(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """What may not change where a load is refused: which tensors a model holds, their form and their bytes."""
    return {
        name: (id(tensor), tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), raw(tensor))
        for name, tensor in all_tensors(model).items()
    }


def versions(model: nn.Module) -> dict[str, int]:
    """How often each tensor was written to, as autograd counts."""
    return {name: tensor._version for name, tensor in all_tensors(model).items()}


def refill(model: nn.Module, value: int = 1) -> nn.Module:
    """Makes the values of a model others than those of any other model of these tests."""
    with torch.no_grad():
        for tensor in all_tensors(model).values():
            tensor.fill_(value)
    return model


def same_values(model: nn.Module, other: nn.Module) -> bool:
    """True if the state dicts agree bit by bit."""
    left, right = model.state_dict(), other.state_dict()
    return list(left) == list(right) and all(raw(left[name]) == raw(right[name]) for name in left)


def split(path: Path) -> tuple[dict[str, str] | None, str, bytes]:
    """Of a file: its metadata, the rest of the header in its order, and the data."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return header.pop("__metadata__", None), json.dumps(header), content[end:]


def same_file(path: Path, reference: Path) -> bool:
    """True if two files are equal; the reference shuffles metadata of more than one key."""
    if len(split(reference)[0] or {}) < 2:
        return path.read_bytes() == reference.read_bytes()
    return split(path) == split(reference) and path.stat().st_size == reference.stat().st_size
