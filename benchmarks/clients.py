"""How long packages that use safetensors files take with the reference, and with this package in its place.

``python -m benchmarks.clients [FOLDER] [--rounds 9] [--width 768]`` runs each operation in turns with both
(``install()``, ``uninstall()``), in one process and on files in FOLDER (build/clients) that are in memory, and prints
medians. What is loaded is also read, once per page. The packages are those of requirements/clients.txt
(``scripts/setup.sh clients``); operations of those that are missing are left out.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import torch_safetensors

ROOT = Path(__file__).resolve().parent.parent
PAGE = 1024  # elements, of 4 bytes or fewer

Action = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """Of the models."""

    width: int
    layers: int


def touch(tensors: dict[str, torch.Tensor]) -> None:
    """Reads every page."""
    for tensor in tensors.values():
        if not tensor.is_meta:
            tensor.detach().flatten()[::PAGE].to(torch.float32).sum()


def llama(size: Size) -> Any:
    transformers = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    config = transformers.LlamaConfig(
        vocab_size=16 * size.width,
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


def total_size(model: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def save_pretrained(folder: Path, size: Size) -> Action:
    model = llama(size)
    return lambda: model.save_pretrained(folder)


def from_pretrained(folder: Path, size: Size, shards: int = 1) -> Action:
    model = llama(size)
    model.save_pretrained(folder, max_shard_size=2 * total_size(model) // shards)
    return lambda: touch(type(model).from_pretrained(folder, dtype="auto").state_dict())


def from_pretrained_sharded(folder: Path, size: Size) -> Action:
    return from_pretrained(folder, size, 16)


def perceptron(size: Size) -> torch.nn.Module:
    """Of blocks as transformers have them, without attention."""
    width = size.width
    return torch.nn.Sequential(
        *(
            torch.nn.Sequential(
                torch.nn.LayerNorm(width),
                torch.nn.Linear(width, 4 * width),
                torch.nn.GELU(),
                torch.nn.Linear(4 * width, width),
            )
            for _ in range(size.layers)
        )
    )


def dispatch(folder: Path, size: Size) -> Action:
    accelerate = importlib.import_module("accelerate")
    torch_safetensors.save_sharded(perceptron(size), folder, max_shard_size="20MB")
    with accelerate.init_empty_weights():
        empty = perceptron(size)

    def load() -> None:
        model = copy.deepcopy(empty)
        accelerate.load_checkpoint_and_dispatch(model, folder, device_map={"": "cpu"})
        touch(model.state_dict())

    return load


def offloaded_pass(folder: Path, size: Size) -> Action:
    """Whose hooks read every weight from the file."""
    accelerate = importlib.import_module("accelerate")
    path = folder / "model.safetensors"
    torch_safetensors.save_model(perceptron(size), path)
    index = {
        name: {"safetensors_file": str(path), "weight_name": name, "dtype": "float32"}
        for name in torch_safetensors.safe_open(path)
    }
    (folder / "index.json").write_text(json.dumps(index))
    with accelerate.init_empty_weights():
        model = perceptron(size).eval()
    weights = accelerate.utils.OffloadedWeightsLoader(save_folder=folder)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"), state_dict=weights)
    x = torch.ones(1, size.width)

    def run() -> None:
        with torch.inference_mode():
            model(x)

    return run


def hub_save(folder: Path, size: Size) -> Action:
    hub = importlib.import_module("huggingface_hub")
    model = perceptron(size)
    return lambda: hub.save_torch_model(model, folder)


def hub_load(folder: Path, size: Size) -> Action:
    hub = importlib.import_module("huggingface_hub")
    model = perceptron(size)
    hub.save_torch_model(model, folder)
    return lambda: hub.load_torch_model(model, folder)


def unet(folder: Path, size: Size) -> Action:
    diffusers = importlib.import_module("diffusers")
    diffusers.utils.logging.disable_progress_bar()
    channels = size.width // 8, size.width // 4, size.width // 2, size.width // 2
    model = diffusers.UNet2DModel(block_out_channels=channels, norm_num_groups=8)
    model.save_pretrained(folder)
    return lambda: touch(diffusers.UNet2DModel.from_pretrained(folder).state_dict())


def adapter(folder: Path, size: Size) -> Action:
    peft = importlib.import_module("peft")
    base = llama(size)
    config = peft.LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)

    def save_and_load() -> None:
        model.save_pretrained(folder)
        model.load_adapter(folder, "default")

    return save_and_load


def quantized(folder: Path, size: Size) -> Action:
    support = importlib.import_module("torchao.prototype.safetensors.safetensors_support")
    quantization = importlib.import_module("torchao.quantization")
    model = torch.nn.Sequential(*(torch.nn.Linear(size.width, size.width) for _ in range(4 * size.layers)))
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig(version=2))
    tensors, metadata = support.flatten_tensor_state_dict(model.state_dict())
    torch_safetensors.save_file(tensors, folder / "model.safetensors", metadata)
    safetensors = importlib.import_module("safetensors")
    loader = importlib.import_module("safetensors.torch")

    def load() -> None:
        with safetensors.safe_open(folder / "model.safetensors", framework="pt") as file:
            texts = file.metadata()
        loaded = loader.load_file(folder / "model.safetensors")
        touch(loaded)
        support.unflatten_tensor_state_dict(loaded, texts)

    return load


OPERATIONS: dict[str, Callable[[Path, Size], Action]] = {
    "transformers: save_pretrained": save_pretrained,
    "transformers: from_pretrained": from_pretrained,
    "transformers: from_pretrained, shards": from_pretrained_sharded,
    "accelerate: load_checkpoint_and_dispatch": dispatch,
    "accelerate: a pass with offloaded weights": offloaded_pass,
    "huggingface_hub: save_torch_model": hub_save,
    "huggingface_hub: load_torch_model": hub_load,
    "diffusers: UNet2DModel.from_pretrained": unet,
    "PEFT: a LoRA adapter, saved and loaded": adapter,
    "torchao: int8 weights, loaded": quantized,
}


def seconds(action: Action, ours: bool) -> float:
    if ours:
        torch_safetensors.install()
    try:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin
    finally:
        torch_safetensors.uninstall()


def compare(action: Action, rounds: int) -> tuple[float, float]:
    """Medians with the reference and with this package, after one round that nobody counts."""
    samples: dict[bool, list[float]] = {False: [], True: []}
    for round_ in range(rounds + 1):
        for ours in (False, True) if round_ % 2 else (True, False):
            sample = seconds(action, ours)
            if round_ > 0:
                samples[ours].append(sample)
    return statistics.median(samples[False]), statistics.median(samples[True])


def main(arguments: list[str] | None = None) -> None:
    """Prints the table as the results come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build/clients")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=768, help="of the models, in features")
    parser.add_argument("--layers", type=int, default=12)
    options = parser.parse_args(arguments)
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    print("| operation | reference | ours | ratio |")
    print("|---|---|---|---|")
    for number, (name, prepare) in enumerate(OPERATIONS.items()):
        folder = options.folder / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            action = prepare(folder, Size(options.width, options.layers))
        except ImportError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        reference, ours = compare(action, options.rounds)
        print(f"| {name} | {1000 * reference:.1f} ms | {1000 * ours:.1f} ms | {reference / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
