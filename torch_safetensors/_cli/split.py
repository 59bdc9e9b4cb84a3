"""``torch-safetensors split``: one checkpoint in several files, with the index that goes with them."""

from __future__ import annotations

import argparse

from .._listing import list_tensors
from .._safe_open import safe_open
from .._sharded import save_sharded
from ._checksums import KEPT, add_checksum
from ._copy import report
from ._output import add_force, check_new
from ._progress import is_watched

__all__ = ["EPILOG", "HELP", "add_arguments", "run"]

HELP = "split a checkpoint into shards and an index"
EPILOG = f"""\
Laid out as transformers does: DIR/model-00001-of-00003.safetensors and so on, DIR/model.safetensors.index.json.
A checkpoint that fits into one shard is DIR/model.safetensors.
{KEPT}
examples:
  torch-safetensors split model.safetensors checkpoint/ --max-shard-size 2GB
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this command."""
    parser.add_argument("path", metavar="PATH", help="a file, an index, or a directory")
    parser.add_argument("directory", metavar="DIR", help="where the shards go")
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="the most of one file (5GB)")
    add_checksum(parser)
    add_force(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the shards."""
    check_new(options.directory, options.force)
    # Mapped, so that it need not fit into memory.
    with safe_open(options.path, backend="mmap") as handle:
        metadata = handle.metadata()
        checksum = options.checksum or bool(handle._call("_files_with_checksums"))
        handle._call("_verify_recorded")
        save_sharded(
            handle.get_tensors(),
            options.directory,
            metadata,
            options.max_shard_size,
            checksum=checksum,
            progress=is_watched(),
        )
    with safe_open(options.directory) as handle:
        listing = list_tensors(handle)
    for which, file in enumerate(listing.files):
        sizes = [tensor.nbytes for tensor in listing.tensors if tensor.file == which]
        report(file.path, len(sizes), sum(sizes))
    return 0
