"""Old name of `atoll.gpus`."""

from atoll.gpus import MEMORY, canonical, gpu

__all__ = ["MEMORY", "canonical", "gpu"]
