"""``python -m torch_safetensors`` is ``torch-safetensors``."""

from torch_safetensors._cli import entry

if __name__ == "__main__":
    entry()
