"""Groups as the planner sees them: agents with what runs there, instances on their way, offers and limits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.group import Group, GroupKind
from atoll.instance import Instance, Shape
from atoll.offer import WAIT_VALUE
from atoll.session import Session
from atoll.states import AgentState, InstanceState, Reason
from autoscaler.pools import predict
from autoscaler.predict import Arrivals
from autoscaler.view import AgentView, ColdView, GroupView, PendingView, RunningView
from federation.control.agents import used
from federation.control.arrivals import History
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.deadlines import pace
from federation.control.demands import demand, protection, ran_s
from federation.control.hours import hot_count
from federation.control.links import Links
from federation.control.seating import blocks
from federation.control.world import World

_I = InstanceState
ENDING = (_I.STOPPING, _I.ENDING)


class GroupViews:
    """Draws the planner's views. Idle and growth times are kept here: they are rebuilt within one interval."""

    def __init__(self, changes: Changes, links: Links, catalog: Catalog, clock: Clock) -> None:
        self._mirror = changes.mirror
        self._history = History(changes)
        self._arrivals: Mapping[str, Arrivals] = {}
        self._links = links
        self._catalog = catalog
        self._clock = clock
        self._idle_since: dict[str, float] = {}
        self._grew_at: dict[str, float] = {}

    def grew(self, groups: Iterable[str]) -> None:
        """Note that these groups have just launched something, or taken a draining agent back."""
        for name in groups:
            self._grew_at[name] = self._clock.monotonic()

    async def learn(self, world: World) -> None:
        """Note which sessions came, for groups that predict their hot pools: before any of them is placed."""
        self._arrivals = await self._history.look(world)

    def draw(self, world: World, awaits: Sequence[tuple[str, str]], wait_value: int = WAIT_VALUE) -> list[GroupView]:
        """Return the planner's views; `awaits` are the last plan's pairs of session and instance.

        `wait_value` (micro-units) is what a second of waiting is worth.

        Of a fixed group, whose agents a plan lends to gangs only, agents are drawn where a gang waits, and where the
        time to drain one of them is over.
        """
        self._note_idle(world, self._clock.monotonic())
        awaited = world.awaited(awaits)
        gangs = any(row.spec.nodes > 1 for row in world.waiting)
        leave = {row.group for row in world.agents if row.drain_until is not None and row.drain_until <= world.now}
        drawn = {row.name for row in world.groups if gangs or row.kind is GroupKind.ELASTIC or row.name in leave}
        views = [self._group(world, group, awaited, fully=group.name in drawn) for group in world.groups]
        return [self._with_prediction(view, world.now, wait_value) for view in views]

    def _group(self, world: World, group: Group, awaited: Mapping[str, list[Session]], *, fully: bool) -> GroupView:
        mine = world.instances_of.get(group.name, ())
        by_id = {row.id: row for row in mine}
        agents = world.agents_of.get(group.name, ()) if fully else ()
        shapes = tuple(world.offered(group))
        start_s = max((shape.start_s for shape in shapes), default=0.0)
        return GroupView(
            group=group,
            agents=tuple(
                self._agent(agent, by_id.get(agent.instance), world.now, start_s)
                for agent in agents
                if _usable(by_id.get(agent.instance), agent)
            ),
            pending=tuple(
                PendingView(instance=row.id, shape=row.shape, sessions=tuple(one.id for one in awaited.get(row.id, ())))
                for row in world.pending(group.name)
            ),
            cold=tuple(ColdView(instance=row.id, shape=row.shape) for row in mine if row.state is _I.STOPPED),
            ending=sum(row.state in ENDING for row in mine),
            stopping=sum(row.state is _I.STOPPING for row in mine),
            shapes=shapes,
            blocked=blocks(self._catalog, world, group),
            limits=world.limits.get(group.provider, ()),
            since_growth_s=self._clock.monotonic() - self._grew_at.get(group.name, -1e9),
            settled=self._links.settled,
            hot=hot_count(group, world.now) if group.kind is GroupKind.ELASTIC else None,
        )

    def _with_prediction(self, view: GroupView, now: float, wait_value: int) -> GroupView:
        came = self._arrivals.get(view.group.name)
        return replace(view, predicted=predict(view, came, now, wait_value)) if came else view

    def _agent(self, row: Agent, instance: Instance | None, now: float, start_s: float) -> AgentView:
        live = self._links.live(row.id)
        sessions = self._mirror.on_agent(row.id)
        why = next((why for why in (protection(session, now) for session in sessions) if why), Reason.NONE)
        idle_since = self._idle_since.get(row.id)
        return AgentView(
            id=row.id,
            instance=row.instance,
            shape=instance.shape if instance else _registered(row),
            capacity=row.capacity,
            free=row.capacity - used(row.id, sessions),
            sessions=tuple(session.id for session in sessions),
            protected=why is not Reason.NONE,
            protected_why=why or Reason.PROTECTED,
            running=tuple(running(session, now, start_s) for session in sessions if session.spec.checkpoint),
            idle_s=0.0 if idle_since is None else self._clock.monotonic() - idle_since,
            paid_s=_paid_s(instance, now),
            state=row.state,
            connected=live is not None,
            epoch=row.epoch,
            cordon_epoch=row.cordon_epoch,
            acknowledged_epoch=row.acknowledged_epoch,
            notice=bool(live and live.notice),
            by_user=row.state is AgentState.DRAINING and row.reason is Reason.USER,
            drain_left_s=None if row.drain_until is None else row.drain_until - now,
        )

    def _note_idle(self, world: World, now: float) -> None:
        launched = [agent.id for agent in world.agents if agent.instance]
        for agent in launched:
            if self._links.live(agent) is None or self._mirror.on_agent(agent):
                self._idle_since.pop(agent, None)
            else:
                self._idle_since.setdefault(agent, now)
        for agent in self._idle_since.keys() - set(launched):
            del self._idle_since[agent]


def running(row: Session, now: float, start_s: float) -> RunningView:
    """Return a placed session as far as moving it goes. What has run for long is likely to run for long still.

    `start_s` is how long another machine for it would take to start.
    """
    ran = ran_s(row, now)
    return RunningView(
        session=row.id,
        attempt=row.attempt,
        demand=demand(row),
        ran_s=ran,
        left_s=max(row.spec.lifetime.expected - row.ran_s - ran, ran / 2),
        checkpoint=row.spec.checkpoint,
        protected=protection(row, now) is not Reason.NONE,
        moving=row.moving is not None,
        pace=pace(row, now, start_s),
    )


def _paid_s(instance: Instance | None, now: float) -> float:
    """Return for how long an instance is paid for already: what is left of the period its cloud charges by."""
    if instance is None or instance.booted_at is None or instance.shape.billing_s <= 1.0:
        return 0.0
    return instance.shape.billing_s - (now - instance.booted_at) % instance.shape.billing_s


def _usable(instance: Instance | None, agent: Agent) -> bool:
    """An agent that has yet to register, or whose instance is on its way out, stopped or starting, counts as that."""
    if not agent.instance:
        return True
    return agent.epoch > 0 and instance is not None and instance.state in (_I.JOINED, _I.DRAINING)


def _registered(row: Agent) -> Shape:
    return Shape(provider="", name=row.name, zone=row.site, slots=row.capacity, price=row.price or None)
