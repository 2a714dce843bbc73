"""Drivers, shapes and prices of the providers, and what is not to be asked for right now."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from atoll.clock import Clock
from atoll.group import Provider
from atoll.instance import Shape
from atoll.money import text
from atoll.states import Reason
from federation.control.config import ControlConfig
from providers.errors import ProviderError, Throttled
from providers.port import Driver
from providers.prices.book import Book

log = structlog.get_logger("control")


@dataclass(slots=True)
class _Backoff:
    until: float
    pause: float
    why: str


class Catalog:
    """One driver a provider, its shapes for a minute, and a memory of refusals.

    A refusal blocks a (provider, shape) or, for an account-wide error, the whole provider, for a pause
    that doubles with each repeat (I9): what failed is not asked again at once, and other shapes, zones
    and providers are not delayed by it.
    """

    def __init__(self, drivers: Callable[[Provider], Driver], config: ControlConfig, clock: Clock) -> None:
        self._make = drivers
        self._config = config
        self._clock = clock
        self._drivers: dict[str, tuple[Provider, Driver]] = {}
        self._shapes: dict[str, tuple[float, tuple[Shape, ...]]] = {}
        self._backoffs: dict[tuple[str, str], _Backoff] = {}

    def check(self, row: Provider) -> None:
        """Raise `Invalid` when the provider's kind or settings are not right."""
        self._make(row)

    def driver(self, row: Provider) -> Driver:
        """Return the provider's driver, made anew when its settings changed."""
        have = self._drivers.get(row.name)
        if have and have[0] == row:
            return have[1]
        driver = self._make(row)
        self._drivers[row.name] = (row, driver)
        self._shapes.pop(row.name, None)
        return driver

    async def shapes(self, row: Provider) -> tuple[Shape, ...]:
        """Return the provider's shapes, at most `prices_s` old.

        When the provider cannot answer, the last known ones; none (and a backoff) if there are none.
        """
        driver = self.driver(row)
        now = self._clock.monotonic()
        kept = self._shapes.get(row.name)
        if kept and now - kept[0] < self._config.prices_s:
            return kept[1]
        try:
            shapes = tuple(await driver.shapes(Book()))
        except ProviderError as error:
            log.warning("shapes not to be had", provider=row.name, code=error.code, reason=error.kind)
            self.refuse(row.name, "", error)
            return kept[1] if kept else ()
        self._shapes[row.name] = (now, shapes)
        return shapes

    def refuse(self, provider: str, shape: str, error: ProviderError) -> None:
        """Remember a refusal; the whole provider is blocked by throttling, credentials and quotas."""
        wide = error.kind in (Reason.THROTTLED, Reason.AUTH, Reason.QUOTA)
        key = (provider, "" if wide else shape)
        before = self._backoffs.get(key)
        pause = self._config.backoff_s if before is None else min(before.pause * 2, self._config.backoff_max_s)
        if isinstance(error, Throttled):
            pause = max(error.retry_after, 0.1)
        self._backoffs[key] = _Backoff(self._clock.monotonic() + pause, pause, f"{error.kind}: {error.message}")

    def accept(self, provider: str, shape: str) -> None:
        """Forget refusals of what has just worked."""
        self._backoffs.pop((provider, shape), None)
        self._backoffs.pop((provider, ""), None)

    def blocked(self, provider: str, shape: str) -> str:
        """Return why this shape is not asked for now, with the time left; "" when it may be."""
        now = self._clock.monotonic()
        for key in ((provider, shape), (provider, "")):
            kept = self._backoffs.get(key)
            if kept and kept.until > now:
                return f"{kept.why} (tried again in {kept.until - now:.0f} s)"
        return ""


def priced(shape: Shape) -> str:
    """Return a shape with its price, for messages."""
    kind = "spot" if shape.spot else "on-demand"
    return f"{shape.name} {kind} in {shape.zone} at {text(shape.price or 0)}/h"
