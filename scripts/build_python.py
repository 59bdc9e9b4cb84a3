"""Installs the package into the running environment, editable, where anything of it changed.

Ninja compiles only what changed, but pip takes seconds to find that out; so what was installed last
is remembered in build/, by its content.
"""

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = ROOT / "build/python.stamp"
INPUTS = ["setup.py", "pyproject.toml", "LICENSE", "VERSION", "cmake/*", "csrc/**/*"]


def version_of(distribution: str) -> str | None:
    """The version installed here, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def fingerprint() -> str:
    """Of everything that the library and its installation depend on."""
    digest = hashlib.sha256(repr((sys.prefix, version_of("torch"), os.environ.get("CXX"))).encode())
    for path in sorted(path for pattern in INPUTS for path in ROOT.glob(pattern) if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def main() -> None:
    """Builds and installs, or says that nothing changed."""
    wanted = fingerprint()
    release = "_".join((version_of("torch") or "").split(".")[:2])
    library = ROOT / f"torch_safetensors/lib/torch{release}/libtorch_safetensors.so"
    installed = version_of("torch_safetensors") is not None and library.exists()
    if installed and STAMP.exists() and STAMP.read_text() == wanted:
        print("==> libtorch_safetensors.so is up to date", flush=True)
        return
    print("==> compiling libtorch_safetensors.so (a few minutes the first time)", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation", "-e", ROOT]
    subprocess.run(pip, check=True)
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.write_text(wanted)


if __name__ == "__main__":
    main()
