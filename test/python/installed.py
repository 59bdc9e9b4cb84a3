"""The library installed as a user would, in both ways, and programs built against it.

What was built stays in build/deploy, and is built again only where something changed. ``SANITIZE=address,undefined``
in the environment has library and programs built that way, by CMake alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import torch_safetensors

ROOT = Path(__file__).resolve().parents[2]
SANITIZE = os.environ.get("SANITIZE", "")
# LibTorch keeps no binary compatibility between releases.
BUILD = ROOT / f"build/deploy/torch-{torch.__version__}{SANITIZE and '-' + SANITIZE.replace(',', '-')}"
RELEASE = ".".join(torch.__version__.split(".")[:2])
LIBRARY = f"lib/torch{RELEASE.replace('.', '_')}/libtorch_safetensors.so"
if SANITIZE:
    os.environ["LSAN_OPTIONS"] = f"suppressions={ROOT}/test/deploy/leaks.txt:print_suppressions=0"
#: How the library is installed: as a wheel, or by CMake.
INSTALLATIONS = ["cmake"] if SANITIZE else ["wheel", "cmake"]


def run(*command: str | Path, **env: str | Path) -> str:
    """Runs a command to its end, away from the source folder, which Python would import the package from; its output.
    Fails with the output if the command does.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command,
        cwd=BUILD,
        env={**os.environ, **{name: str(value) for name, value in env.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


def python_path() -> str:
    """For processes that import the package under test."""
    return os.pathsep.join([str(Path(torch_safetensors.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])


def fingerprint() -> str:
    """Of everything that goes into the wheel."""
    digest = hashlib.sha256(f"{sys.prefix} {torch.__version__}".encode())
    patterns = ["setup.py", "pyproject.toml", "LICENSE", "VERSION", "cmake/*", "csrc/**/*"]
    patterns += ["torch_safetensors/**/*.py", "torch_safetensors/**/*.pyi"]
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def replace_what_differs(source: Path, target: Path) -> None:
    """Makes ``target`` a copy of ``source``, but leaves equal files alone: compilers go by the age of a header."""
    for path in target.rglob("*"):
        if path.is_file() and not (source / path.relative_to(target)).exists():
            path.unlink()
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        if path.is_file() and not (copy.exists() and copy.read_bytes() == path.read_bytes()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


# --- the library, installed in both ways ---------------------------------------------------------


@pytest.fixture(scope="session")
def site() -> Path:
    """A folder for sys.path with the wheel unpacked in it, far from torch's."""
    site, stamp, wheels = BUILD / "site", BUILD / "site.stamp", BUILD / "wheel"
    wanted = fingerprint()
    if not stamp.exists() or stamp.read_text() != wanted:
        stamp.unlink(missing_ok=True)
        # setuptools would pack what earlier builds left there.
        for folder in [wheels, *ROOT.glob(f"build/lib-torch-{torch.__version__}"), *ROOT.glob("build/bdist.*")]:
            shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, ROOT)
        (wheel,) = wheels.glob("*.whl")
        assert re.fullmatch(rf"torch_safetensors-[\d.]+\+torch{RELEASE}-py3-none-\w+\.whl", wheel.name)
        run(*pip, "install", "--no-deps", "--target", wheels / "site", wheel)
        replace_what_differs(wheels / "site", site)
        stamp.write_text(wanted)
    return site


@pytest.fixture(scope="session")
def wheel(site: Path) -> Path:
    """The wheel for the torch at hand, as pip builds it."""
    (wheel,) = (BUILD / "wheel").glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def prefix() -> Path:
    """What ``cmake --install`` leaves, of the tree that `make test` builds where there is one."""
    tree = ROOT / f"build/sanitize-{SANITIZE.replace(',', '-')}" if SANITIZE else ROOT / "build/cpp"
    cache = tree / "CMakeCache.txt"
    if not cache.exists() or str(Path(torch.__file__).parent) not in cache.read_text():
        tree = BUILD / "library"
        options = [f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}", "-DTORCH_SAFETENSORS_BUILD_TESTS=OFF"]
        options += [f"-DTORCH_SAFETENSORS_SANITIZE={SANITIZE}"]
        run("cmake", "-S", ROOT, "-B", tree, "-DCMAKE_BUILD_TYPE=Debug", *options)
    libraries = ["torch_safetensors", "torch_safetensors_stable_library"]
    run("cmake", "--build", tree, "--target", *libraries, "--parallel", "2")
    shutil.rmtree(BUILD / "prefix", ignore_errors=True)  # what an earlier version installed elsewhere
    run("cmake", "--install", tree, "--prefix", BUILD / "prefix")
    return BUILD / "prefix"


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest, prefix: Path) -> dict[str, Path]:
    """Where each installation has ``lib``, ``include`` and ``share``."""
    if SANITIZE:
        return {"cmake": prefix}
    return {"wheel": request.getfixturevalue("site") / "torch_safetensors", "cmake": prefix}


@pytest.fixture(scope="session")
def build(packages: dict[str, Path]) -> Callable[[str, str], Path]:
    """Builds a program, a folder of this repository, with an installation; its path."""

    def build(folder: str, package: str) -> Path:
        program = Path(folder).name
        tree = BUILD / f"{program}-{package}"
        search = f"{packages[package]}/share/cmake;{torch.utils.cmake_prefix_path}"
        if not (tree / "CMakeCache.txt").exists():
            options = [f"-DCMAKE_PREFIX_PATH={search}"]
            if SANITIZE:
                flags = f"-g -O1 -fsanitize={SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer"
                options += [f"-DCMAKE_CXX_FLAGS={flags}"]
            run("cmake", "-S", ROOT / folder, "-B", tree, *options)
        run("cmake", "--build", tree, "--parallel", "2")
        return tree / program

    return build


def needed(elf: Path) -> set[str]:
    """The libraries that a file names as needed, without their versions."""
    lines = run("readelf", "--dynamic", "--wide", elf).splitlines()
    return {line.split("[")[1].split(".so")[0] for line in lines if "(NEEDED)" in line}
