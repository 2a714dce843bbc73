"""One look at everything that decisions are made from: rows, links and prices, as the pure packages see them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.group import Group, GroupKind, Provider
from atoll.instance import Instance, Shape
from atoll.offer import Demand
from atoll.session import Session
from atoll.states import PLACED, WAITING, AgentState, InstanceState, Reason
from autoscaler.limits import Ceiling, Limits
from autoscaler.view import AgentView, ColdView, GroupView, PendingView
from federation.control.agents import KEPT, by_agent, used
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.links import Links
from federation.control.patience import Patience
from federation.control.quotas import Quotas
from federation.routing.capacity import Capacity, Launchable, Seat
from providers.prices.book import committed

_I = InstanceState
PATIENCE_S = 3.0
"""Longest that a round of decisions waits for clouds to tell their offers and limits."""
PENDING = (_I.INTENDED, _I.CREATING, _I.BOOTING, _I.STARTING)
"""Instances on their way to an agent."""
ENDING = (_I.STOPPING, _I.ENDING)
LIVE = tuple(state for state in _I if state is not _I.GONE)


@dataclass(frozen=True, slots=True)
class World:
    """Rows of one moment. `placed` occupy agents, `waiting` are in the router's order."""

    waiting: tuple[Session, ...]
    placed: tuple[Session, ...]
    agents: tuple[Agent, ...]
    groups: tuple[Group, ...]
    instances: tuple[Instance, ...]
    shapes: Mapping[str, tuple[Shape, ...]]
    limits: Mapping[str, tuple[Ceiling, ...]] = field(default_factory=dict)


