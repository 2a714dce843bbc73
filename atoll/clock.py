"""Time and chance as ports, so that every decision can be replayed from a seed."""

from typing import Protocol


class Clock(Protocol):
    """Where a process reads the time. No decision compares the clocks of two hosts (I11)."""

    def now(self) -> float:
        """Wall-clock time in Unix seconds: for records and for people, never for durations."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps: for timeouts, leases and idle times."""
        ...


class Chance(Protocol):
    """Where a process takes randomness from."""

    def token_bytes(self, count: int) -> bytes:
        """Return `count` unpredictable bytes (predictable from the seed in simulation)."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a float in `[low, high]`, for jitter."""
        ...
