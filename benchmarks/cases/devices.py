"""Loading to an accelerator, or to whatever device a run is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import contents
from ..case import Action, Case
from ..content import WrongError
from ..peers.base import Peer, Tensors
from ..raw import Raw
from ..settings import Settings
from .cold import drop_from_cache
from .load import LoadCase, read_every_byte

BLOCK = 64 << 20


def wait_for(device: str) -> None:
    """Until everything that was started there is done."""
    import torch

    torch.cuda.synchronize(device)


class DeviceWarm(LoadCase):
    """``device-warm:COUNT:GIGABYTES``."""

    what = "all tensors of a file to the device (limit: pinned, asynchronous copies of 64 MB)"
    verb = "load_to"
    variants = True
    memory = False

    def __init__(self, settings: Settings, count: str, gigabytes: str) -> None:
        super().__init__(settings, contents.on_device(settings, int(count), float(gigabytes)))
        self.device = settings.device
        self.on_gpu = settings.device.startswith("cuda")

    def prepare(self, peer: Peer) -> Action:
        load: Callable[..., Tensors] = getattr(peer, self.verb)
        path = peer.own_file(self.path, self.content)

        def action() -> Tensors:
            tensors = load(path, self.device)
            if self.on_gpu:
                wait_for(self.device)
            else:  # there, a lazy mapping has not moved anything yet
                read_every_byte(tensors.values())
            return tensors

        return action

    def before(self) -> None:
        """Every run starts with a device that holds nothing, as the first load of a program does."""
        import torch

        if self.on_gpu:
            torch.cuda.empty_cache()

    def limit(self, raw: Raw) -> Action:
        del raw
        import torch

        block = min(BLOCK, self.content.nbytes)
        source = torch.ones(block, dtype=torch.uint8, pin_memory=self.on_gpu)
        target = torch.empty(block, dtype=torch.uint8, device=self.device)

        def action() -> None:
            for _ in range(self.content.nbytes // block):
                target.copy_(source, non_blocking=True)
            if self.on_gpu:
                wait_for(self.device)

        return action

    def check(self, result: Any) -> None:
        import torch

        wanted = torch.device(self.device).type
        if any(tensor.device.type != wanted for tensor in result.values()):
            raise WrongError(f"not every tensor is on {self.device}")
        super().check(result)


class DeviceCold(DeviceWarm):
    what = "the same, the file out of the page cache (limit: as before)"

    def prepare(self, peer: Peer) -> Action:
        self.path = peer.own_file(self.path, self.content)
        return super().prepare(peer)

    def before(self) -> None:
        super().before()
        drop_from_cache(self.path)


CASES: dict[str, Callable[..., Case]] = {"device-warm": DeviceWarm, "device-cold": DeviceCold}
