"""Ranks that load a checkpoint, event by event: no formula says when anything ends.

Each rank is a generator of what it waits for. The storage gives all transfers in progress an equal part of its
bandwidth, at most what a client can take, after each request has waited its turn and the latency. Ranks pass blocks on
around a ring, in steps that take as long as the slowest cable.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TypeAlias

from torch_safetensors.distributed._cost import PLANNING, Hardware, Strategy, Work, block_of

#: Called with what to call when it is over.
Wait: TypeAlias = Callable[[Callable[[], None]], None]
Steps: TypeAlias = Generator[Wait, None, None]

MOST_STEPS = 64
#: Transfers of a rank at a time, which share what one client can take.
STREAMS = 2


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._number), action))

    def run(self) -> float:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()
        return self.now

    def sleep(self, seconds: float) -> Wait:
        return lambda done: self.at(self.now + seconds, done)

    def start(self, steps: Steps, done: Callable[[], None] = lambda: None) -> None:
        def step() -> None:
            try:
                wait = next(steps)
            except StopIteration:
                done()
                return
            wait(step)

        step()

    def all_of(self, waits: Sequence[Wait]) -> Wait:
        def wait(done: Callable[[], None]) -> None:
            left = len(waits)

            def one() -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    done()

            for each in waits:
                each(one)

        return wait


class Storage:
    """Transfers share its bandwidth equally: all progress by the same number of bytes at any moment."""

    def __init__(self, clock: Clock, hardware: Hardware) -> None:
        self._clock, self._hardware = clock, hardware
        self._progress = 0.0
        self._since = 0.0
        self._ends: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._answered = 0.0
        self._plan = 0

    def read(self, nbytes: float, requests: int = 1) -> Wait:
        """``requests`` that are sent at once, and so wait for the latency at the same time."""

        def wait(done: Callable[[], None]) -> None:
            self._answered = max(self._clock.now, self._answered) + requests / self._hardware.storage_requests
            self._clock.at(self._answered + self._hardware.storage_latency, lambda: self._transfer(nbytes, done))

        return wait

    def _transfer(self, nbytes: float, done: Callable[[], None]) -> None:
        self._advance()
        heapq.heappush(self._ends, (self._progress + nbytes, next(self._number), done))
        self._schedule()

    def _rate(self) -> float:
        client = self._hardware.client_bandwidth / STREAMS
        return min(client, self._hardware.storage_bandwidth / max(len(self._ends), 1))

    def _advance(self) -> None:
        self._progress += (self._clock.now - self._since) * self._rate()
        self._since = self._clock.now

    def _schedule(self) -> None:
        self._plan += 1
        plan = self._plan
        if self._ends:
            left = max(self._ends[0][0] - self._progress, 0.0)
            self._clock.at(self._clock.now + left / self._rate(), lambda: self._finish(plan))

    def _finish(self, plan: int) -> None:
        if plan != self._plan:  # others have come since
            return
        self._advance()
        nearest = self._ends[0][0]
        self._progress = max(self._progress, nearest)
        finished = []
        while self._ends and self._ends[0][0] <= self._progress * (1 + 1e-12):
            finished.append(heapq.heappop(self._ends)[2])
        self._schedule()
        for done in finished:
            done()


class Ring:
    """Gathers the blocks of all ranks on all ranks: each passes on what came last, once per other rank."""

    def __init__(self, clock: Clock, hardware: Hardware, slowness: Sequence[float]) -> None:
        self._clock, self._hardware, self._slowness = clock, hardware, slowness
        ranks = len(slowness)
        #: Steps that are an event each; where that would be too many, several blocks travel as one.
        self._steps = ranks - 1 if ranks <= MOST_STEPS else 1
        self._waiting: list[Callable[[], None]] = []

    def gather(self, nbytes: float) -> Wait:
        """Begins when all ranks have come."""

        def wait(done: Callable[[], None]) -> None:
            self._waiting.append(done)
            if len(self._waiting) == len(self._slowness):
                waiting, self._waiting = self._waiting, []
                self._clock.start(self._around(nbytes, waiting))

        return wait

    def _around(self, nbytes: float, waiting: Sequence[Callable[[], None]]) -> Steps:
        blocks = (len(self._slowness) - 1) / self._steps if self._steps else 0
        for _ in range(self._steps):
            times = [nbytes * slowness / self._hardware.network_bandwidth for slowness in self._slowness]
            yield self._clock.sleep(blocks * (max(times) + self._hardware.network_latency))
        for done in waiting:
            done()


def simulate(
    strategy: Strategy, work: Work, hardware: Hardware, *, jitter: float = 0.0, seed: int = 0, block: int | None = None
) -> float:
    """Seconds until the last rank has its tensors.

    A rank's cable is slower than given at random, by up to ``jitter`` times. ``block``: of a round of "broadcast".
    """
    clock = Clock()
    storage = Storage(clock, hardware)
    order = random.Random(seed)
    slowness = [1 + jitter * order.random() for _ in range(work.ranks)]
    rings = {
        among: [Ring(clock, hardware, slowness[first : first + among]) for first in range(0, work.ranks, among)]
        for among in work.shared
    }
    for rank in range(work.ranks):
        own = {among: of_all[rank // among] for among, of_all in rings.items()}
        clock.start(_rank(rank, strategy, work, hardware, clock, storage, own, block))
    return clock.run()


def _rank(
    rank: int,
    strategy: Strategy,
    work: Work,
    hardware: Hardware,
    clock: Clock,
    storage: Storage,
    rings: Mapping[int, Ring],
    block: int | None,
) -> Steps:
    yield storage.read(8)
    yield _ranges(clock, storage, hardware, work.header, 1)
    yield clock.sleep(work.tensors * PLANNING)
    if strategy == "everything":
        yield _ranges(clock, storage, hardware, work.of_checkpoint, 1)
    elif strategy == "independent":
        yield _ranges(clock, storage, hardware, work.own / work.ranks, work.requests)
    else:
        alone = (work.unique - work.of_several) / work.ranks
        if alone:
            yield _ranges(clock, storage, hardware, alone, work.requests)
        for among, ring in rings.items():
            yield from _rounds(rank, work, among, hardware, clock, storage, ring, block or block_of(among))


def _ranges(clock: Clock, storage: Storage, hardware: Hardware, nbytes: float, requests: int) -> Wait:
    """In streams, of which one transfers while another waits."""
    at_once = max(1, int(hardware.requests_in_flight) // STREAMS)
    batches = STREAMS * max(1, -(-requests // (STREAMS * at_once)))

    def stream(count: int) -> Steps:
        for _ in range(count):
            yield storage.read(nbytes / batches, min(at_once, requests))

    return clock.all_of([lambda done: clock.start(stream(batches // STREAMS), done)] * STREAMS)


def _rounds(
    rank: int,
    work: Work,
    among: int,
    hardware: Hardware,
    clock: Clock,
    storage: Storage,
    ring: Ring,
    block: int,
) -> Iterator[Wait]:
    """Reads its block of a round while those of the round before travel."""
    shares = []
    shared = work.shared[among]
    for begin in range(0, shared, block * work.ranks):
        of_round = min(shared - begin, block * work.ranks)
        share = -(-of_round // work.ranks)
        shares.append((share, min(share, max(of_round - rank * share, 0))))

    def read(number: int) -> list[Wait]:
        return [_ranges(clock, storage, hardware, shares[number][1], 1)] if number < len(shares) else []

    yield from read(0)
    for number, (share, _) in enumerate(shares):
        yield clock.all_of([ring.gather(share), *read(number + 1)])
