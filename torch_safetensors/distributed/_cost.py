"""How long each way to load a checkpoint takes; docs/distributed-costs.md explains and checks it."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

__all__ = ["PLANNING", "Choice", "Hardware", "Strategy", "Work", "block_of", "choose", "seconds", "work_of"]

Strategy = Literal["independent", "broadcast", "everything"]

#: Of a round of "broadcast" each rank reads a block of at most so many bytes...
_BLOCK = 16 << 20
#: ...and receives no more than so many from all.
_ROUND = 256 << 20
#: Seconds that a rank's own work on a tensor takes: to find its part of it, and to make a DTensor.
PLANNING = 7e-5
#: What Hardware takes from the environment, as TORCH_SAFETENSORS_ and the field's name in capitals.
PREFIX = "TORCH_SAFETENSORS_"


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What bytes travel through. The defaults are those of a file server and a network of 10 Gbit/s."""

    #: Bytes a second that the storage gives to all ranks together.
    storage_bandwidth: float = 2e9
    #: Bytes a second that one rank can get from the storage.
    client_bandwidth: float = 2e9
    #: Seconds until the storage answers a request.
    storage_latency: float = 1e-3
    #: Requests a second that it answers to all ranks together.
    storage_requests: float = 1e5
    #: Bytes a second that a rank gets from, and at the same time gives to, other ranks.
    network_bandwidth: float = 1e9
    #: Seconds that a message takes, however short.
    network_latency: float = 5e-5
    #: Requests of one rank that the storage works on at a time.
    requests_in_flight: float = 8

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name.endswith("latency") else math.ulp(0)
            if not least <= value < math.inf:
                raise ValueError(f"{field.name} is {value}, not a {'finite' if least == 0 else 'positive'} number")

    @classmethod
    def from_environment(cls) -> Hardware:
        """The defaults, but for what variables as TORCH_SAFETENSORS_STORAGE_BANDWIDTH say. Raises ValueError."""
        given = {}
        for field in dataclasses.fields(cls):
            variable = PREFIX + field.name.upper()
            if (text := os.environ.get(variable)) is None:
                continue
            try:
                given[field.name] = float(text)
                cls(**{field.name: given[field.name]})
            except ValueError as error:
                raise ValueError(f"{variable} is {text!r}, which is no number of bytes or seconds: {error}") from None
        return cls(**given)


@dataclasses.dataclass(frozen=True)
class Work:
    """What the ranks of a group need of a checkpoint. Sizes are in bytes."""

    ranks: int
    #: The sum of what each rank needs.
    own: int
    #: What at least one rank needs, counted once.
    unique: int
    #: What at least two ranks need, counted once, by how many of them pass a part of it on among each other.
    shared: Mapping[int, int]
    #: What the rank that needs most does; own / ranks if not given.
    largest: int | None = None
    #: The data of the whole checkpoint; unique if not given.
    whole: int | None = None
    #: Separate ranges that the rank with most of them reads.
    requests: int = 1
    header: int = 0
    tensors: int = 0
    #: Machines with a page cache of their own; ranks if not given.
    hosts: int | None = None

    @property
    def of_several(self) -> int:
        """What at least two ranks need, counted once."""
        return sum(self.shared.values())

    @property
    def of_one_rank(self) -> float:
        return self.own / self.ranks if self.largest is None else self.largest

    @property
    def of_checkpoint(self) -> int:
        return self.unique if self.whole is None else self.whole

    def from_storage(self, strategy: Strategy) -> int:
        """Bytes of tensors that leave the storage. What a host has read it does not read again."""
        hosts = self.ranks if self.hosts is None else self.hosts
        if strategy == "everything":
            return self.of_checkpoint * hosts
        return min(self.own, self.unique * hosts) if strategy == "independent" else self.unique


