"""Drivers, shapes and prices of the providers."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import structlog

from atoll import duration
from atoll.clock import Chance, Clock
from atoll.errors import AtollError, Refused
from atoll.group import Provider
from atoll.instance import Shape
from atoll.money import text
from atoll.price import Stale
from federation.control.config import ControlConfig
from federation.control.guard import Guard, Pause, Paused
from federation.control.promises import Promises
from federation.control.sealing import MASK, Seal, check_clear, is_sealed
from providers.port import Driver
from providers.prices.book import Book

log = structlog.get_logger("control")


class Catalog:
    """One guarded driver a provider, and its shapes for a minute: as told, less what machines turned out to lack."""

    def __init__(
        self,
        drivers: Callable[[Provider], Driver],
        books: Callable[[Provider], Awaitable[Book]],
        config: ControlConfig,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self.promises = Promises(clock)
        self._make = drivers
        self._books = books
        self._config = config
        self._clock = clock
        self._chance = chance
        self._seal = Seal(config.secret_key, chance)
        self._drivers: dict[str, tuple[Provider, Guard]] = {}
        self._shapes: dict[str, tuple[float, tuple[Shape, ...]]] = {}
        self._listed_at: dict[str, float | None] = {}
        self._forgotten: Counter[str] = Counter()

    def driver(self, row: Provider) -> Guard:
        """Return the provider's driver behind its guard, made anew when its row changed."""
        have = self._drivers.get(row.name)
        if have and have[0] == row:
            return have[1]
        guard = self.trial(row)
        if have and have[0].settings != row.settings:
            self.promises.forget(row.name)
        self._drivers[row.name] = (row, guard)
        self._shapes.pop(row.name, None)
        return guard

    def trial(self, row: Provider) -> Guard:
        """Return a driver that is not kept; raise `Invalid` when the provider's kind or settings are not right."""
        return Guard(self._make(self.opened(row)), row.name, self._config, self._clock, self._chance)

    def opened(self, row: Provider) -> Provider:
        """Return the provider with its credentials in clear: for drivers and feeds, never for the store or a view."""
        sealed = row.settings.get("credentials")
        if not is_sealed(sealed):
            return row
        return replace(row, settings=row.settings | {"credentials": self._seal.open(str(sealed), row.name)})

    def closed(self, row: Provider, have: Provider | None = None) -> Provider:
        """Return the provider as it is stored, credentials sealed: those that are there where none other are given."""
        settings = dict(row.settings)
        given = settings.pop("credentials", None)
        wanted = None if given is None or given == MASK else check_clear(given)
        before = have.settings.get("credentials") if have else None
        if have and before is not None and (wanted is None or self._same(have, wanted)):
            return replace(row, settings=settings | {"credentials": before}, credentials_at=have.credentials_at)
        if not wanted:
            return replace(row, settings=settings, credentials_at=None)
        sealed = self._seal.close(wanted, row.name)
        return replace(row, settings=settings | {"credentials": sealed}, credentials_at=self._clock.now())

    def _same(self, have: Provider, wanted: Mapping[str, object]) -> bool:
        try:
            return self.opened(have).settings["credentials"] == wanted
        except Refused:
            return False

    async def shapes(self, row: Provider) -> tuple[Shape, ...]:
        """Return the provider's shapes, at most `prices_s` old.

        When the provider cannot answer, the last known ones; none if there are none.
        """
        now = self._clock.monotonic()
        kept = self._shapes.get(row.name)
        if kept and self._drivers[row.name][0] == row and now - kept[0] < self._config.prices_s:
            return self.known(row.name)
        forgotten = self._forgotten[row.name]
        try:
            book = await self._books(row)
            self._listed_at[row.name] = book.at
            shapes = tuple(await self.driver(row).shapes(book))
        except Paused:
            return self.known(row.name)
        except AtollError as error:
            log.warning("shapes not to be had", provider=row.name, reason=error.reason, error=error.message)
            return self.known(row.name)
        current = forgotten == self._forgotten[row.name]  # else its prices changed while the cloud answered
        self._shapes[row.name] = (now if current else -math.inf, shapes)
        return self.known(row.name)

    def known(self, provider: str) -> tuple[Shape, ...]:
        """Return the shapes last told, without asking anybody: for use within a commit."""
        kept = self._shapes.get(provider)
        return self.promises.kept(provider, kept[1]) if kept else ()

    def forget(self, provider: str) -> None:
        """Ask for the provider's shapes anew: its prices have changed."""
        self._forgotten[provider] += 1
        if kept := self._shapes.get(provider):
            self._shapes[provider] = (-math.inf, kept[1])

    def stale(self, provider: str) -> str:
        """Return why nothing is to be launched at the prices its shapes have; "" when they will do."""
        have, at = self._drivers.get(provider), self._listed_at.get(provider)
        if have is None or at is None or have[0].prices.stale is not Stale.BLOCK:
            return ""
        if not have[0].prices.is_stale(at, self._clock.now()):
            return ""
        old = duration.rough(self._clock.now() - at)
        return f"its prices are {old} old and block it (prices.stale): `atoll prices update` or `import`"

    def blocked(self, provider: str, shape: Shape) -> str:
        """Return why this shape is not asked for now, with the time left; "" when it may be."""
        have = self._drivers.get(provider)
        return have[1].blocked(shape) if have else ""

    def pauses(self, provider: str) -> list[Pause]:
        """Return what of a provider is left alone now."""
        have = self._drivers.get(provider)
        return have[1].pauses() if have else []


def priced(shape: Shape) -> str:
    """Return a shape with its price, for messages."""
    kind = "spot" if shape.spot else "on-demand"
    return f"{shape.name} {kind} in {shape.zone} at {text(shape.price or 0)}/h"
