"""Many glob patterns over many names, with far fewer comparisons than there are pairs of them."""

from __future__ import annotations

import bisect
import fnmatch
import re
from collections.abc import Sequence

__all__ = ["match_globs"]

#: An index of the names costs about as much as so many patterns without one.
_MANY = 8

_SPECIAL = re.compile(r"[*?\[]")


def match_globs(names: Sequence[str], patterns: Sequence[str]) -> tuple[set[str], str | None]:
    """Find the names that match any of the patterns, as ``fnmatch.fnmatchcase`` says.

    Args:
        names: Names, none twice.
        patterns: Glob patterns.

    Returns:
        The names, and the first pattern that none of them matches, if there is one.
    """
    index = _Index(names) if len(patterns) > _MANY else None
    matched: set[str] = set()
    for pattern in dict.fromkeys(patterns):
        candidates = names if index is None else index.candidates(pattern)
        found = _matching(candidates, pattern)
        if not found:
            return matched, pattern
        matched.update(found)
    return matched, None


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    beginning, star, rest = pattern.partition("*")
    if star and not rest and not _SPECIAL.search(beginning):  # what most are like needs no regular expression
        return [name for name in names if name.startswith(beginning)]
    literal = _longest_literal(pattern)
    # Much quicker than a regular expression, and leaves little to it.
    return list(filter(re.compile(fnmatch.translate(pattern)).match, [name for name in names if literal in name]))


def _longest_literal(pattern: str) -> str:
    """Text that is in every name that matches. What follows a bracket may belong to it, and does not count."""
    return max(_SPECIAL.split(pattern.partition("[")[0]), key=len)


class _Index:
    """Names by how they begin, and by the parts between their dots."""

    def __init__(self, names: Sequence[str]) -> None:
        self._ordered = sorted(names)
        self._by_part: dict[str, list[str]] = {}
        for name in names:
            for part in set(name.split(".")):
                self._by_part.setdefault(part, []).append(name)

    def candidates(self, pattern: str) -> list[str]:
        """The fewest names that are sure to have all that match."""
        groups = [self._by_part.get(part, []) for part in _whole_parts(pattern)]
        return min([self._beginning_with(_SPECIAL.split(pattern, maxsplit=1)[0]), *groups], key=len)

    def _beginning_with(self, text: str) -> list[str]:
        def beginning(name: str) -> str:
            return name[: len(text)]

        begin = bisect.bisect_left(self._ordered, text, key=beginning)
        return self._ordered[begin : bisect.bisect_right(self._ordered, text, lo=begin, key=beginning)]


def _whole_parts(pattern: str) -> list[str]:
    """The parts that a name must have between its dots, since the pattern has them between its own."""
    before_bracket, bracket, _ = pattern.partition("[")
    parts = before_bracket.split(".")
    return [part for part in (parts[:-1] if bracket else parts) if not _SPECIAL.search(part)]
