"""What a case is: work that peers can do, the files it needs, and how its result is judged."""

from __future__ import annotations

import contextlib
import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .content import Content
from .settings import Settings

if TYPE_CHECKING:
    from .peers.base import Peer
    from .raw import Raw

Action = Callable[[], Any]

#: A sample of work that is done in microseconds is a loop of at least so many seconds.
SHORTEST_SAMPLE = 0.02


class CannotRunError(Exception):
    """The case, or a peer in it, cannot be measured on this machine; says why."""


class Case(ABC):
    """Made once by the process that commands, and once in each worker, from the same settings.

    In a worker the order is: prepare, then per sample before and run; check looks at the result of one run.
    """

    #: The method of a peer that does the work; a peer without it does not take part.
    verb: str = ""
    #: Whether the peers that differ from another in an option alone (a backend) take part.
    variants: bool = False
    #: Whether one run is so short that a sample has to be a loop.
    short: bool = False
    #: Whether peak memory says anything here.
    memory: bool = True
    #: What the case is called; set by the registry.
    name: str = ""
    what: ClassVar[str] = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.notes: list[str] = []
        self._result: Any = None
        self._loops = 0

    def files(self) -> list[tuple[Path, Content]]:
        """What has to be written before any worker prepares."""
        return []

    def surroundings(self) -> contextlib.AbstractContextManager[Any]:
        """Entered by the commanding process around the case; raises CannotRunError where that is impossible."""
        return contextlib.nullcontext()

    @property
    def nbytes(self) -> int:
        """How much data one run is about, for peak memory and GB/s; 0 where that has no meaning."""
        return sum(content.nbytes for _, content in self.files())

    @abstractmethod
    def prepare(self, peer: Peer) -> Action:
        """Brings in what the work needs and returns the work, which is what is timed."""

    def limit(self, raw: Raw) -> Action:
        """The same for the least work that this machine could do it with."""
        raise CannotRunError("nothing to compare with")

    @property
    def has_limit(self) -> bool:
        return type(self).limit is not Case.limit

    @property
    def resident(self) -> int:
        """Bytes that every worker holds all the time, as tensors to save or as bytes to load from."""
        return 0

    def before(self) -> None:  # noqa: B027 (most cases need nothing)
        """Runs before each sample, and is not timed."""

    @abstractmethod
    def check(self, result: Any) -> None:
        """Raises WrongError unless the result of a run is right."""

    def finish(self) -> None:  # noqa: B027
        """Runs when all samples were taken."""

    def sample(self, action: Action) -> float:
        """Seconds of one run."""
        self._result = None
        gc.collect()
        self.before()
        if self._loops:
            return self._loop(action, self._loops)
        start = time.perf_counter()
        self._result = action()
        return time.perf_counter() - start

    def calibrate(self, action: Action) -> None:
        """Makes samples of short work long enough to be measured."""
        if self.short and not self._loops:
            loops = 1
            while (elapsed := loops * self._loop(action, loops)) < SHORTEST_SAMPLE / 2:
                loops *= 2
            self._loops = max(1, round(loops * SHORTEST_SAMPLE / elapsed))

    @staticmethod
    def _loop(action: Action, loops: int) -> float:
        start = time.perf_counter()
        for _ in range(loops):
            action()
        return (time.perf_counter() - start) / loops

    def take_result(self) -> Any:
        """The result of the last run, which is then no longer kept."""
        result, self._result = self._result, None
        return result
