"""Asks the server for embeddings, and shows how alike sentences are.

    python client.py FOLDER "a man is eating food" "someone is eating bread" [--url http://127.0.0.1:8080] [--check]

FOLDER has the tokenizer; with --check the model there computes them, too, by transformers.
"""

from __future__ import annotations

import argparse
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
import torch
from tokenizers import Tokenizer
from torch import Tensor

from torch_safetensors import load, save


def tokenize(tokenizer: Tokenizer, sentences: Sequence[str]) -> dict[str, Tensor]:
    """What a request needs, each (sentences, tokens) int64."""
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": torch.tensor([one.ids for one in encoded]),
        "attention_mask": torch.tensor([one.attention_mask for one in encoded]),
    }


def embed(url: str, tokens: dict[str, Tensor]) -> Tensor:
    """(sentences, 384) float32, of length 1."""
    request = urllib.request.Request(f"{url}/embed", save(tokens), {"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request) as response:
        return load(response.read())["embeddings"]


def embed_here(folder: Path, tokens: dict[str, Tensor]) -> Tensor:
    """The same by transformers."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the model, as the hub has it")
    parser.add_argument("sentences", nargs="+")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--check", action="store_true", help="compare with transformers")
    arguments = parser.parse_args()
    tokens = tokenize(Tokenizer.from_file(str(arguments.folder / "tokenizer.json")), arguments.sentences)
    try:
        embeddings = embed(arguments.url, tokens)
    except urllib.error.HTTPError as error:
        sys.exit(f"error: {error.code}: {error.read().decode().strip()}")
    except urllib.error.URLError as error:
        sys.exit(f"error: {arguments.url}: {error.reason}")
    torch.set_printoptions(precision=4, sci_mode=False)
    print(embeddings @ embeddings.T)
    if arguments.check:
        difference = (embeddings - embed_here(arguments.folder, tokens)).abs().max().item()
        print(f"transformers differs by at most {difference:.1e}")
        sys.exit(difference > 1e-5)


if __name__ == "__main__":
    main()
