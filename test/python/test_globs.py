"""Many patterns over many names: what fnmatch says of each pair, without looking at each pair."""

from __future__ import annotations

import fnmatch
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from torch_safetensors import _globs
from torch_safetensors._globs import match_globs
from torch_safetensors._selection import choose

LAYERS = [f"model.layers.{layer}.block.{part}.weight" for layer in range(2000) for part in range(10)]


@pytest.mark.parametrize("many", [0, 8])
def test_it_is_fnmatch(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the index."""
    monkeypatch.setattr(_globs, "_MANY", many)
    rng = random.Random(many)
    for _ in range(3000):
        names = list({"".join(rng.choices("ab.[]*?!\n0", k=rng.randint(0, 5))) for _ in range(rng.randint(0, 8))})
        patterns = ["".join(rng.choices("ab.*?[]!-\n", k=rng.randint(0, 4))) for _ in range(rng.randint(0, 5))]
        missed = next((p for p in patterns if not any(fnmatch.fnmatchcase(name, p) for name in names)), None)
        matched, first = match_globs(names, patterns)
        assert first == missed, (names, patterns)
        if missed is None:
            assert matched == {name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)}


class Counted(str):
    """A name that counts how often it is looked at."""

    looks = 0

    def startswith(self, *arguments: Any) -> bool:
        Counted.looks += 1
        return super().startswith(*arguments)

    def __contains__(self, part: object) -> bool:
        Counted.looks += 1
        return super().__contains__(part)  # type: ignore[operator]


def count_matches(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """How many names regular expressions were asked about so far."""
    asked = 0

    class Pattern:
        def __init__(self, text: str) -> None:
            self._pattern = re.compile(text)

        def match(self, name: str) -> Any:
            nonlocal asked
            asked += 1
            return self._pattern.match(name)

    monkeypatch.setattr(_globs, "re", type("re", (), {"compile": Pattern}))
    while True:
        yield asked


@pytest.mark.parametrize(
    "pattern",
    [
        "model.layers.{}.*",
        "model.layers.{}.*.weight",
        "*.{}.block.?.weight",
        "*.layers.{}.*",
        "model.*.{}.block.[0-9].*",
    ],
)
def test_two_thousand_patterns_over_twenty_thousand_names(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty million pairs, of which few are looked at."""
    asked = count_matches(monkeypatch)
    Counted.looks = 0
    matched, missed = match_globs([Counted(name) for name in LAYERS], [pattern.format(i) for i in range(2000)])
    assert (len(matched), missed) == (len(LAYERS), None)
    assert next(asked) <= 3 * len(LAYERS)
    assert Counted.looks <= 3 * len(LAYERS)


def test_the_first_pattern_without_a_match_is_told() -> None:
    patterns = [f"model.layers.{i}.*" for i in range(3000)]
    assert choose(LAYERS, patterns) == (choose(LAYERS, patterns)[0], "model.layers.2000.*")
    assert choose(["a[0]", "a0"], ["a[0]"]) == (["a[0]"], None)  # a name before it is a pattern
    assert choose(["b", "a"], ["a", "*"]) == (["b", "a"], None)


def names_with(parts: Iterable[str]) -> list[str]:
    return [f"x.{part}.y" for part in parts]


def test_parts_within_brackets_are_no_parts() -> None:
    names = names_with(["a.b", "ab", "."])
    many = [*names, *(f"{i}" for i in range(20))]
    patterns = ["x.[a.b]*.y", "x.a[.]b.y", *(f"{i}" for i in range(20))]
    assert match_globs(many, patterns)[1] is None
