"""How long to wait before dialling again: full jitter, so that a lost control plane meets no herd (I17)."""

import asyncio
import contextlib

from atoll.clock import Chance

FIRST_S = 0.2
LONGEST_S = 10.0
"""2,000 agents then ask 400 times a second at most: a control plane that comes back serves 700 a second."""
HURRY_S = 0.5
"""Longest wait while it is known that somebody waits for this dial."""


class Backoff:
    """The waits between the dials of one agent (or of one stream, which is in more of a hurry)."""

    def __init__(self, chance: Chance, *, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._chance = chance
        self._first = self._ceiling = first_s
        self._longest = longest_s
        self._floor = 0.0

    def next(self) -> float:
        """Return the seconds to wait now: random up to a ceiling that doubles each time (0.2 to 10 s by default)."""
        wait = self._floor + self._chance.uniform(0.0, self._ceiling)
        self._ceiling = min(self._longest, self._ceiling * 2)
        self._floor = 0.0
        return wait

    async def pause(self, awaited: asyncio.Event) -> None:
        """Wait as long as `next` says, or from when the dial is `awaited` a random part of `HURRY_S`, if that is less.

        What `retry_after` was told is kept to all the same. Only agents that are awaited hurry: those who wait for
        them are as many, and dial as often.
        """
        floor = self._floor
        wait = self.next() - floor
        await asyncio.sleep(floor)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await awaited.wait()
                await asyncio.sleep(self._chance.uniform(0.0, HURRY_S))

    def succeeded_for(self, seconds: float) -> None:
        """Tell how long a link stood: the ceiling starts anew only if that was longer than the longest wait."""
        if seconds >= self._longest:
            self._ceiling = self._first

    def retry_after(self, seconds: float) -> None:
        """Honour the control plane's wish: the next wait is at least this long."""
        self._floor = max(0.0, seconds)
