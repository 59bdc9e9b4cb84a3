"""What a run found out."""

from __future__ import annotations

import dataclasses
import statistics


@dataclasses.dataclass
class PeerResult:
    """One peer in one case."""

    samples: list[float] = dataclasses.field(default_factory=list)
    #: Bytes that one run adds: own memory, pages of files, both together; None where it was not measured.
    peak: dict[str, int] | None = None
    #: Why there are no samples, or none after those.
    failure: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    @property
    def spread(self) -> float:
        """The range of the middle half, as a share of the median."""
        if len(self.samples) < 3:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / statistics.median(self.samples)


@dataclasses.dataclass
class CaseResult:
    name: str
    what: str
    nbytes: int
    peers: dict[str, PeerResult] = dataclasses.field(default_factory=dict)
    #: Why the case could not run at all.
    failure: str | None = None
    seconds: float = 0.0

    def time(self, peer: str) -> float | None:
        """The median; for the limit the least, since that is what the machine can do when nothing disturbs it."""
        result = self.peers.get(peer)
        if result is None or result.failure is not None:
            return None
        return min(result.samples, default=None) if peer == "limit" else result.median

    def ratio(self, peer: str, to: str = "ours") -> float | None:
        """How many times as long as ``to`` the peer takes."""
        time, base = self.time(peer), self.time(to)
        return time / base if time is not None and base else None
