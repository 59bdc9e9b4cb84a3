"""The command line, ``torch-safetensors``: one module per command, and what they share."""

from ._main import entry, main

__all__ = ["entry", "main"]
