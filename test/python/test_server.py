"""examples/server: what it answers, what it refuses, and what happens to requests while its weights are swapped."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TORTURE
from installed import INSTALLATIONS, ROOT, needed, python_path
from torch import Tensor

from torch_safetensors import load, load_file, save, save_file

EXAMPLE = ROOT / "examples/server"
MODEL = ROOT / "build/model"

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not MODEL.is_dir(), reason="no real model: scripts/fetch_model.py"),
    pytest.mark.skipif(shutil.which("pkg-config") is None, reason="no pkg-config, which finds cpp-httplib"),
]


def python(*arguments: str | Path, cwd: Path, timeout: float = 300) -> str:
    """Runs Python to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": python_path(), "TORCHINDUCTOR_CACHE_DIR": str(cwd / "inductor")},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program(build: Callable[[str, str], Path]) -> Path:
    return build("examples/server", INSTALLATIONS[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt2, model.pt, and weights: the original's, and others of which some do not fit."""
    folder = tmp_path_factory.mktemp("server")
    python(EXAMPLE / "export.py", MODEL, folder, cwd=folder)
    (folder / "model.safetensors").symlink_to(MODEL / "model.safetensors")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor * 1.01 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
        folder / "tuned.safetensors",
    )
    bias = "encoder.layer.0.output.dense.bias"
    save_file({name: tensor for name, tensor in tensors.items() if name != bias}, folder / "missing.safetensors")
    save_file(tensors | {bias: torch.ones(3)}, folder / "shape.safetensors")
    words = "embeddings.word_embeddings.weight"
    save_file(tensors | {words: torch.ones(10, 384)}, folder / "words.safetensors")
    return folder


class Server:
    """A running server, and a way to ask it."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self._url = url

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        try:
            request = urllib.request.Request(self._url + path, body, {"Content-Type": "application/octet-stream"})
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def embed(self, tokens: dict[str, Tensor]) -> Tensor:
        status, content = self.ask("/embed", save(tokens))
        assert status == 200, content
        return load(content)["embeddings"]


@contextlib.contextmanager
def serving(program: Path, *arguments: str | Path) -> Iterator[Server]:
    command = [program, "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(process, process.stdout.readline().split()[-1])
        finally:
            process.terminate()
            output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")


KINDS = ["package", "script"]


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, program: Path, folder: Path) -> Iterator[Server]:
    arguments = [folder / "model.pt2"] if request.param == "package" else ["--torchscript", folder / "model.pt"]
    with serving(program, *arguments, folder / "model.safetensors") as server:
        yield server


@pytest.fixture(scope="module")
def reference() -> Callable[[Path, dict[str, Tensor]], Tensor]:
    """The embeddings that transformers computes with the weights of a file."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig.from_pretrained(MODEL)

    def embeddings(weights: Path, tokens: dict[str, Tensor]) -> Tensor:
        model = transformers.BertModel(config).eval()
        model.load_state_dict(load_file(weights), strict=False)
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    return embeddings


def make_tokens(sentences: int, length: int, *, padded: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(sentences * 1000 + length)
    tokens = torch.randint(1000, 20_000, (sentences, length), generator=generator)
    mask = torch.ones_like(tokens)
    if padded:
        mask[0, length // 2 :] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def test_no_python_in_the_process(program: Path, server: Server) -> None:
    assert not [name for name in needed(program) if "python" in name]
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch_cpu" in maps
    assert "python3" not in "".join(line.split("/")[-1] for line in maps.splitlines())
    assert "libtorch_python" not in maps


@pytest.mark.parametrize(("sentences", "length"), [(1, 1), (1, 9), (3, 17), (64, 12), (2, 512)])
def test_embeddings_are_those_of_transformers(server: Server, reference, sentences: int, length: int) -> None:
    tokens = make_tokens(sentences, length, padded=sentences > 1)
    expected = reference(MODEL / "model.safetensors", tokens)
    torch.testing.assert_close(server.embed(tokens), expected, rtol=0, atol=1e-5)


def test_other_weights(server: Server, folder: Path, reference) -> None:
    tokens = make_tokens(2, 11)
    for name in "tuned.safetensors", "model.safetensors":
        assert server.ask(f"/swap?weights={name}", b"") == (200, f"ok {name}\n".encode())
        assert server.ask("/health") == (200, f"ok {name}\n".encode())
        torch.testing.assert_close(server.embed(tokens), reference(folder / name, tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("none.safetensors", 404, r"\[Errno 2\] No such file or directory: '.*/none\.safetensors'"),
        ("missing.safetensors", 422, r"(?s).*/missing\.safetensors: .*encoder\.layer\.0\.output\.dense\.bias'"),
        ("shape.safetensors", 422, r"(?s).*encoder\.layer\.0\.output\.dense\.bias.*(\[384\].*\[3\]|\[3\].*\[384\])"),
        ("words.safetensors", 422, r".*/words\.safetensors: not of this vocabulary"),
        ("model.pt", 422, r".*/model\.pt: "),
        ("../model.safetensors", 400, "weights: expected the name of a file"),
        ("/etc/passwd", 400, "weights: expected the name of a file"),
        ("..", 400, "weights: expected the name of a file"),
        ("", 400, "weights: expected the name of a file"),
    ],
)
def test_weights_that_it_does_not_take(server: Server, name: str, status: int, message: str) -> None:
    tokens = make_tokens(2, 5)
    before = server.embed(tokens)
    got, content = server.ask(f"/swap?weights={name}", b"")
    assert got == status
    assert re.match(message, content.decode())
    assert torch.equal(server.embed(tokens), before)
    assert server.ask("/health") == (200, b"ok model.safetensors\n")


GOOD = make_tokens(2, 5)
BAD = {
    "no tensor 'input_ids'": {"attention_mask": GOOD["attention_mask"]},
    "no tensor 'attention_mask'": {"input_ids": GOOD["input_ids"]},
    "tensor 'input_ids': expected int64": GOOD | {"input_ids": GOOD["input_ids"].int()},
    "tensor 'attention_mask': expected int64": GOOD | {"attention_mask": torch.ones(5, dtype=torch.int64)},
    "tensor 'attention_mask': not of the shape of 'input_ids'": GOOD
    | {"attention_mask": make_tokens(2, 4)["input_ids"]},
    "tensor 'input_ids': 65 sentences of 5 tokens": make_tokens(65, 5),
    "tensor 'input_ids': 2 sentences of 513 tokens": make_tokens(2, 513),
    "tensor 'input_ids': 0 sentences of 5 tokens": {name: tensor[:0] for name, tensor in GOOD.items()},
    "tensor 'input_ids': 30522 is not in 0 to 30521": GOOD | {"input_ids": torch.full((2, 5), 30522)},
    "tensor 'input_ids': -1 is not in 0 to 30521": GOOD | {"input_ids": torch.full((2, 5), -1)},
    "tensor 'attention_mask': 2 is not in 0 to 1": GOOD | {"attention_mask": torch.full((2, 5), 2)},
    "tensor 'attention_mask': a sentence without tokens": GOOD | {"attention_mask": torch.tensor([[1] * 5, [0] * 5])},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_requests(server: Server, message: str) -> None:
    status, content = server.ask("/embed", save(BAD[message]))
    assert status == 400
    assert content.decode().startswith(message)
    assert server.embed(GOOD).shape == (2, 384)


def test_bad_bodies(server: Server) -> None:
    whole = save(GOOD)
    for body in b"", b"junk", whole[:-1], whole[:20], b"\xff" * 100:
        status, content = server.ask("/embed", body)
        assert status == 400
        assert content.startswith(b"bytes: ")
    with contextlib.suppress(urllib.error.URLError):  # it may end the connection before all is sent
        assert server.ask("/embed", bytes(2 << 20))[0] == 413
    assert server.ask("/none")[0] == 404
    assert server.embed(GOOD).shape == (2, 384)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "usage: "),
        (["one"], 2, "usage: "),
        (["--none", "one", "two"], 2, "unrecognized option"),
        (["--port", "x", "one", "two"], 1, "error: 'x' is not a number from 0 to 65535"),
        (["--runners", "0", "one", "two"], 1, "error: '0' is not a number from 1 to 1024"),
        (["none.pt2", "none.safetensors"], 1, "error: "),
        (["model.pt2", "none.safetensors"], 1, "error: [Errno 2] No such file or directory: 'none.safetensors'"),
        (
            ["--torchscript", "model.pt", "missing.safetensors"],
            1,
            "error: missing.safetensors: no tensor 'encoder.layer.0",
        ),
    ],
)
def test_wrong_arguments(program: Path, folder: Path, arguments: list[str], status: int, message: str) -> None:
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert message in done.stderr


def test_help(program: Path) -> None:
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--torchscript" in done.stdout


def test_a_port_that_is_taken(program: Path, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = ["--port", str(taken.getsockname()[1]), "model.pt2", "model.safetensors"]
        done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "error: cannot listen on 127.0.0.1:" in done.stderr


def test_it_ends_when_interrupted(program: Path, folder: Path) -> None:
    with serving(program, folder / "model.pt2", folder / "model.safetensors") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_swap_under_load(program: Path, folder: Path, kind: str) -> None:
    """No request fails, and each answer is wholly of the old or wholly of the new weights."""
    model = ["model.pt2"] if kind == "package" else ["--torchscript", "model.pt"]
    seconds = "60" if TORTURE else "4"
    output = python(EXAMPLE / "load_test.py", program, *model, MODEL, "--seconds", seconds, cwd=folder)
    counts = dict(re.findall(r"^ *(failed|wrong answers|by \S+) +(\d+)$", output, re.MULTILINE))
    assert counts["failed"] == counts["wrong answers"] == "0"
    assert int(counts["by model.safetensors"]) > 0 < int(counts["by tuned.safetensors"])


def test_the_documented_blocks(tmp_path: Path, build: Callable[[str, str], Path], prefix: Path) -> None:
    """docs/deployment.md, from the export to a running server, as somebody would paste it."""
    text = (ROOT / "docs/deployment.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = [block for block in blocks if "apt-get" not in block]
    assert len(blocks) >= 5
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = "".join(blocks).replace("8080", port).replace("build/server", str(tmp_path)).replace("60", "2")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p)' EXIT\n{script}"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": python_path(),
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert "transformers differs by at most" in done.stdout
    assert "ok tuned.safetensors" in done.stdout
