"""Shows the library at work on a real model: eager, scripted, compiled, packaged, and in C++ without Python.

The model is all-MiniLM-L6-v2, which turns sentences into vectors; scripts/fetch_model.py downloads it. Everything
that is shown is checked, and the exit status is not 0 where a check fails.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "build/model"
BUILD = ROOT / "build/demo"

os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(BUILD / "inductor")  # read when torch is imported
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

import torch_safetensors  # noqa: E402

SENTENCES = ["a man is eating food", "someone is eating a piece of bread", "the stars are far away"]


# --- the model, written out --------------------------------------------------------------------------


def linear(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weights[name + ".weight"], weights[name + ".bias"])


def layer_norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.layer_norm(x, [x.size(-1)], weights[name + ".weight"], weights[name + ".bias"], 1e-12)


def attention(weights: dict[str, Tensor], name: str, x: Tensor, mask: Tensor, count: int = 12) -> Tensor:
    heads = []
    for part in ("query", "key", "value"):
        projected = linear(weights, name + ".self." + part, x)
        heads.append(projected.view(x.size(0), x.size(1), count, -1).transpose(1, 2))
    mixed = torch.nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask)
    return linear(weights, name + ".output.dense", mixed.transpose(1, 2).reshape(x.shape))


def embed(weights: dict[str, Tensor], tokens: Tensor, layers: int = 6) -> Tensor:
    """Sentences, a row of token numbers each and padded with 0, to vectors of length 1."""
    present = tokens != 0
    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: tokens.size(1)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(weights, "embeddings.LayerNorm", x)
    for i in range(layers):
        name = "encoder.layer." + str(i)
        attended = attention(weights, name + ".attention", x, present[:, None, None, :])
        x = layer_norm(weights, name + ".attention.output.LayerNorm", x + attended)
        inner = torch.nn.functional.gelu(linear(weights, name + ".intermediate.dense", x))
        x = layer_norm(weights, name + ".output.LayerNorm", x + linear(weights, name + ".output.dense", inner))
    kept = present.unsqueeze(-1).to(x.dtype)
    return torch.nn.functional.normalize((x * kept).sum(1) / kept.sum(1), dim=1)


class Encoder(torch.nn.Module):
    """Has no parameters: it loads its weights where it runs, from a file it knows the name of."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, tokens: Tensor) -> Tensor:
        return embed(torch.ops.safetensors.load_file(self.path), tokens)


def tokenize(sentences: list[str]) -> Tensor:
    """For words that the vocabulary holds whole."""
    numbers = {word: number for number, word in enumerate((MODEL / "vocab.txt").read_text().splitlines())}
    rows = [[numbers[word] for word in ["[CLS]", *sentence.split(), "[SEP]"]] for sentence in sentences]
    length = max(map(len, rows))
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


# --- what is shown -----------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def step(title: str) -> None:
    say(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}")


def check(good: bool, text: str) -> None:
    """Prints it, as done or as failed; a failure ends the demo."""
    say(f"  {'ok' if good else 'FAILED'}: {text}")
    if not good:
        sys.exit(1)


