"""The router's index, kept true by what changes: agents' seats one by one, groups' offers at every look."""

import gc
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from atoll.agent import Agent, driver
from atoll.group import Group, GroupKind
from atoll.instance import Instance
from atoll.offer import OfferKind
from atoll.session import Session
from atoll.site import Site
from atoll.slots import Slots
from atoll.states import AgentState, InstanceState, Reason
from autoscaler.limits import Limits
from federation.control.agents import used
from federation.control.catalog import Catalog
from federation.control.hours import next_change, open_now
from federation.control.links import Links
from federation.control.mirror import Mirror
from federation.control.world import World
from federation.routing.capacity import Capacity, Launchable, Seat, Standby

MANY = 1000
"""Agents that are seated at one look when a large installation starts."""


class Seating:
    """Keeps one `Capacity` for as long as the control plane runs; a change of an agent changes its seat alone."""

    def __init__(self, mirror: Mirror, links: Links, catalog: Catalog) -> None:
        self._capacity = Capacity()
        self._mirror = mirror
        self._links = links
        self._catalog = catalog
        self.awaits: Sequence[tuple[str, str]] = ()
        """Pairs of session and instance: who is to be served by what, as the last plan says."""
        self._shut: dict[str, tuple[str, float | None]] = {}
        self._known: dict[str, tuple[Site | None, Group, bool]] = {}

    def capacity(self, world: World) -> Capacity:
        """Return the index as of now: `world` must be a look that nothing came after."""
        changed = self._mirror.take_changed() | self._links.take_changed() | self._regrouped(world)
        for site in world.sites:
            self._capacity.set_site(site.name, region=site.labels.get("region", ""), egress=site.egress)
        for key in sorted(changed):
            self._seat(key)
        if len(changed) >= MANY:
            gc.freeze()  # what was just built lives as long as the process: no collection need look at it again
        for name in self._known.keys() - {group.name for group in world.groups}:
            self._capacity.set_launchables(name, ())
            del self._known[name], self._shut[name]
        for group in world.groups:
            if group.kind is GroupKind.ELASTIC:
                self._capacity.set_launchables(group.name, self._launchables(world, group))
        self._capacity.set_standbys(self._standbys(world))
        return self._capacity

    def _regrouped(self, world: World) -> set[str]:
        """Return the agents of groups that were changed, or whose hours have just begun or ended."""
        found: set[str] = set()
        for group in world.groups:
            is_open = open_now(group.hours, world.now)
            known = (self._mirror.sites.get(group.site), group, is_open)
            if self._known.get(group.name) != known:
                found.update(row.id for row in world.agents_of.get(group.name, ()))
                self._known[group.name] = known
                self._shut[group.name] = ("", None) if is_open else _shut(group, world.now)
        return found

    def _seat(self, key: str) -> None:
        agent = self._mirror.agents.get(key)
        if agent is None:
            self._capacity.drop_seat(key)
            return
        instance = self._mirror.instances.get(agent.instance)
        shape = instance.shape if instance else None
        shut, opens_at = self._shut.get(agent.group, ("", None))
        closed, text = self._closed(agent, shut)
        self._capacity.put_seat(
            Seat(
                agent=agent.id,
                site=agent.site,
                group=agent.group,
                capacity=agent.capacity,
                free=agent.capacity - used(agent.id, self._mirror.on_agent(key)),
                price=agent.price,
                spot=agent.spot,
                labels=self._labels(agent.site, agent.group),
                driver=driver(agent.facts),
                owned=not agent.instance,
                provider=shape.provider if shape else "",
                shape=shape.name if shape else "",
                interruptions=shape.interruptions if shape else None,
                open=closed is Reason.NONE,
                why_closed=closed,
                message=text,
                opens_at=opens_at if closed is Reason.OUTSIDE_HOURS else None,
            )
        )

    def _labels(self, site: str, group: str) -> tuple[tuple[str, str], ...]:
        """Return what a placement may ask for: the site's labels, the group's over them."""
        where, of = self._mirror.sites.get(site), self._mirror.groups.get(group)
        return tuple(sorted(((where.labels if where else {}) | (of.labels if of else {})).items()))

    def _closed(self, agent: Agent, shut: str) -> tuple[Reason, str]:
        live = self._links.live(agent.id)
        if agent.state is AgentState.DRAINING:
            told = agent.acknowledged_epoch >= agent.cordon_epoch
            return agent.reason if told else Reason.AWAITING_ACKNOWLEDGEMENT, f"is being emptied: {agent.message}"
        if live is None:
            return Reason.DISCONNECTED, "its link is down"
        if live.notice:
            return Reason.SPOT_NOTICE, live.notice
        if shut:
            return Reason.OUTSIDE_HOURS, shut
        return Reason.NONE, ""

    def _launchables(self, world: World, group: Group) -> list[Launchable]:
        room = _room(world, group)
        blocked, limits = blocks(self._catalog, world, group), Limits(world.limits.get(group.provider, ()))
        stale = self._catalog.stale(group.provider)
        launchables = []
        for shape in world.offered(group):
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
                    room=room,
                    labels=self._labels(group.site, group.name),
                    driver=group.driver,
                    blocked=closed,
                    message=text,
                )
            )
        return launchables

    def _standbys(self, world: World) -> list[Standby]:
        """Return the machines that are on their way, with what is over on them, and those that are stopped."""
        found: list[Standby] = []
        awaited = world.awaited(self.awaits) if world.instances else {}
        for group in world.groups:
            if group.kind is not GroupKind.ELASTIC:
                continue
            rows = [(row, OfferKind.PENDING) for row in world.pending(group.name)]
            stopped = (row for row in world.instances_of.get(group.name, ()) if row.state is InstanceState.STOPPED)
            rows += [(row, OfferKind.COLD) for row in stopped]
            room, labels = _room(world, group) if rows else 0, self._labels(group.site, group.name)
            for row, kind in rows:
                sessions = awaited.get(row.id, ()) if kind is OfferKind.PENDING else ()
                found.append(
                    Standby(
                        group=group.name,
                        site=group.site,
                        provider=group.provider,
                        shape=row.shape,
                        room=room,
                        labels=labels,
                        driver=group.driver,
                        instance=row.id,
                        kind=kind,
                        start_s=_start_s(row, group, world.now) if kind is OfferKind.PENDING else row.shape.start_s,
                        free=_left(row.shape.slots, sessions),
                        sessions=tuple(session.id for session in sessions),
                    )
                )
        return found


