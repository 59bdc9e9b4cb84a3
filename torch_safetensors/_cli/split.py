"""``torch-safetensors split``: one checkpoint in several files, with the index that goes with them."""

from __future__ import annotations

import argparse

from .._files import load_file
from .._listing import list_tensors
from .._safe_open import safe_open
from .._sharded import save_sharded
from ._copy import report
from ._output import add_force, check_new
from ._progress import is_watched

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "split a checkpoint into shards and an index"
EPILOG = """\
Laid out as transformers does: DIR/model-00001-of-00003.safetensors and so on, DIR/model.safetensors.index.json.
A checkpoint that fits into one shard is DIR/model.safetensors.

examples:
  torch-safetensors split model.safetensors checkpoint/ --max-shard-size 2GB
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="a file, an index, or a directory")
    parser.add_argument("directory", metavar="DIR", help="where the shards go")
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="the most of one file (5GB)")
    add_force(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the shards."""
    check_new(options.directory, options.force)
    with safe_open(options.path) as handle:
        metadata = handle.metadata()
    # Mapped, so that it need not fit into memory.
    tensors = load_file(options.path, backend="mmap")
    save_sharded(tensors, options.directory, metadata, options.max_shard_size, progress=is_watched())
    with safe_open(options.directory) as handle:
        listing = list_tensors(handle)
    for which, file in enumerate(listing.files):
        sizes = [tensor.nbytes for tensor in listing.tensors if tensor.file == which]
        report(file.path, len(sizes), sum(sizes))
    return 0
