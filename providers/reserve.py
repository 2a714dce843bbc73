"""What of a cloud machine's memory an agent on it will find. Pure."""

from atoll.slots import MIB

RESERVE = 0.075
"""Part of a machine's memory that firmware and kernel take: Karpenter's default `vmMemoryOverheadPercent`."""


def usable(memory: int) -> int:
    """Return the bytes, whole MiB, that a shape may promise of so many: what a session asks for must fit its agent."""
    return round(memory * (1 - RESERVE)) // MIB * MIB
