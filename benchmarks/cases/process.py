"""What a user waits for when a program starts; each run is an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import contents
from ..case import Action, Case
from ..content import Content, WrongError
from ..peers.base import Peer
from ..raw import Raw
from ..settings import Settings


class _ProcessCase(Case):
    memory = False

    def prepare(self, peer: Peer) -> Action:
        code = self._code(peer)
        return lambda: _run(code)

    @abstractmethod
    def _code(self, peer: Peer) -> str:
        """Prints one line of numbers, the first of which is the seconds to report."""

    def sample(self, action: Action) -> float:
        self._result = action()
        return self._result[0]

    def check(self, result: Any) -> None:
        if result[1:] != [1.0]:
            raise WrongError(f"the program printed {result}")


def _run(code: str) -> list[float]:
    started = time.time()
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if program.returncode:
        raise RuntimeError(program.stderr[-1000:])
    seconds, *rest = map(float, program.stdout.split())
    return [seconds - started if seconds > 1e9 else seconds, *rest]


class Import(_ProcessCase):
    what = "import of the package after torch, in a fresh interpreter"
    verb = "import_code"

    def _code(self, peer: Peer) -> str:
        statement = getattr(peer, self.verb)()
        return f"import time, torch\nstart = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start, 1)"


class FirstTensor(_ProcessCase):
    what = "from the start of the interpreter to the first tensor of a small file (limit: of torch.zeros)"
    verb = "load_code"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.content = contents.small(settings)
        self.path = settings.tmpfs / f"{self.content.name}.safetensors"

    def files(self) -> list[tuple[Path, Content]]:
        return [(self.path, self.content)]

    def _code(self, peer: Peer) -> str:
        path = peer.own_file(self.path, self.content)
        begin = next(begin for entry, begin in self.content.places() if entry.name == "tensor.3")
        expected = self.path.read_bytes()[len(self.content.header) + begin :][:4096]
        return (
            f"path = {str(path)!r}\n{getattr(peer, self.verb)()}\nfirst = tensors['tensor.3']\n"
            f"import time\nend = time.time()\n"
            f"print(end, float(first.numpy().tobytes() == {expected!r}))"
        )

    def limit(self, raw: Raw) -> Action:
        del raw
        return lambda: _run("import torch\ntorch.zeros(1)\nimport time\nprint(time.time())")


CASES: dict[str, Callable[..., Case]] = {"import": Import, "first-tensor": FirstTensor}
