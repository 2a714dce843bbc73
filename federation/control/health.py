"""How a provider's account is: its limits, what of it is left alone, its credentials' age, its last sweep."""

from dataclasses import dataclass

from atoll.group import Orphans, Provider
from atoll.instance import Instance
from atoll.states import InstanceState
from autoscaler.limits import Ceiling
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.guard import Pause
from federation.control.named import Providers
from federation.control.quotas import Quotas
from federation.control.sweep import Sweep, Sweeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A provider in one look. Each limit comes with the seconds for which it is believed yet, 0: as long as told."""

    provider: Provider
    live: int
    credentials_age_s: float | None
    limits: tuple[tuple[Ceiling, float], ...]
    pauses: tuple[Pause, ...]
    swept: Sweep | None

    @property
    def orphans(self) -> Orphans:
        """What its sweep does to machines that nobody knows."""
        return self.provider.orphans


class Healths:
    """Answers from what is known: at most the account's limits are asked for."""

    def __init__(
        self, changes: Changes, providers: Providers, catalog: Catalog, quotas: Quotas, sweeper: Sweeper
    ) -> None:
        self._changes = changes
        self._providers = providers
        self._catalog = catalog
        self._quotas = quotas
        self._sweeper = sweeper

    async def look(self, name: str) -> Health:
        """Return a provider's health; raise `NotFound`."""
        row = await self._providers.get(name)
        async with self._changes.look() as tx:
            live = await tx.find(
                Instance, provider=name, state=[str(s) for s in InstanceState if s != InstanceState.GONE]
            )
        await self._quotas.refresh(row, live)
        ceilings = self._quotas.ceilings(row, live)
        since = row.credentials_at
        return Health(
            provider=row,
            live=len(live),
            credentials_age_s=None if since is None else max(0.0, self._changes.clock.now() - since),
            limits=tuple((ceiling, self._quotas.left(ceiling)) for ceiling in ceilings),
            pauses=tuple(self._catalog.pauses(name)),
            swept=self._sweeper.last(name),
        )
