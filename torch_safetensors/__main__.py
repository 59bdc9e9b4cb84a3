"""``python -m torch_safetensors run script.py ...``."""

from __future__ import annotations

import sys

from ._run import run


def main() -> None:
    """Runs the command that ``sys.argv`` names."""
    if sys.argv[1:2] != ["run"]:
        sys.exit("usage: python -m torch_safetensors run (script | -m module) [argument ...]")
    run(sys.argv[2:])


if __name__ == "__main__":
    main()
