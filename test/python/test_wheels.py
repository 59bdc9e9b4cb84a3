"""Wheels, installed into clean environments without a compiler, with the torch they were built for and with others.

By default with the torch at hand, and wheels made of the one that is built for it. ``make test-wheels`` names others:
``WHEELS``, a folder, and ``TORCH_ENVIRONMENTS``, folders of environments that have a torch, separated by colons.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from installed import RELEASE, ROOT, SANITIZE

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(bool(SANITIZE), reason="Python is not built with sanitizers"),
]

TORCHES = [Path(name) for name in os.environ.get("TORCH_ENVIRONMENTS", sys.prefix).split(":")]
#: A release of torch that nobody has.
OTHER = "2.99"


def run(*command: str | Path, cwd: Path, path: str = os.environ["PATH"]) -> str:
    """Runs a command without what the environment of this process would add to it; its output."""
    env = {"PATH": path, "HOME": str(cwd), "TMPDIR": str(cwd)}
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def tool(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def releases_in(wheel: Path) -> set[str]:
    """The releases of torch that it holds libraries for."""
    names = zipfile.ZipFile(wheel).namelist()
    found = [re.search(r"/lib/torch(\w+)/libtorch_safetensors\.so$", name) for name in names]
    return {match[1].replace("_", ".") for match in found if match}


def for_other_torch(wheel: Path, folder: Path) -> Path:
    """The same wheel, said to be for another release of torch."""
    tool("-m", "wheel", "unpack", "-d", folder / "unpacked", wheel)
    (root,) = (folder / "unpacked").iterdir()
    (metadata,) = root.glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace(f"+torch{RELEASE}", f"+torch{OTHER}"))
    metadata.parent.rename(root / metadata.parent.name.replace(RELEASE, OTHER))
    (root / f"torch_safetensors/lib/torch{RELEASE.replace('.', '_')}").rename(
        root / f"torch_safetensors/lib/torch{OTHER.replace('.', '_')}"
    )
    tool("-m", "wheel", "pack", "-d", folder, root)
    (other,) = folder.glob("*.whl")
    return other


@pytest.fixture(scope="session")
def wheels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By what is in their versions: torch<release>, and "" for the one that holds the libraries of all others."""
    if "WHEELS" in os.environ:
        found = sorted(Path(os.environ["WHEELS"]).glob("*.whl"))
    else:
        folder = tmp_path_factory.mktemp("wheels")
        own = request.getfixturevalue("wheel")
        found = [own, for_other_torch(own, folder)]
        tool(ROOT / "scripts/merge_wheels.py", folder / "merged", *found)
        found += (folder / "merged").glob("*.whl")
    return {wheel.name.split("-")[1].partition("+")[2]: wheel for wheel in found}


def environment(folder: Path, wheel: Path, other: Path) -> Path:
    """A fresh environment that sees the packages of another one, torch's, with the wheel installed; its Python."""
    has_torch = "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])"
    packages = run(other / "bin/python", "-c", has_torch, cwd=folder).splitlines()[-1]
    run(other / "bin/python", "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "torch.pth").write_text(packages)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "-q", "--no-index", "--no-deps", wheel, cwd=folder)
    return python


def release_of(other: Path) -> str:
    text = run(other / "bin/python", "-c", "import torch; print(torch.__version__)", cwd=other)
    return ".".join(text.splitlines()[-1].split(".")[:2])


def test_names_and_licence(wheels: dict[str, Path]) -> None:
    assert len(wheels) == len({wheel.name for wheel in wheels.values()}) >= 3
    version = (ROOT / "VERSION").read_text().strip()
    for local, wheel in wheels.items():
        files = zipfile.ZipFile(wheel)
        (metadata,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        text = files.read(metadata).decode()
        assert f"\nVersion: {version}{local and '+' + local}\n" in text
        assert "\nLicense: Apache-2.0\n" in text
        assert "\nRequires-Dist: torch>=2.11\n" in text
        (licence,) = (name for name in files.namelist() if name.endswith("/LICENSE"))
        assert files.read(licence) == (ROOT / "LICENSE").read_bytes()
        assert releases_in(wheel) == {local.removeprefix("torch")} if local else len(releases_in(wheel)) >= 2


@pytest.mark.parametrize("other", TORCHES, ids=str)
def test_every_wheel_works(wheels: dict[str, Path], other: Path, tmp_path: Path) -> None:
    """Imports, loads, saves, in eager code, graphs and scripts; by the library for this torch where there is one."""
    release = release_of(other)
    for local, wheel in wheels.items():
        folder = tmp_path / (local or "all")
        folder.mkdir()
        python = environment(folder, wheel, other)
        library = "build" if release in releases_in(wheel) else "stable"
        (folder / "data").mkdir()
        user = [python, "-W", "error", "-W", "ignore::DeprecationWarning", ROOT / "test/python/wheel_user.py"]
        run(*user, folder / "data", library, cwd=folder, path=str(python.parent))  # no compiler in it


CMAKE_PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(user LANGUAGES CXX)
find_package(torch_safetensors REQUIRED)
get_target_property(library torch_safetensors::torch_safetensors IMPORTED_LOCATION)
message(STATUS "library: ${library}")
"""


def test_cmake_finds_the_library_for_its_torch(wheels: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_PROJECT)
    for local, wheel in wheels.items():
        site = tmp_path / f"site{local}"
        zipfile.ZipFile(wheel).extractall(site)
        search = f"-DCMAKE_PREFIX_PATH={site}/torch_safetensors/share/cmake;{torch.utils.cmake_prefix_path}"
        build = tmp_path / f"build{local}"
        done = subprocess.run(["cmake", "-S", tmp_path, "-B", build, search], capture_output=True, text=True)
        if RELEASE in releases_in(wheel):
            library = site / f"torch_safetensors/lib/torch{RELEASE.replace('.', '_')}/libtorch_safetensors.so"
            assert f"library: {library}\n" in done.stdout
            assert library.is_file()
        else:
            builds = ", ".join(sorted(releases_in(wheel)))
            text = " ".join(done.stderr.split())
            assert f"torch_safetensors was built for torch {builds}, but the torch found is {RELEASE}:" in text


def test_wheels_of_other_sources_are_not_merged(wheel: Path, tmp_path: Path) -> None:
    other = for_other_torch(wheel, tmp_path)
    (root,) = (tmp_path / "unpacked").iterdir()
    (root / "torch_safetensors/_gc.py").write_text("")
    tool("-m", "wheel", "pack", "-d", tmp_path, root)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/merge_wheels.py", tmp_path / "merged", wheel, other],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"{other}: is not of the same sources as the other wheels: torch_safetensors/_gc.py\n"
    assert not (tmp_path / "merged").exists()
