"""Loads and saves what is spread over the ranks of ``torch.distributed``, each rank its own part.

docs/distributed.md shows how, with FSDP2, with tensor parallelism and with ``torch.distributed.checkpoint``.
"""

from ._checkpoint_reader import SafetensorsReader
from ._checkpoint_writer import SafetensorsWriter
from ._load import load_file
from ._load_model import load_model
from ._save import save_file, save_model

__all__ = ["SafetensorsReader", "SafetensorsWriter", "load_file", "load_model", "save_file", "save_model"]
