"""Succeeds where a torch that this project supports, 2.11 to 2.13, can be imported.

Reads its version without importing it, which would take longer than all the rest of a set-up.
"""

import importlib.util
import re
import sys
from pathlib import Path

spec = importlib.util.find_spec("torch")
if spec is None or spec.origin is None:
    sys.exit(1)
text = Path(spec.origin).with_name("version.py").read_text()
found = re.search(r"__version__ = '(\d+)\.(\d+)", text)
sys.exit(not (found and (2, 11) <= (int(found[1]), int(found[2])) < (2, 14)))
