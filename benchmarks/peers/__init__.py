"""The packages that take part, each in a module of its own. To add one: a class derived from Peer, and a line here."""

from .base import Peer
from .fastsafetensors import FastSafetensors
from .instanttensor import InstantTensor
from .limit import Limit
from .ours import Ours, OursMmap, OursPread, OursPrefetch
from .reference import Candidate, CandidatePrefetch, Reference, ReferencePread
from .runai import RunaiStreamer
from .torch_pickle import TorchMmap, TorchPickle

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        Ours,
        OursMmap,
        OursPread,
        OursPrefetch,
        Reference,
        ReferencePread,
        Candidate,
        CandidatePrefetch,
        TorchPickle,
        TorchMmap,
        FastSafetensors,
        RunaiStreamer,
        InstantTensor,
        Limit,
    )
}
