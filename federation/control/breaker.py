"""How fast, and after which failures how soon again, something may be asked: a token bucket and a breaker, as values.

Pure: times (seconds of one monotonic clock) and chance come as arguments, and each event returns the next state.
"""

from dataclasses import dataclass, replace

PROBE_S = 1.0
"""For how long to leave alone what another call is just probing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """`burst` calls at once, then `rate` a second. `tokens` below 0 are calls that wait for their turn."""

    rate: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> "Bucket":
        """Return a bucket from which nothing was taken yet."""
        return cls(rate=rate, burst=burst, tokens=burst, at=now)

    def take(self, now: float) -> tuple["Bucket", float]:
        """Take one token; return the bucket and the seconds until the call may be made (0: now)."""
        passed = max(0.0, now - self.at)
        tokens = min(self.burst, self.tokens + passed * self.rate) - 1.0
        return replace(self, tokens=tokens, at=max(now, self.at)), max(0.0, -tokens / self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How a breaker waits: it opens at the `after`th failure in a row, for a random time up to a ceiling.

    The ceiling is `first_s` and doubles with each opening that follows, up to `longest_s`.
    """

    after: int
    first_s: float
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Closed, open until a moment, or half open: then one call is let through, and decides.

    `until` is None while it is closed. `why` is the last failure in words. `probing` says that the call
    which decides is under way.
    """

    failures: int = 0
    ceiling: float = 0.0
    until: float | None = None
    why: str = ""
    probing: bool = False

    def wait(self, now: float) -> float:
        """Return for how long no call may be made; 0 when one may."""
        if self.until is None:
            return 0.0
        if now < self.until:
            return self.until - now
        return PROBE_S if self.probing else 0.0

    def called(self, now: float) -> "Breaker":
        """A call is made: on an open breaker whose time is over, it is the probe."""
        half_open = self.until is not None and now >= self.until
        return replace(self, probing=True) if half_open else self

    def succeeded(self, now: float) -> "Breaker":
        """A call went well: closes, unless the call began before the breaker opened, which proves nothing."""
        return self if self.until is not None and now < self.until else Breaker()

    def abandoned(self) -> "Breaker":
        """A call ended without an outcome: another may probe."""
        return replace(self, probing=False)

    def failed(self, now: float, why: str, pauses: Pauses, *, jitter: float, at_least: float = 0.0) -> "Breaker":
        """A call failed. `jitter` is drawn from 0..1; `at_least` is the pause that the other side asked for.

        Calls that fail while it is open were under way when it opened: they count as that same failure.
        """
        failures = self.failures + 1
        if self.until is not None and now < self.until:
            return replace(self, failures=failures, until=max(self.until, now + at_least))
        if failures < pauses.after and self.until is None:
            return replace(self, failures=failures, why=why)
        ceiling = min(self.ceiling * 2 or pauses.first_s, pauses.longest_s)
        return Breaker(failures=failures, ceiling=ceiling, until=now + at_least + jitter * ceiling, why=why)
