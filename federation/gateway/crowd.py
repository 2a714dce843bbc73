"""How much of an installation visitors of public apps, of whom nothing is known, may have at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from atoll.clock import Clock
from atoll.errors import Unavailable

LIMIT = 512
"""Requests and WebSockets of all public apps together."""
APP_LIMIT = 128
"""The same of one app."""
SOURCE_LIMIT = 32
"""The same from one address."""
RATE, BURST = 100.0, 400.0
"""Requests a second to one app, and how many at once after a pause."""


class TooMany(Unavailable):
    """A public app has more visitors than it may have at a time."""

    status = 429


class Crowd:
    """Those who visit public apps now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._apps: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()
        self._left: dict[str, tuple[float, float]] = {}

    @contextmanager
    def one(self, app: str, source: str) -> Iterator[None]:
        """Count a visit of an app from an address while it lasts; raise `TooMany` where it is one too many."""
        full = self._apps.total() >= LIMIT or self._apps[app] >= APP_LIMIT or self._sources[source] >= SOURCE_LIMIT
        if full or not self._take(app):
            self._forget(app, source)
            raise TooMany("this public app has too many visitors now", hint="try again in a moment")
        self._apps[app] += 1
        self._sources[source] += 1
        try:
            yield
        finally:
            self._apps[app] -= 1
            self._sources[source] -= 1
            self._forget(app, source)

    def _take(self, app: str) -> bool:
        now = self._clock.monotonic()
        tokens, at = self._left.get(app, (BURST, now))
        tokens = min(BURST, tokens + (now - at) * RATE)
        if tokens < 1:
            return False
        self._left[app] = tokens - 1, now
        if len(self._left) > LIMIT:  # apps that nobody visited for so long that they are as if new
            self._left = {each: (n, t) for each, (n, t) in self._left.items() if n + (now - t) * RATE < BURST}
        return True

    def _forget(self, app: str, source: str) -> None:
        for counter, key in ((self._apps, app), (self._sources, source)):
            if not counter[key]:
                del counter[key]
