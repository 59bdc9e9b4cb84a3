"""What the package is meant to reach: the one table of goals, and the judgement of a run by it."""

from __future__ import annotations

import dataclasses

from .results import CaseResult


@dataclasses.dataclass(frozen=True)
class Goal:
    """Ratios: the time of ``against`` over ours. With ``seconds`` set, both are times of ours."""

    at_least: float
    stretch: float | None = None
    against: str = "reference"
    seconds: bool = False
    #: The most own memory that a run may add, in shares of the case's data.
    peak: float | None = None


GOALS = {
    "open": Goal(15, 25),
    "read": Goal(1.0, 1.25),
    "many": Goal(20, 50),
    "many-op": Goal(5, 12),
    "keys": Goal(10, 15),
    "bytes-in-fresh": Goal(3.5, 4),
    "bytes-in-warm": Goal(5, 8),
    "bytes-out-fresh": Goal(6, 8),
    "bytes-out-warm": Goal(10, 15, peak=1.05),
    "write-tmpfs": Goal(1.0),
    "write-disk": Goal(1.1),
    "write-durable": Goal(1.3),
    "many-save-file": Goal(20, 40),
    "many-save": Goal(20, 40),
    "model-in-1MB": Goal(8, 12),
    "model-in-257MB": Goal(2.4, 3, peak=0.05),
    "model-out-1MB": Goal(8),
    "model-out-257MB": Goal(1.15),
    "small-load": Goal(7),
    "small-save-file": Goal(5),
    "small-save": Goal(30),
    "cold": Goal(1.0, against="runai"),
    "slice": Goal(2),
    "import": Goal(0.05, 0.02, seconds=True),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    goal: str
    #: "stretch", "met", "missed", "memory" (fast enough, but with too much of it), or "" where it cannot be told.
    outcome: str


def judge(result: CaseResult) -> Verdict | None:
    """None for a case without a goal."""
    goal = GOALS.get(result.name)
    if goal is None:
        return None
    if goal.seconds:
        limits = [goal.at_least, goal.stretch]
        text = " / ".join(f"{1000 * limit:g} ms" for limit in limits if limit is not None)
        time = result.time("ours")
        reached = [time is not None and limit is not None and time <= limit for limit in limits]
        return Verdict(text, _outcome(reached) if time is not None else "")
    limits = [goal.at_least, goal.stretch]
    text = " / ".join(f"{limit:g}x" for limit in limits if limit is not None)
    if goal.against != "reference":
        text += f" of {goal.against}"
    ratio = result.ratio(goal.against)
    if ratio is None:
        return Verdict(text, "")
    outcome = _outcome([limit is not None and ratio >= limit for limit in limits])
    peak = result.peers["ours"].peak
    if goal.peak is not None and peak is not None:
        text += f", +{goal.peak:.0%} memory"
        if outcome != "missed" and peak["own"] > goal.peak * result.nbytes:
            outcome = "memory"
    return Verdict(text, outcome)


def _outcome(reached: list[bool]) -> str:
    at_least, stretch = reached
    return "stretch" if stretch else "met" if at_least else "missed"
