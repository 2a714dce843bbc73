"""Clock and chance of simulated hosts: the loop's virtual time, and randomness drawn from the seed."""

import asyncio
import random

EPOCH = 1_700_000_000.0
"""Unix time of the loop's time 0."""


class SimClock:
    """`atoll.clock.Clock` of whichever host asks: wall and monotonic time both follow the host's clock rate."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """Unix seconds as the host believes."""
        return EPOCH + self._loop.time()

    def monotonic(self) -> float:
        """Seconds on the host's clock."""
        return self._loop.time()


class SimChance:
    """`atoll.clock.Chance` from a seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(f"chance {seed}")

    def token_bytes(self, count: int) -> bytes:
        """Return bytes drawn from the seed."""
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        """Return a float in `[low, high]`."""
        return self._random.uniform(low, high)