class Observer:
    """Reads the world and draws its views. Idle times are kept here: they are rebuilt within one interval.

    A provider that is slow to tell its offers is waited for with `patience`; then what it last told holds.
    """

    def __init__(self, changes: Changes, links: Links, catalog: Catalog, quotas: Quotas, clock: Clock) -> None:
        self.patience = Patience(PATIENCE_S)
        self._changes = changes
        self._links = links
        self._catalog = catalog
        self._quotas = quotas
        self._clock = clock
        self._idle_since: dict[str, float] = {}
        self._grew_at: dict[str, float] = {}

    async def look(self) -> World:
        """Read all rows that a decision may need, then prices (outside the transaction)."""
        async with self._changes.look() as tx:
            waiting = await tx.find(Session, state=sorted(WAITING))
            placed = await tx.find(Session, state=sorted(PLACED))
            agents = await tx.find(Agent, state=list(KEPT))
            groups = await tx.find(Group)
            instances = await tx.find(Instance, state=list(LIVE))
            providers = {row.name: row for row in await tx.find(Provider)}
        self._catalog.promises.learn(agents, instances)
        named = {g.provider for g in groups if g.kind is GroupKind.ELASTIC}
        wanted = [providers[name] for name in sorted(named & providers.keys())]
        await self.patience.wait({row.name: partial(self._ask, row, instances) for row in wanted})
        shapes = {row.name: self._offered(row, instances) for row in wanted}
        limits = {row.name: self._quotas.ceilings(row, instances) for row in wanted}
        waiting.sort(key=lambda row: (-row.spec.priority, row.queued_at, row.id))
        return World(tuple(waiting), tuple(placed), tuple(agents), tuple(groups), tuple(instances), shapes, limits)

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

    def capacity(self, world: World) -> Capacity:
        """Return the router's index of this world."""
        capacity = Capacity()
        holding = _by_agent(world.placed)
        for agent in world.agents:
            closed, text = self._closed(agent)
            capacity.put_seat(
                Seat(
                    agent=agent.id,
                    site=agent.site,
                    group=agent.group,
                    capacity=agent.capacity,
                    free=agent.capacity - used(agent.id, holding.get(agent.id, ())),
                    price=agent.price,
                    spot=agent.spot,
                    open=closed is Reason.NONE,
                    why_closed=closed,
                    message=text,
                )
            )
        for group in world.groups:
            if group.kind is GroupKind.ELASTIC:
                capacity.set_launchables(group.name, self._launchables(world, group))
        return capacity

    def grew(self, groups: Iterable[str]) -> None:
        """Note that these groups have just launched something."""
        for name in groups:
            self._grew_at[name] = self._clock.monotonic()

    def groups(self, world: World, awaits: Sequence[tuple[str, str]]) -> list[GroupView]:
        """Return the planner's views; `awaits` are the last plan's pairs of session and instance."""
        now = self._clock.monotonic()
        holding = _by_agent(world.placed)
        self._note_idle(world, holding, now)
        awaiting = {row.id: [row.instance] for row in world.waiting if row.instance}
        for session, instance in awaits:
            if session in awaiting and instance not in awaiting[session]:
                awaiting[session].append(instance)
        return [self._group(world, group, holding, awaiting, now) for group in world.groups]

    def _group(
        self,
        world: World,
        group: Group,
        holding: Mapping[str, Sequence[Session]],
        awaiting: Mapping[str, Sequence[str]],
        now: float,
    ) -> GroupView:
        mine = [row for row in world.instances if row.group == group.name]
        by_id = {row.id: row for row in mine}
        arriving = {agent.instance for agent in world.agents if agent.instance and not agent.epoch}
        return GroupView(
            group=group,
            agents=tuple(
                self._agent(agent, by_id.get(agent.instance), holding.get(agent.id, ()), now)
                for agent in world.agents
                if agent.group == group.name and _usable(by_id.get(agent.instance), agent)
            ),
            pending=tuple(
                PendingView(
                    instance=row.id,
                    shape=row.shape,
                    sessions=tuple(key for key, instances in awaiting.items() if row.id in instances),
                )
                for row in mine
                if row.state in PENDING or row.id in arriving
            ),
            cold=tuple(ColdView(instance=row.id, shape=row.shape) for row in mine if row.state is _I.STOPPED),
            ending=sum(row.state in ENDING for row in mine),
            stopping=sum(row.state is _I.STOPPING for row in mine),
            shapes=tuple(self._shapes(world, group)),
            blocked=self._blocked(world, group),
            limits=world.limits.get(group.provider, ()),
            since_growth_s=now - self._grew_at.get(group.name, -1e9),
            settled=self._links.settled,
        )

    def _agent(self, row: Agent, instance: Instance | None, sessions: Sequence[Session], now: float) -> AgentView:
        live = self._links.live(row.id)
        shape = instance.shape if instance else _registered(row)
        return AgentView(
            id=row.id,
            instance=row.instance,
            shape=shape,
            capacity=row.capacity,
            free=row.capacity - used(row.id, sessions),
            sessions=tuple(session.id for session in sessions),
            protected=any(session.spec.lifetime.protect for session in sessions),
            idle_s=now - self._idle_since.get(row.id, now),
            state=row.state,
            connected=live is not None,
            epoch=row.epoch,
            cordon_epoch=row.cordon_epoch,
            acknowledged_epoch=row.acknowledged_epoch,
            notice=bool(live and live.notice),
            by_user=row.state is AgentState.DRAINING and row.reason is Reason.USER,
        )

    def _note_idle(self, world: World, holding: Mapping[str, Sequence[Session]], now: float) -> None:
        busy = set(holding)
        known = {agent.id for agent in world.agents}
        for agent in known:
            if agent in busy or self._links.live(agent) is None:
                self._idle_since.pop(agent, None)
            else:
                self._idle_since.setdefault(agent, now)
        for agent in [key for key in self._idle_since if key not in known]:
            del self._idle_since[agent]

    def _closed(self, agent: Agent) -> tuple[Reason, str]:
        live = self._links.live(agent.id)
        if agent.state is AgentState.DRAINING:
            return Reason.AWAITING_ACKNOWLEDGEMENT, f"is being emptied: {agent.message}"
        if live is None:
            return Reason.DISCONNECTED, "its link is down"
        if live.notice:
            return Reason.SPOT_NOTICE, live.notice
        return Reason.NONE, ""

    def _launchables(self, world: World, group: Group) -> list[Launchable]:
        mine = [row for row in world.instances if row.group == group.name]
        room = group.size.max - sum(row.state is not _I.STOPPED for row in mine)
        stale = self._catalog.stale(group.provider)
        blocked, limits = self._blocked(world, group), Limits(world.limits.get(group.provider, ()))
        launchables = []
        for shape in self._shapes(world, group):
            closed, text = Reason.NONE, ""
            if shape.key in blocked:
                closed, text = Reason.STALE_PRICES if stale else Reason.BACKOFF, blocked[shape.key]
            elif short := limits.short(group.provider, shape):
                closed, text = Reason.QUOTA, short.text(shape)
            launchables.append(
                Launchable(
                    group=group.name,
                    site=group.site,
                    provider=group.provider,
                    shape=shape,
                    room=max(0, room),
                    blocked=closed,
                    message=text,
                )
            )
        return launchables

    def _shapes(self, world: World, group: Group) -> list[Shape]:
        return [
            shape
            for shape in world.shapes.get(group.provider, ())
            if (not group.shapes or shape.name in group.shapes) and (group.spot is None or shape.spot == group.spot)
        ]

    def _blocked(self, world: World, group: Group) -> dict[str, str]:
        stale = self._catalog.stale(group.provider)
        pairs = ((s.key, stale or self._catalog.blocked(group.provider, s)) for s in self._shapes(world, group))
        return {key: why for key, why in pairs if why}


def demand(row: Session) -> Demand:
    """Return what the pure packages need to know of a waiting session."""
    return Demand(
        session=row.id,
        request=row.spec.resources,
        nodes=row.spec.nodes,
        sites=row.spec.placement.sites,
        groups=row.spec.placement.groups,
        max_price=row.spec.cost.max_price,
        spot=row.spec.cost.spot,
        expected_s=row.spec.lifetime.expected,
        priority=row.spec.priority,
        protect=row.spec.lifetime.protect,
        queued_at=row.queued_at,
    )


def _on_demand(provider: Provider, instances: Iterable[Instance]) -> Counter[str]:
    """Count the provider's on-demand machines that run or will, by shape: what a commitment is used up by."""
    return Counter(
        row.shape.name
        for row in instances
        if row.provider == provider.name and not row.shape.spot and row.state not in (_I.GONE, _I.STOPPING, _I.STOPPED)
    )


def _by_agent(placed: Sequence[Session]) -> dict[str, list[Session]]:
    return {agent: [row for _, row in runs] for agent, runs in by_agent(placed).items()}


def _usable(instance: Instance | None, agent: Agent) -> bool:
    """An agent that has yet to register, or whose instance is on its way out, stopped or starting, counts as that."""
    if not agent.instance:
        return True
    return agent.epoch > 0 and instance is not None and instance.state in (_I.JOINED, _I.DRAINING)


def _registered(row: Agent) -> Shape:
    return Shape(provider="", name=row.name, zone=row.site, slots=row.capacity, price=row.price or None)
