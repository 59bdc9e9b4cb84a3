"""Makes the pictures of the command line in docs/images: of the model that scripts/fetch_model.py downloads, and of a
made-up large one. Needs what `scripts/setup.sh model` and `scripts/setup.sh plot` install.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

from rich.console import Console

from torch_safetensors import safe_open
from torch_safetensors._cli import _grid, main
from torch_safetensors._listing import File, Listing, Tensor, list_tensors
from torch_safetensors._plot import plot

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "build/model/model.safetensors"
IMAGES = ROOT / "docs/images"
NAME = "all-MiniLM-L6-v2/model.safetensors"


def large_model() -> Listing:
    """What a language model of eight billion parameters says in its header, its MLPs in float8."""
    shapes = {f"model.{name}.weight": ("BF16", (128256, 4096)) for name in ("embed_tokens", "lm_head")}
    for layer in range(32):
        prefix = f"model.layers.{layer}"
        for name, rows in ("q", 4096), ("k", 1024), ("v", 1024), ("o", 4096):
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = "BF16", (rows, 4096)
        for name, shape in ("gate", (14336, 4096)), ("up", (14336, 4096)), ("down", (4096, 14336)):
            shapes[f"{prefix}.mlp.{name}_proj.weight"] = "F8_E4M3", shape
        for name in "input_layernorm", "post_attention_layernorm":
            shapes[f"{prefix}.{name}.weight"] = "F32", (4096,)
    header = 40_000
    tensors = []
    begin = header
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: (item[1][0], item[0])):
        nbytes = {"BF16": 2, "F8_E4M3": 1, "F32": 4}[dtype]
        for size in shape:
            nbytes *= size
        tensors.append(Tensor(name, dtype, shape, nbytes, begin, 0))
        begin += nbytes
    return Listing(tensors, [File("model.safetensors", header, begin)], None)


def screenshot(page: Path, image: Path) -> None:
    """What Chromium shows of a page."""
    command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=5000"]
    command += ["--window-size=1400,970", f"--screenshot={image}", page.as_uri()]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def terminal(image: Path, *arguments: str) -> None:
    """What a command prints to a terminal."""
    console = Console(record=True, width=86, force_terminal=True, highlight=False, markup=False)
    with (
        mock.patch.object(_grid, "console", return_value=console),
        mock.patch.object(_grid, "is_terminal", return_value=True),
    ):
        main([*arguments])
    text = console.export_svg(title=" ".join(("torch-safetensors", *arguments)))
    # A page in the documentation loads no fonts from elsewhere.
    text = re.sub(r"@font-face \{.*?\}", "", text, flags=re.DOTALL)
    image.write_text(text.replace("Fira Code,", "'Fira Code', 'DejaVu Sans Mono', Consolas,"))


def make_images() -> None:
    """Makes them all."""
    IMAGES.mkdir(exist_ok=True)
    with safe_open(MODEL) as file:
        plot(list_tensors(file), NAME, str(IMAGES / "info-plot.png"))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "model.html")
        plot(large_model(), "a made-up model of eight billion parameters", str(page))
        screenshot(page, IMAGES / "info-plot-html.png")
    os.chdir(MODEL.parent)
    terminal(IMAGES / "info.svg", "info", MODEL.name, "--tree")


if __name__ == "__main__":
    make_images()
