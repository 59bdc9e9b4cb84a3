"""Loads and saves what is spread over the ranks of ``torch.distributed``."""

from ._save import save_file, save_model

__all__ = ["save_file", "save_model"]
