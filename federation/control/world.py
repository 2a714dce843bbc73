"""One look at everything that decisions are made from: rows, offers and limits, as they are at one moment."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.group import Group, GroupKind, Provider
from atoll.instance import Instance, Shape
from atoll.session import Session
from atoll.site import Site
from atoll.states import PLACED, WAITING, InstanceState
from autoscaler.limits import Ceiling
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.mirror import Mirror
from federation.control.patience import Patience
from federation.control.quotas import Quotas
from providers.prices.book import committed

_I = InstanceState
PENDING = (_I.INTENDED, _I.CREATING, _I.BOOTING, _I.STARTING)
"""Instances on their way to an agent."""
PATIENCE_S = 3.0
"""Longest that a round of decisions waits for clouds to tell their offers and limits."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Rows of one moment, and what each provider offers and allows. `now` is Unix seconds."""

    now: float
    waiting: tuple[Session, ...]
    placed: tuple[Session, ...]
    agents: tuple[Agent, ...]
    groups: tuple[Group, ...]
    instances: tuple[Instance, ...]
    sites: tuple[Site, ...] = ()
    shapes: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)
    limits: Mapping[str, tuple[Ceiling, ...]] = field(default_factory=dict)

    @cached_property
    def agents_of(self) -> Mapping[str, list[Agent]]:
        """Agents by group."""
        found: dict[str, list[Agent]] = {}
        for row in self.agents:
            found.setdefault(row.group, []).append(row)
        return found

    @cached_property
    def instances_of(self) -> Mapping[str, list[Instance]]:
        """Instances by group."""
        found: dict[str, list[Instance]] = {}
        for row in self.instances:
            found.setdefault(row.group, []).append(row)
        return found

    def pending(self, group: str) -> list[Instance]:
        """Return a group's instances that are on their way, also where the agent has still to register."""
        arriving = {agent.instance for agent in self.agents_of.get(group, ()) if agent.instance and not agent.epoch}
        rows = self.instances_of.get(group, ())
        return [row for row in rows if row.state in PENDING or row.id in arriving]

    def awaited(self, awaits: Iterable[tuple[str, str]]) -> dict[str, list[Session]]:
        """Return by instance who waits for it: as stored with sessions, and as `awaits`, the last plan's pairs, say."""
        waiting = {row.id: row for row in self.waiting}
        pairs = [(row.id, row.instance) for row in self.waiting if row.instance]
        found: dict[str, list[Session]] = {}
        for session, instance in dict.fromkeys([*pairs, *awaits]):
            if session in waiting:
                found.setdefault(instance, []).append(waiting[session])
        return found

    def offered(self, group: Group) -> list[Shape]:
        """Return the shapes that a group may launch, capable of being had now or not."""
        return [
            shape
            for shape in self.shapes.get(group.provider, ())
            if (not group.shapes or shape.name in group.shapes) and (group.spot is None or shape.spot == group.spot)
        ]


class Observer:
    """Looks at the world: rows from memory, offers and limits from the providers.

    A provider that is slow to tell its offers is waited for with `patience`; then what it last told holds.
    """

    def __init__(self, changes: Changes, catalog: Catalog, quotas: Quotas, clock: Clock) -> None:
        self.patience = Patience(PATIENCE_S)
        self._changes = changes
        self._catalog = catalog
        self._quotas = quotas
        self._clock = clock

    async def look(self) -> World:
        """Ask providers what is due, then take the rows as they are after that: no decision sees half of a change."""
        rows = await self._changes.rows()
        instances = list(rows.instances.values())
        self._catalog.promises.learn(rows.agents.values(), instances)
        wanted = _elastic(rows)
        await self.patience.wait({row.name: partial(self._ask, row, instances) for row in wanted})
        rows = await self._changes.rows()
        instances = list(rows.instances.values())
        return World(
            now=self._clock.now(),
            waiting=tuple(row for row in rows.sessions.values() if row.state in WAITING),
            placed=tuple(row for row in rows.sessions.values() if row.state in PLACED),
            agents=tuple(rows.agents.values()),
            groups=tuple(rows.groups.values()),
            instances=tuple(instances),
            sites=tuple(rows.sites.values()),
            shapes={row.name: self._offered(row, instances) for row in wanted},
            limits={row.name: self._quotas.ceilings(row, instances) for row in wanted},
        )

    def charged(self, provider: Provider, shape: Shape, instances: Sequence[Instance]) -> Shape:
        """Return a shape at the price of one more machine, beside the provider's live `instances`.

        A plan may launch several at a commitment's price; those beyond its count are recorded at the list's.
        """
        if not provider.prices.commitments:
            return shape
        listed = next((each for each in self._catalog.known(provider.name) if each.key == shape.key), shape)
        return committed(listed, provider.prices, _on_demand(provider, instances))

    async def _ask(self, provider: Provider, instances: Sequence[Instance]) -> None:
        await self._catalog.shapes(provider)
        await self._quotas.refresh(provider, instances)

    def _offered(self, provider: Provider, instances: Sequence[Instance]) -> tuple[Shape, ...]:
        shapes = self._catalog.known(provider.name)
        if not provider.prices.commitments:
            return shapes
        live = _on_demand(provider, instances)
        return tuple(committed(shape, provider.prices, live) for shape in shapes)


def _elastic(rows: Mirror) -> list[Provider]:
    named = {group.provider for group in rows.groups.values() if group.kind is GroupKind.ELASTIC}
    return [rows.providers[name] for name in sorted(named & rows.providers.keys())]


def _on_demand(provider: Provider, instances: Iterable[Instance]) -> Counter[str]:
    """Count the provider's on-demand machines that run or will, by shape: what a commitment is used up by."""
    return Counter(
        row.shape.name
        for row in instances
        if row.provider == provider.name and not row.shape.spot and row.state not in (_I.GONE, _I.STOPPING, _I.STOPPED)
    )
