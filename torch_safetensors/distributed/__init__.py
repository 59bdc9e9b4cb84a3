"""Loads and saves what is spread over the ranks of ``torch.distributed``."""
