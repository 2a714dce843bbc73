"""Failed proofs by source: the answer to each further one is held back longer, so that guessing and noise cost time.

Only answers that say no are held back: whoever has a good token is answered at once, also from the same address.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from atoll.clock import Clock
from tunnel.sources import source_of

FREE = 10
"""So many failures of one source within `FORGET_S` are answered at once …"""
STEP_S, MOST_S = 0.1, 5.0
"""… each further one so much later than the one before, up to that."""
HELD_LIMIT = 32
"""Most answers to one source that are held back at a time: further ones say that it is too much."""
FORGET_S = 60.0
"""Seconds without a failure after which a source begins anew."""
_SOURCES = 10_000


class Failures:
    """Counts failures; `name` tells the source of an address ("": this machine, which is not slowed)."""

    def __init__(self, clock: Clock, name: Callable[[str], str] = source_of) -> None:
        self._clock = clock
        self._name = name
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._held: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Failures by what came of them: `failed` (at once), `slowed`, `turned_away`."""

    def noted(self, address: str) -> float | None:
        """Count a failure: return for how many seconds its answer is to be held back, None for too many at a time."""
        source = self._name(address)
        now = self._clock.monotonic()
        count, at = self._known.pop(source, (0, now))
        count = 1 if now - at > FORGET_S else count + 1
        if source:
            self._known[source] = (count, now)
        if len(self._known) > _SOURCES:
            self._known.popitem(last=False)
        if not source or count <= FREE:
            self.refused["failed"] += 1
            return 0.0
        if self._held[source] >= HELD_LIMIT:
            self.refused["turned_away"] += 1
            return None
        self.refused["slowed"] += 1
        return min(MOST_S, STEP_S * (count - FREE))

    async def hold_back(self, address: str, wait: float) -> None:
        """Wait so long for an answer to this address."""
        source = self._name(address)
        self._held[source] += 1
        try:
            await asyncio.sleep(wait)
        finally:
            self._held[source] -= 1
            if not self._held[source]:
                del self._held[source]


def slowing(failures: Failures, too_many: Callable[[], web.Response]) -> Any:
    """Return the middleware that holds answers to failed proofs back; `too_many` answers what is too much."""

    @web.middleware
    async def slowed(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response = await handler(request)
        shown = "Authorization" in request.headers or request.method == "POST"
        if response.status != 401 or not shown or response.prepared:
            return response
        wait = failures.noted(request.remote or "")
        if wait is None:
            return too_many()
        if wait:
            await failures.hold_back(request.remote or "", wait)
        return response

    return slowed
