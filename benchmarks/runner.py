"""Has all peers take turns in a case."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .case import CannotRunError, Case
from .cases import make_case
from .peers import PEERS
from .remote import RemoteWorker, WorkerError
from .report import row
from .results import CaseResult, PeerResult
from .settings import Settings

#: In every round, unless that takes so many times the budget; others sit out where a case would exceed its budget. But
#: everybody is in so many rounds.
ALWAYS = ("ours", "reference", "limit")
FAR_OVER = 9
FEWEST_ROUNDS = 3


class Runner:
    """Keeps one worker per peer, from the first case that needs it to the end of the run.

    Args:
        settings: for all cases.
        peers: who may take part.
        say: is told what happens.
    """

    def __init__(self, settings: Settings, peers: Iterable[str], say: Callable[[str], None]) -> None:
        self._settings = settings
        self._peers = list(peers)
        self._say = say
        self._random = random.Random(settings.seed)
        self._workers: dict[str, RemoteWorker] = {}
        #: These have only imported their peer; forks of them measure memory.
        self._fresh: dict[str, RemoteWorker] = {}
        #: By peer; and why it is missing, for those that are.
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def close(self) -> None:
        for worker in [*self._workers.values(), *self._fresh.values()]:
            worker.close()
        self._workers.clear()
        self._fresh.clear()

    def run(self, names: Sequence[str]) -> Iterator[CaseResult]:
        cases = [make_case(name, self._settings) for name in names]
        uses = Counter(path for case in cases for path, _ in case.files())
        for case in cases:
            yield self._run_case(case)
            for path, _ in case.files():
                uses[path] -= 1
                if uses[path] == 0:
                    delete(path)

    def _run_case(self, case: Case) -> CaseResult:
        start = time.monotonic()
        result = CaseResult(case.name, case.what, case.nbytes)
        self._say(f"{case.name}: {case.what}")
        try:
            for path, content in case.files():
                if not path.exists():
                    content.write(path)
            with case.surroundings():
                self._measure(case, result)
        except CannotRunError as error:
            result.failure = str(error)
            self._say(f"  not measured: {error}")
        result.seconds = time.monotonic() - start
        ours, reference, ratio = (cell or "-" for cell in row(result)[1:4])
        self._say(f"  ours {ours}, reference {reference}, {ratio} ({result.seconds:.0f} s)")
        return result

    def _measure(self, case: Case, result: CaseResult) -> None:
        first = {}
        for name in self._peers:
            if name in self.missing or not takes_part(name, case):
                continue
            result.peers[name] = PeerResult()
            with self._noting_failure(result.peers[name], name):
                worker = self._worker(name)
                worker.call("prepare", case.name, self._settings)
                first[name] = worker.call("first")
            if name in self.missing:
                del result.peers[name]
        for turn, names in enumerate(self.rounds(first)):
            self._random.shuffle(names)
            for name in names:
                peer_result = result.peers[name]
                if peer_result.failure is None:
                    with self._noting_failure(peer_result, name, f" in round {turn + 1}"):
                        peer_result.samples.append(self._workers[name].call("sample"))
        for name, worker in list(self._workers.items()):
            with self._noting_failure(result.peers.get(name, PeerResult()), name):
                notes = worker.call("finish")
                if name in result.peers:
                    result.peers[name].notes = notes
        if case.memory and self._settings.memory:
            self._measure_memory(case, result)

    def rounds(self, first: dict[str, float]) -> list[list[str]]:
        """Who takes part in each round, so that all rounds together stay near the budget."""
        rounds, budget = self._settings.rounds, self._settings.budget
        fewest = min(rounds, FEWEST_ROUNDS)
        taking_part = dict.fromkeys(first, rounds)
        spent = rounds * sum(first.values())
        for name in sorted(first, key=lambda name: (name in ALWAYS, -first[name])):
            if spent > (FAR_OVER * budget if name in ALWAYS else budget):
                taking_part[name] = fewest
                spent -= (rounds - fewest) * first[name]
        return [
            [name for name, count in taking_part.items() if turn * count // rounds != (turn + 1) * count // rounds]
            for turn in range(rounds)
        ]

    def _measure_memory(self, case: Case, result: CaseResult) -> None:
        """In a process that has done nothing yet, since one that has loaded before may have memory at hand."""
        for name, peer_result in result.peers.items():
            if name == "limit" or PEERS[name].variant or peer_result.failure is not None:
                continue
            try:
                if name not in self._fresh:
                    self._fresh[name] = RemoteWorker(name, self._settings)
                peer_result.peak = self._fresh[name].peak_in_fork(case.name)
            except WorkerError as error:
                self._say(f"  {name}: peak memory not measured: {error}")
                if error.lost:
                    self._fresh.pop(name, None)

    def _worker(self, name: str) -> RemoteWorker:
        if name not in self._workers:
            try:
                self._workers[name] = RemoteWorker(name, self._settings)
            except WorkerError as error:
                self.missing[name] = str(error)
                raise
            self.versions[name] = self._workers[name].version
        return self._workers[name]

    @contextlib.contextmanager
    def _noting_failure(self, result: PeerResult, peer: str, when: str = "") -> Iterator[None]:
        try:
            yield
        except WorkerError as error:
            result.failure = str(error)
            self._say(f"  {peer}{when}: {error}")
            if error.lost:
                self._workers.pop(peer, None)


def takes_part(name: str, case: Case) -> bool:
    """Whether the peer can do the work, and differs there from the peer that it is a variant of."""
    peer = PEERS[name]
    if name == "limit":
        return case.has_limit
    return peer().can(case.verb) and (case.variants or not peer.variant)


def delete(path: Path) -> None:
    """A file, and what peers made of it."""
    for name in path, path.with_suffix(".pt"):
        name.unlink(missing_ok=True)
