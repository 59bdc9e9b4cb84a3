"""Makes one wheel of several that were built for different releases of torch: merge_wheels.py <folder> <wheel>...

They differ in the library for their torch, which lies in a folder of its own, so that the package can choose when it is
imported. All else has to be the same, but for the library on torch's stable ABI: that of the oldest torch is taken,
since torch promises that what was built with it works later.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def torch_release(wheel: Path) -> tuple[int, ...]:
    """The release it was built for, as (2, 13), from its version."""
    found = re.search(r"\+torch([\d.]+)-", wheel.name)
    if found is None:
        sys.exit(f"{wheel}: its version does not say which torch it is for")
    return tuple(map(int, found[1].split(".")))


def unpack(wheel: Path, folder: Path) -> Path:
    """Returns the folder that has its files, among them the folder of its metadata."""
    subprocess.run(
        [sys.executable, "-m", "wheel", "unpack", "-d", folder, wheel], check=True, stdout=subprocess.DEVNULL
    )
    (root,) = folder.iterdir()
    return root


def files(root: Path) -> dict[str, bytes]:
    """All but the metadata, by their paths."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".dist-info" not in str(path.relative_to(root))]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def is_library(path: str) -> bool:
    return "/lib/" in path


def merge(into: Path, other: Path, wheel: Path) -> None:
    """Adds the other's library for its torch. Refuses one that differs in anything else."""
    ours, theirs = files(into), files(other)
    differing = sorted(
        path for path in ours.keys() | theirs.keys() if not is_library(path) and ours.get(path) != theirs.get(path)
    )
    if differing:
        sys.exit(f"{wheel}: is not of the same sources as the other wheels: {', '.join(differing)}")
    for path in theirs.keys() - ours.keys():
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(other / path, target)


def drop_local_version(root: Path) -> None:
    """The wheel is for no single torch."""
    (metadata,) = root.glob("*.dist-info/METADATA")
    metadata.write_text(re.sub(r"^(Version: [^+\n]+)\+.*$", r"\1", metadata.read_text(), count=1, flags=re.MULTILINE))
    folder = metadata.parent
    folder.rename(folder.with_name(re.sub(r"\+.*(?=\.dist-info)", "", folder.name)))


def main() -> None:
    """Prints nothing; the new wheel lies in the folder, under the name that follows from its version."""
    folder, *names = sys.argv[1:]
    wheels = sorted(map(Path, names), key=torch_release)
    with tempfile.TemporaryDirectory() as scratch:
        oldest, *others = (unpack(wheel, Path(scratch, str(i))) for i, wheel in enumerate(wheels))
        for root, wheel in zip(others, wheels[1:], strict=True):
            merge(oldest, root, wheel)
        drop_local_version(oldest)
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "wheel", "pack", "-d", folder, oldest], check=True, stdout=subprocess.DEVNULL
        )


if __name__ == "__main__":
    main()
