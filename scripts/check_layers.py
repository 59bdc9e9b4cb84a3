"""Checks the includes of csrc for what the build cannot see.

The build hides the layers from each other (cmake/layers.cmake), but not what lies in a folder that
the compiler searches anyway, such as the system's RapidJSON.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RAPIDJSON_USERS = "csrc/format/"
# The first two leave their folder unseen; the others bring in Python.h.
# What both libraries have, and what keeps to torch's stable ABI (cmake/stable.cmake).
STABLE_FILES = ("csrc/shared/", "csrc/stable/")
STABLE_HEADERS = ("torch/headeronly/", "torch/csrc/stable/")
FORBIDDEN = [r"\.\./", r"csrc/", r"Python\.h", r"torch/torch\.h", r"torch/extension\.h", r"pybind11/"]


def problems(path: Path) -> list[str]:
    """One line for each include of the file that its layer may not have."""
    name = str(path.relative_to(ROOT))
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if not match:
            continue
        included = match[1]
        if any(re.match(pattern, included) for pattern in FORBIDDEN):
            found.append(f"{name}:{number}: {included} is not to be included in csrc")
        of_torch = re.match("torch/|ATen/|c10/", included)
        if of_torch and name.startswith(STABLE_FILES) and not included.startswith(STABLE_HEADERS):
            found.append(f"{name}:{number}: {included} is not of torch's stable ABI")
        if included.startswith("rapidjson/") and not name.startswith(RAPIDJSON_USERS):
            found.append(f"{name}:{number}: {included} is not to be included outside {RAPIDJSON_USERS}")
    return found


def main() -> None:
    """Prints what it finds, and fails if there is anything."""
    files = sorted([*ROOT.glob("csrc/**/*.h"), *ROOT.glob("csrc/**/*.cpp")])
    found = [line for path in files for line in problems(path)]
    users = [path for path in files if "rapidjson/" in path.read_text()]
    if len(users) > 1:
        found.append(f"RapidJSON belongs into one file, to be replaced there: {[p.name for p in users]}")
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