def _room(world: World, group: Group) -> int:
    """Return how many machines more a group may have running."""
    mine = world.instances_of.get(group.name, ())
    return max(0, group.size.max - sum(row.state is not InstanceState.STOPPED for row in mine))


def _left(whole: Slots, sessions: Iterable[Session]) -> Slots:
    """Return what a member of each of these sessions leaves of a machine."""
    for session in sessions:
        if taken := whole.take(session.spec.resources):
            whole = whole - taken
    return whole


def _start_s(row: Instance, group: Group, now: float) -> float:
    """Return in how many seconds a machine's agent is expected: late ones take half as long again as they have taken.

    At the latest it is there, or given up, at the boot deadline of its group.
    """
    taken = max(0.0, now - (row.since if row.state is InstanceState.STARTING else row.created_at))
    left = row.shape.start_s - taken if taken < row.shape.start_s else taken / 2
    return max(0.0, min(left, group.boot_s - taken))


def _shut(group: Group, now: float) -> tuple[str, float | None]:
    """Return when a group that takes no sessions now will again, for people and as Unix seconds (None: never)."""
    text = f"takes sessions only at {', '.join(each.text for each in group.hours)}"
    opens = next_change(group.hours, now)
    if opens is None:
        return text, None
    return f"{text}: next from {datetime.fromtimestamp(opens, UTC):%Y-%m-%d %H:%M} UTC", opens


def blocks(catalog: Catalog, world: World, group: Group) -> dict[str, str]:
    """Return, by shape key, why a group's shapes are not asked for now."""
    stale = catalog.stale(group.provider)
    pairs = ((shape.key, stale or catalog.blocked(group.provider, shape)) for shape in world.offered(group))
    return {key: why for key, why in pairs if why}
