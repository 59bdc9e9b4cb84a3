"""Keeps the server busy, swaps its weights in the middle, and tells what that did to the requests and its memory.

    python load_test.py SERVER MODEL FOLDER [--seconds 60] [--connections 8] [--torchscript] [--runners 1]

Starts SERVER with MODEL and FOLDER/model.safetensors. Every answer must be wholly that of the old weights, or wholly
that of the new ones once the swap has begun; the exit status is 1 if one is not, or if a request fails.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from torch_safetensors import load, load_file, save, save_file

OLD, NEW = "model.safetensors", "tuned.safetensors"


@dataclass
class Answer:
    """Of one request: when it began and ended, in seconds, and which weights it is from."""

    begin: float
    end: float
    weights: str


@dataclass
class Observed:
    """What was seen of the server while it ran."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    memory: list[tuple[float, int, int]] = field(default_factory=list)
    """When, and how many bytes of memory of its own and altogether."""


class Server:
    """The program, and a way to ask it."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"error: {command[0]} does not serve")
        self.host = line.rsplit("http://", 1)[1].strip()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=60)

    def memory(self) -> tuple[int, int]:
        """Bytes of its own, and with the pages of files that it has mapped."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        values = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
        return values["RssAnon:"], sum(values.values())

    def stop(self) -> int:
        self._process.terminate()
        return self._process.wait(30)


def post(connection: http.client.HTTPConnection, path: str, body: bytes = b"") -> bytes:
    connection.request("POST", path, body)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise OSError(f"{path}: {response.status}: {content.decode().strip()}")
    return content


def make_tokens() -> dict[str, Tensor]:
    tokens = torch.randint(1000, 20_000, (4, 32), generator=torch.Generator().manual_seed(0))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def make_weights(folder: Path, made: Path) -> None:
    """The original, and what a little training would make of it."""
    (made / OLD).symlink_to((folder / OLD).resolve())
    generator = torch.Generator().manual_seed(0)
    tuned = {
        name: tensor * (1 + 0.1 * torch.rand(tensor.shape, generator=generator))
        if tensor.is_floating_point()
        else tensor
        for name, tensor in load_file(made / OLD).items()
    }
    save_file(tuned, made / NEW)


def keep_asking(server: Server, expected: dict[str, Tensor], done: threading.Event, observed: Observed) -> None:
    body = save(make_tokens())
    connection = server.connect()
    while not done.is_set():
        begin = time.perf_counter()
        try:
            content = post(connection, "/embed", body)
        except (OSError, http.client.HTTPException) as error:
            observed.failures.append(f"{type(error).__name__}: {error}")
            connection.close()
            continue
        end = time.perf_counter()
        got = load(content)["embeddings"]
        same = (name for name, wanted in expected.items() if torch.allclose(got, wanted, rtol=0, atol=1e-5))
        observed.answers.append(Answer(begin, end, next(same, "mixed")))
    connection.close()


def watch_memory(server: Server, done: threading.Event, observed: Observed) -> None:
    while not done.wait(0.005):
        observed.memory.append((time.perf_counter(), *server.memory()))


def run(server: Server, seconds: float, connections: int) -> tuple[Observed, float, float]:
    """What was observed, and when the swap began and ended."""
    asking = server.connect()
    expected = {}
    for name in NEW, OLD:
        post(asking, f"/swap?weights={name}")
        expected[name] = load(post(asking, "/embed", save(make_tokens())))["embeddings"]
    assert not torch.allclose(*expected.values(), rtol=0, atol=1e-3)

    observed, done = Observed(), threading.Event()
    threads = [
        threading.Thread(target=keep_asking, args=(server, expected, done, observed)) for _ in range(connections)
    ]
    threads.append(threading.Thread(target=watch_memory, args=(server, done, observed)))
    for thread in threads:
        thread.start()
    try:
        time.sleep(seconds / 2)
        begin = time.perf_counter()
        post(server.connect(), f"/swap?weights={NEW}")
        end = time.perf_counter()
        time.sleep(seconds / 2)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return observed, begin, end


def milliseconds(answers: list[Answer]) -> str:
    """Median, 99th percentile and maximum of their latencies."""
    times = sorted((answer.end - answer.begin) * 1e3 for answer in answers)
    if not times:
        return "none"
    return f"{statistics.median(times):.1f} / {times[len(times) * 99 // 100]:.1f} / {times[-1]:.1f} ms"


def report(observed: Observed, begin: float, end: float) -> bool:
    """Prints what was observed; True if all of it is as it should be."""
    wrong = [
        answer
        for answer in observed.answers
        if not ((answer.weights == OLD and answer.begin < end) or (answer.weights == NEW and answer.end > begin))
    ]
    during = [answer for answer in observed.answers if answer.begin < end and answer.end > begin]
    others = [answer for answer in observed.answers if not (answer.begin < end and answer.end > begin)]
    seconds = max(answer.end for answer in observed.answers) - min(answer.begin for answer in observed.answers)
    ends = sorted(answer.end for answer in observed.answers)
    gap = max(later - earlier for earlier, later in itertools.pairwise(ends) if later > begin and earlier < end)
    count = len(observed.answers)
    print(f"requests         {count} in {seconds:.0f} s, {count / seconds:.0f} per second")
    print(f"failed           {len(observed.failures)}")
    print(f"wrong answers    {len(wrong)}")
    for weights in OLD, NEW:
        print(f"  by {weights:20} {sum(answer.weights == weights for answer in observed.answers)}")
    print(f"latency          {milliseconds(others)} (median / 99 % / maximum)")
    print(f"  during swap    {milliseconds(during)} of {len(during)} requests")
    print(f"swap             {(end - begin) * 1e3:.1f} ms; longest time without an answer then {gap * 1e3:.1f} ms")
    before = [sample for sample in observed.memory if sample[0] < begin]
    after = [sample for sample in observed.memory if sample[0] > end]
    for index, what in (1, "memory, own"), (2, "memory, all"):
        peak = max(sample[index] for sample in observed.memory)
        levels = [samples[-1][index] / 1e6 for samples in (before, after)]
        print(f"{what:16} {levels[0]:.0f} MB before, {levels[1]:.0f} MB after, {peak / 1e6:.0f} MB at most")
    for failure in observed.failures[:5]:
        print(f"failure: {failure}", file=sys.stderr)
    return not wrong and not observed.failures and bool(during)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", help="the program")
    parser.add_argument("model", help="what export.py made: model.pt2, or model.pt with --torchscript")
    parser.add_argument("folder", type=Path, help="the model, as the hub has it")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--torchscript", action="store_true")
    parser.add_argument("--runners", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        make_weights(arguments.folder, Path(made))
        options = ["--torchscript"] if arguments.torchscript else ["--runners", str(arguments.runners)]
        server = Server([arguments.server, *options, arguments.model, f"{made}/{OLD}"])
        try:
            good = report(*run(server, arguments.seconds, arguments.connections))
        finally:
            status = server.stop()
    if status != 0:
        print(f"the server ended with status {status}", file=sys.stderr)
    sys.exit(not good or status != 0)


if __name__ == "__main__":
    main()