def read_independently(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Dtype, shape and bytes of each tensor, read with nothing but Python."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    data = content[8 + size :]
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


NUMPY_TYPES = {"F32": np.float32, "I64": np.int64}


def is_same(tensor: Tensor, dtype: str, shape: list[int], data: bytes) -> bool:
    expected = np.frombuffer(data, NUMPY_TYPES[dtype]).reshape(shape)
    array = tensor.numpy()
    return array.dtype == expected.dtype and array.shape == expected.shape and array.tobytes() == data


def show_similarities(what: str, embeddings: Tensor) -> None:
    pairs = embeddings @ embeddings.T
    numbers = [pairs[i, j].item() for i in range(len(pairs)) for j in range(i + 1, len(pairs))]
    say(f"  {what:13}" + "".join(f" {number:9.6f}" for number in numbers))


def is_close(a: Tensor, b: Tensor) -> bool:
    """Up to what another order of additions does to float32."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=2e-6)


def show_load_and_save(path: Path, folder: Path) -> None:
    step(f"Load {path.name} ({path.stat().st_size / 1e6:.1f} MB) with torch.ops.safetensors.load_file")
    start = time.perf_counter()
    tensors = torch.ops.safetensors.load_file(str(path))
    say(f"  {len(tensors)} tensors in {(time.perf_counter() - start) * 1e3:.1f} ms")
    for name in list(tensors)[:3]:
        say(f"    {name}: {str(tensors[name].dtype).removeprefix('torch.')} {list(tensors[name].shape)}")
    independent = read_independently(path)
    check(
        tensors.keys() == independent.keys() and all(is_same(tensors[name], *independent[name]) for name in tensors),
        f"all {len(independent)} tensors have the dtype, shape and bytes that json, struct and numpy find",
    )

    step("Save them again with torch.ops.safetensors.save_file")
    metadata = torch.ops.safetensors.metadata(str(path))
    start = time.perf_counter()
    torch.ops.safetensors.save_file(tensors, str(folder / "again.safetensors"), metadata)
    say(f"  {(time.perf_counter() - start) * 1e3:.1f} ms")
    check((folder / "again.safetensors").read_bytes() == path.read_bytes(), "the bytes are those of the original")


def show_python(path: Path, tokens: Tensor, folder: Path) -> tuple[Tensor, Tensor]:
    """What the scripted module and the package compute in this process."""
    step("Compare three sentences, with weights that are loaded within the function")
    for number, sentence in enumerate(SENTENCES, 1):
        say(f"  {number}: {sentence}")
    say(f"  {'similarity of':13} {'1 and 2':>9} {'1 and 3':>9} {'2 and 3':>9}")
    encoder = Encoder(str(path))
    eager = encoder(tokens)
    show_similarities("eager", eager)

    torch.jit.save(torch.jit.script(encoder), folder / "encoder.pt")
    scripted = torch.jit.load(folder / "encoder.pt")(tokens)
    show_similarities("TorchScript", scripted)

    compiled = torch.compile(encoder, fullgraph=True)(tokens)
    show_similarities("torch.compile", compiled)

    program = torch.export.export(encoder, (tokens,), strict=True)
    torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "encoder.pt2"))
    packaged = torch._inductor.aoti_load_package(str(folder / "encoder.pt2"))(tokens)
    show_similarities("AOTInductor", packaged)

    for what, result in (("TorchScript", scripted), ("torch.compile", compiled), ("AOTInductor", packaged)):
        check(is_close(result, eager), f"{what} computes what eager code does")
    return scripted, packaged


def build_program() -> Path:
    """examples/deploy, built as its own project against the package that is imported here."""
    tree = BUILD / f"deploy-torch-{torch.__version__}"
    search = f"{torch_safetensors.cmake_prefix_path};{torch.utils.cmake_prefix_path}"
    for command in (
        ["cmake", "-S", ROOT / "examples/deploy", "-B", tree, f"-DCMAKE_PREFIX_PATH={search}"],
        ["cmake", "--build", tree],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            say(done.stdout)
            sys.exit(f"error: {' '.join(map(str, command))} failed")
    return tree / "deploy"


def show_program(path: Path, tokens: Tensor, folder: Path, expected: tuple[Tensor, Tensor]) -> None:
    step("Run the same two files from C++: examples/deploy, a program without Python")
    program = build_program()
    torch_safetensors.save_file({"tokens": tokens}, folder / "inputs.safetensors")
    names = ("inputs.safetensors", "encoder.pt", "encoder.pt2", "outputs.safetensors")
    done = subprocess.run([program, path, *(folder / name for name in names)], stdout=subprocess.PIPE, text=True)
    say(done.stdout.rstrip())
    if done.returncode != 0:
        sys.exit(f"error: {program} failed")

    outputs = torch_safetensors.load_file(folder / "outputs.safetensors")
    scripted, packaged = expected
    check(is_close(outputs["scripted"], scripted), "TorchScript computes in C++ what it does in Python")
    check(is_close(outputs["packaged"], packaged), "AOTInductor computes in C++ what it does in Python")
    listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True).stdout
    libraries = [line.split()[0] for line in listed.splitlines()]
    check(
        "libtorch_safetensors.so" in libraries and not any("python" in library for library in libraries),
        f"of the {len(libraries)} libraries that the program needs none is Python's",
    )


def main() -> None:
    """Runs all of it, in a folder that is deleted afterwards."""
    warnings.simplefilter("ignore")  # that TorchScript is deprecated, and what torch's own parts say of each other
    path = MODEL / "model.safetensors"
    if not path.exists():
        sys.exit(f"error: {path} is missing: run scripts/fetch_model.py")
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=BUILD))
    try:
        with torch.inference_mode():
            tokens = tokenize(SENTENCES)
            show_load_and_save(path, folder)
            show_program(path, tokens, folder, show_python(path, tokens, folder))
    finally:
        shutil.rmtree(folder)
    step("All of it holds.")


if __name__ == "__main__":
    main()
