"""Makes what the server runs of a sentence encoder: model.pt2, a package without weights, and model.pt for TorchScript.

    python export.py FOLDER OUT    # FOLDER as the hub has it: config.json, model.safetensors, ...

The package runs on FOLDER/model.safetensors as it is, and on every fine-tune of it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
import torch
import transformers
from torch import Tensor

from torch_safetensors import aoti

#: What a request may have, which the server checks, too (tokens.cpp).
MAX_SENTENCES = 64
MAX_TOKENS = 512


class SentenceEncoder(transformers.BertModel):
    """A BERT whose tokens' vectors are averaged, as all-MiniLM-L6-v2 is used. Its parameters have the file's names."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """(sentences, tokens) int64, twice -> (sentences, 384) float32, of length 1."""
        hidden = super().forward(input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the model, as the hub has it")
    parser.add_argument("out", type=Path, help="the folder for model.pt2 and model.pt")
    arguments = parser.parse_args()
    model = SentenceEncoder.from_pretrained(arguments.folder, attn_implementation="sdpa").eval().requires_grad_(False)
    tokens = torch.randint(1000, 2000, (3, 7))
    mask = torch.ones_like(tokens)
    mask[0, 5:] = 0
    arguments.out.mkdir(parents=True, exist_ok=True)

    sentences, length = torch.export.Dim("sentences", max=MAX_SENTENCES), torch.export.Dim("tokens", max=MAX_TOKENS)
    shape = {0: sentences, 1: length}
    program = torch.export.export(model, (tokens, mask), dynamic_shapes=(shape, shape))
    weights = arguments.folder / "model.safetensors"
    aoti.package(program, arguments.out / "model.pt2", weights=weights, write_weights=False)

    torch.jit.trace(model, (tokens, mask)).save(arguments.out / "model.pt")


if __name__ == "__main__":
    main()
