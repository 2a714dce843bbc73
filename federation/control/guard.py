"""A driver that stands in front of a driver: paces its calls and leaves alone for a while what fails (I9)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import structlog

from atoll.clock import Chance, Clock
from atoll.instance import Shape
from atoll.states import Reason
from federation.control.breaker import Breaker, Bucket, Pauses
from federation.control.config import ControlConfig
from providers.errors import BadRequest, Capacity, ProviderError, Throttled
from providers.port import Driver, Finding, Intent, Limit, Machine
from providers.prices.book import Book

log = structlog.get_logger("control")
Result = TypeVar("Result")
LONGEST_QUEUE_S = 30.0
"""A call that would wait longer for its turn is refused instead."""
_IN_A_ROW = {Reason.THROTTLED: 1, Reason.AUTH: 1, Reason.CREATE_UNKNOWN: 3}
"""Errors that say something of the account or the way to it, and at how many of them calls pause."""


class Calls(StrEnum):
    """Classes of calls: what happens to one does not hold up another. Terminating never waits for a listing."""

    CREATE = "create"
    READ = "read"  # machines and their consoles
    OFFERS = "offers"  # shapes, prices and limits
    CHANGE = "change"  # start, stop, terminate


_LONGEST = {Calls.READ: 60.0, Calls.CHANGE: 60.0}
"""Machines that nobody looks at or ends cost money: those calls never pause for longer."""


class Paused(Throttled):
    """The call was not made: the guard leaves its class alone for `retry_after` seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Something that is not asked for now: a class of calls, or a shape; why, and for how many seconds yet."""

    what: str
    why: str
    left_s: float


class Guard:
    """One provider's driver, guarded. State is of this process: a new one begins without a memory of failures.

    Each class of calls has a token bucket, and for each kind of error that concerns the whole account a breaker.
    Offers have breakers of their own: a shape for which there is no capacity delays no other shape.
    """

    def __init__(self, driver: Driver, provider: str, config: ControlConfig, clock: Clock, chance: Chance) -> None:
        self._driver = driver
        self._provider = provider
        self._config = config
        self._clock = clock
        self._chance = chance
        self._buckets: dict[Calls, Bucket] = {}
        self._breakers: dict[tuple[Calls, Reason], Breaker] = {}
        self._offers: dict[str, Breaker] = {}

    # -- what is left alone ---------------------------------------------------------------------------

    def blocked(self, shape: Shape) -> str:
        """Return why this shape is not asked for now, with the time left; "" when it may be."""
        now = self._clock.monotonic()
        found = [self._breakers[key] for key in self._of(Calls.CREATE)]
        found += [self._offers[key] for key in (shape.key, _zone(shape)) if key in self._offers]
        paused = [(left, breaker.why) for breaker in found if (left := breaker.wait(now)) > 0]
        left, why = max(paused, default=(0.0, ""))
        return f"{why} (tried again in {left:.0f} s)" if why else ""

    def shun(self, shape: Shape, why: str) -> None:
        """Leave a shape alone for a while, although its creation went well: its machine was of no use."""
        self._fail_offer(shape.key, why)

    def pauses(self) -> list[Pause]:
        """Return everything that is left alone now."""
        now = self._clock.monotonic()
        named = [(f"{calls} calls", breaker) for (calls, _), breaker in self._breakers.items()]
        named += list(self._offers.items())
        return [Pause(what=what, why=b.why, left_s=left) for what, b in named if (left := b.wait(now)) > 0]

    # -- the port -----------------------------------------------------------------------------------

    async def doctor(self) -> list[Finding]:
        """Check the account, whatever is paused: a person asks."""
        return await self._driver.doctor()

    async def quota(self) -> list[Limit]:
        """Return the account's limits."""
        return await self._call(Calls.OFFERS, self._driver.quota)

    async def shapes(self, prices: Book) -> list[Shape]:
        """Return what could be made."""
        return await self._call(Calls.OFFERS, lambda: self._driver.shapes(prices))

    async def create(self, intent: Intent) -> Machine:
        """Make a machine; a refusal that concerns this offer is remembered for it."""
        try:
            machine = await self._call(Calls.CREATE, lambda: self._driver.create(intent))
        except (Capacity, BadRequest) as error:
            zone = isinstance(error, Capacity) and error.scope == "zone"
            self._fail_offer(_zone(intent.shape) if zone else intent.shape.key, _words(error))
            raise
        self._offers.pop(intent.shape.key, None)
        self._offers.pop(_zone(intent.shape), None)
        return machine

    async def describe(self, owner: str) -> list[Machine]:
        """List machines."""
        return await self._call(Calls.READ, lambda: self._driver.describe(owner))

    async def start(self, provider_id: str) -> None:
        """Start a machine."""
        await self._call(Calls.CHANGE, lambda: self._driver.start(provider_id))

    async def stop(self, provider_id: str) -> None:
        """Stop a machine."""
        await self._call(Calls.CHANGE, lambda: self._driver.stop(provider_id))

    async def terminate(self, provider_id: str) -> None:
        """End a machine."""
        await self._call(Calls.CHANGE, lambda: self._driver.terminate(provider_id))

    async def console(self, provider_id: str) -> str:
        """Return what a machine printed."""
        return await self._call(Calls.READ, lambda: self._driver.console(provider_id))

    # -- how -----------------------------------------------------------------------------------------

    async def _call(self, calls: Calls, call: Callable[[], Awaitable[Result]]) -> Result:
        self._pass(calls)
        if wait := self._turn(calls):
            await asyncio.sleep(wait)
            self._pass(calls)
        now = self._clock.monotonic()
        for key in self._of(calls):
            self._breakers[key] = self._breakers[key].called(now)
        try:
            result = await call()
        except ProviderError as error:
            self._judge(calls, error)
            raise
        except BaseException:
            for key in self._of(calls):
                self._breakers[key] = self._breakers[key].abandoned()
            raise
        self._well(calls)
        return result

    def _pass(self, calls: Calls) -> None:
        """Raise `Paused` while a breaker of this class is open."""
        now = self._clock.monotonic()
        waits = [(self._breakers[key].wait(now), self._breakers[key].why) for key in self._of(calls)]
        left, why = max(waits, default=(0.0, ""))
        if left > 0:
            raise Paused(f"{calls} calls to {self._provider} are paused: {why}", retry_after=left)

    def _turn(self, calls: Calls) -> float:
        """Take a token; return how long to wait for it."""
        now = self._clock.monotonic()
        bucket = self._buckets.get(calls) or Bucket.full(self._config.calls_rate, self._config.calls_burst, now)
        bucket, wait = bucket.take(now)
        if wait > LONGEST_QUEUE_S:
            raise Paused(f"too many {calls} calls to {self._provider} wait already", retry_after=wait)
        self._buckets[calls] = bucket
        return wait

    def _judge(self, calls: Calls, error: ProviderError) -> None:
        """Count a failure of the account or of the way to it; any other refusal shows that both are well."""
        after = _IN_A_ROW.get(error.kind)
        if after is None:
            self._well(calls)
            return
        key = (calls, error.kind)
        first, at_least = self._config.backoff_s, 0.0
        if isinstance(error, Throttled):
            first = at_least = max(error.retry_after, 0.1)
        pauses = Pauses(after=after, first_s=first, longest_s=min(_LONGEST.get(calls, 1e9), self._config.backoff_max_s))
        breaker = self._failed(self._breakers.get(key, Breaker()), _words(error), pauses, at_least)
        self._breakers[key] = breaker
        if left := breaker.wait(self._clock.monotonic()):
            log.warning("calls are paused", provider=self._provider, calls=str(calls), why=breaker.why, for_s=left)
        for other in self._of(calls):
            if other != key:
                self._breakers[other] = self._breakers[other].abandoned()

    def _well(self, calls: Calls) -> None:
        now = self._clock.monotonic()
        for key in list(self._of(calls)):
            breaker = self._breakers[key].succeeded(now)
            if breaker == Breaker():
                del self._breakers[key]
            else:
                self._breakers[key] = breaker

    def _fail_offer(self, key: str, why: str) -> None:
        pauses = Pauses(after=1, first_s=self._config.backoff_s, longest_s=self._config.backoff_max_s)
        self._offers[key] = self._failed(self._offers.get(key, Breaker()), why, pauses, 0.0)

    def _failed(self, before: Breaker, why: str, pauses: Pauses, at_least: float) -> Breaker:
        now, jitter = self._clock.monotonic(), self._chance.uniform(0.0, 1.0)
        return before.failed(now, why, pauses, jitter=jitter, at_least=at_least)

    def _of(self, calls: Calls) -> Iterator[tuple[Calls, Reason]]:
        return iter([key for key in self._breakers if key[0] is calls])


def _zone(shape: Shape) -> str:
    return f"*/{shape.zone}/{'spot' if shape.spot else 'on-demand'}"


def _words(error: ProviderError) -> str:
    return f"{error.kind}: {error.message}"