def work_of(owns: Sequence[int], unique: int, shared: Mapping[int, int], tensors: int, hosts: int) -> Work:
    """Of ranks that need so many bytes each, and as many tensors."""
    return Work(
        ranks=len(owns),
        own=sum(owns),
        unique=unique,
        shared=shared,
        largest=max(owns),
        requests=max(tensors, 1),
        tensors=tensors,
        hosts=hosts,
    )


class Choice(NamedTuple):
    strategy: Literal["independent", "broadcast"]
    #: For the log: which it is, what it and the other are expected to take, and what from.
    reason: str


def block_of(ranks: int) -> int:
    """Bytes that each rank reads of a round of "broadcast"."""
    return min(_BLOCK, _ROUND // ranks)


def seconds(strategy: Strategy, work: Work, hardware: Hardware, block: int | None = None) -> float:
    """Until the last rank has its tensors.

    All ranks read the header at the same time and plan. Then with "independent" each rank reads what it needs, and
    with "everything" the whole checkpoint. With "broadcast" each rank reads what it alone needs, then the group what
    several need, in rounds: those who hold the same part among each other.
    """
    ranks = work.ranks
    opening = 2 * hardware.storage_latency + _reading(hardware, ranks, work.header * ranks, work.header, 2)
    opening += work.tensors * PLANNING
    stored = work.from_storage(strategy)
    if strategy == "everything":
        return opening + _reading(hardware, ranks, stored, work.of_checkpoint, 1)
    if strategy == "independent":
        return opening + _reading(hardware, ranks, stored, work.of_one_rank, work.requests)
    alone = work.unique - work.of_several
    # The rank that needs most is taken to be the one that needs most alone.
    of_one = min(alone, work.of_one_rank)
    reading = _reading(hardware, ranks, alone, of_one, work.requests) if alone else 0.0
    rounds = sum(
        _rounds(ranks, among, shared, hardware, block or block_of(among)) for among, shared in work.shared.items()
    )
    return opening + reading + rounds


def _reading(hardware: Hardware, ranks: int, of_all: float, of_one: float, requests: float) -> float:
    """The longest of what bandwidths and numbers of requests, of the storage and of one rank, make it take."""
    return max(
        of_all / hardware.storage_bandwidth,
        of_one / hardware.client_bandwidth,
        requests * ranks / hardware.storage_requests,
        math.ceil(requests / hardware.requests_in_flight) * hardware.storage_latency,
    )


def _rounds(ranks: int, among: int, shared: int, hardware: Hardware, block: int) -> float:
    """While a round's blocks go around the rings of so many ranks, the next round's are read."""
    if shared == 0:
        return 0.0
    block = min(block, math.ceil(shared / ranks))
    rounds = shared / (ranks * block)
    read = _reading(hardware, ranks, ranks * block, block, 1)
    others = among - 1
    gather = others * (block / hardware.network_bandwidth + hardware.network_latency)
    return read + (rounds - 1) * max(read, gather) + gather


def choose(work: Work, hardware: Hardware) -> Choice:
    """The quicker of "independent" and "broadcast"; the former where they are equal."""
    independent = seconds("independent", work, hardware)
    broadcast = seconds("broadcast", work, hardware)
    if work.of_several == 0 or work.ranks == 1:
        return Choice("independent", f"independent: no two of {work.ranks} ranks need the same bytes")
    each = f"independent reads {_size(work.from_storage('independent'))} in {independent:.3g} s"
    once = f"broadcast {_size(work.unique)} in {broadcast:.3g} s"
    means = (
        f"expected of {work.ranks} ranks with {_size(hardware.storage_bandwidth)}/s of storage together, "
        f"{_size(hardware.client_bandwidth)}/s each, and {_size(hardware.network_bandwidth)}/s of network each"
    )
    if broadcast < independent:
        return Choice("broadcast", f"broadcast: {once}, {each}, {means}")
    return Choice("independent", f"independent: {each}, {once}, {means}")


def _size(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"
