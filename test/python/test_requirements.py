"""The pins in requirements/: a package has one version, whichever files an environment is made of."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"

pytestmark = pytest.mark.skipif(not REQUIREMENTS.is_dir(), reason="needs the source tree")

#: Pinned once more on purpose, and never installed beside the other: the release that the reference will have next.
APART = {("bench/safetensors-0.9.0rc1.txt", "safetensors")}
#: What markers are asked about: every Python that the project supports.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


class Pin(NamedTuple):
    file: str
    version: str
    marker: Marker | None

    def applies(self, python: str) -> bool:
        return self.marker is None or self.marker.evaluate({"python_version": python})


def pins_in(folder: Path) -> dict[str, list[Pin]]:
    pins: dict[str, list[Pin]] = defaultdict(list)
    for path in sorted(folder.rglob("*.txt")):
        file = path.relative_to(folder).as_posix()
        for line in path.read_text().splitlines():
            text = line.partition(" #")[0].strip()
            if not text or text.startswith(("#", "-r")):
                continue
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            if (file, name) not in APART:
                pins[name].append(Pin(file, str(requirement.specifier), requirement.marker))
    return pins


def conflicts(pins: dict[str, list[Pin]]) -> list[str]:
    """A line for each package that one Python would get in two versions."""
    found = []
    for name, of_package in pins.items():
        for python in PYTHONS:
            versions = {pin.version: pin.file for pin in of_package if pin.applies(python)}
            if len(versions) > 1:
                listed = ", ".join(f"{version} in {file}" for version, file in sorted(versions.items()))
                found.append(f"{name} for Python {python}: {listed}")
                break
    return found


def test_no_package_is_pinned_twice_differently() -> None:
    assert conflicts(pins_in(REQUIREMENTS)) == []


def test_everything_is_pinned() -> None:
    loose = [
        f"{pin.file}: {name}" for name, pins in pins_in(REQUIREMENTS).items() for pin in pins if "==" not in pin.version
    ]
    assert loose == []


def test_that_test_sees_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "a.txt").write_text(
        "# comment\nPython_Dateutil==3.0.0\nsix==1\npillow==13; python_version >= '3.11'\n-r b.txt\n"
    )
    (tmp_path / "bench/b.txt").write_text("python-dateutil==2.9.0\nsix==1\npillow==12; python_version < '3.12'\n")
    assert conflicts(pins_in(tmp_path)) == [
        "python-dateutil for Python 3.10: ==2.9.0 in bench/b.txt, ==3.0.0 in a.txt",
        "pillow for Python 3.11: ==12 in bench/b.txt, ==13 in a.txt",
    ]
