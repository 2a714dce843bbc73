"""The router's index, kept true by what changes: agents' seats one by one, groups' offers at every look."""

import gc
from datetime import UTC, datetime

from atoll.agent import Agent
from atoll.group import Group, GroupKind
from atoll.site import Site
from atoll.states import AgentState, InstanceState, Reason
from autoscaler.limits import Limits
from federation.control.agents import used
from federation.control.catalog import Catalog
from federation.control.hours import next_change, open_now
from federation.control.links import Links
from federation.control.mirror import Mirror
from federation.control.world import World
from federation.routing.capacity import Capacity, Launchable, Seat

MANY = 1000
"""Agents that are seated at one look when a large installation starts."""


class Seating:
    """Keeps one `Capacity` for as long as the control plane runs; a change of an agent changes its seat alone."""

    def __init__(self, mirror: Mirror, links: Links, catalog: Catalog) -> None:
        self._capacity = Capacity()
        self._mirror = mirror
        self._links = links
        self._catalog = catalog
        self._shut: dict[str, str] = {}
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
                self._shut[group.name] = "" if is_open else _shut(group, world.now)
        return found

    def _seat(self, key: str) -> None:
        agent = self._mirror.agents.get(key)
        if agent is None:
            self._capacity.drop_seat(key)
            return
        closed, text = self._closed(agent)
        instance = self._mirror.instances.get(agent.instance)
        shape = instance.shape if instance else None
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
                driver=_driver(agent),
                owned=not agent.instance,
                provider=shape.provider if shape else "",
                shape=shape.name if shape else "",
                interruptions=shape.interruptions if shape else None,
                open=closed is Reason.NONE,
                why_closed=closed,
                message=text,
            )
        )

    def _labels(self, site: str, group: str) -> tuple[tuple[str, str], ...]:
        """Return what a placement may ask for: the site's labels, the group's over them."""
        where, of = self._mirror.sites.get(site), self._mirror.groups.get(group)
        return tuple(sorted(((where.labels if where else {}) | (of.labels if of else {})).items()))

    def _closed(self, agent: Agent) -> tuple[Reason, str]:
        live = self._links.live(agent.id)
        if agent.state is AgentState.DRAINING:
            told = agent.acknowledged_epoch >= agent.cordon_epoch
            return agent.reason if told else Reason.AWAITING_ACKNOWLEDGEMENT, f"is being emptied: {agent.message}"
        if live is None:
            return Reason.DISCONNECTED, "its link is down"
        if live.notice:
            return Reason.SPOT_NOTICE, live.notice
        if shut := self._shut.get(agent.group):
            return Reason.OUTSIDE_HOURS, shut
        return Reason.NONE, ""

    def _launchables(self, world: World, group: Group) -> list[Launchable]:
        mine = world.instances_of.get(group.name, ())
        room = group.size.max - sum(row.state is not InstanceState.STOPPED for row in mine)
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
                    room=max(0, room),
                    labels=self._labels(group.site, group.name),
                    driver=group.driver,
                    blocked=closed,
                    message=text,
                )
            )
        return launchables


def _shut(group: Group, now: float) -> str:
    """Return when a group that takes no sessions now will again."""
    text = f"takes sessions only at {', '.join(each.text for each in group.hours)}"
    opens = next_change(group.hours, now)
    return text if opens is None else f"{text}: next from {datetime.fromtimestamp(opens, UTC):%Y-%m-%d %H:%M} UTC"


def _driver(agent: Agent) -> tuple[int, ...]:
    """Return the version of an agent's GPU driver as numbers, empty where it has told none."""
    parts = agent.facts.get("nvidia_driver", "").split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def blocks(catalog: Catalog, world: World, group: Group) -> dict[str, str]:
    """Return, by shape key, why a group's shapes are not asked for now."""
    stale = catalog.stale(group.provider)
    pairs = ((shape.key, stale or catalog.blocked(group.provider, shape)) for shape in world.offered(group))
    return {key: why for key, why in pairs if why}
