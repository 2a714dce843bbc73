"""The real clock and the real source of randomness of this machine."""

import os
import random
import time


class SystemClock:
    """The machine's clocks, behind `atoll.clock.Clock`."""

    def now(self) -> float:
        """Wall-clock time in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()


class SystemChance:
    """The kernel's randomness, behind `atoll.clock.Chance`."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token_bytes(self, count: int) -> bytes:
        """Return `count` unpredictable bytes, fit for secrets."""
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        """Return a float in `[low, high]`."""
        return self._random.uniform(low, high)
