"""Preemption: which running sessions make room for one of higher priority, with the least work lost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from atoll.offer import Demand
from atoll.slots import Slots
from federation.routing.timeline import Running

RESTART_S = 60.0
"""What going away costs any session, in seconds of one member's work; one without checkpoints loses all it did."""

There = Sequence[tuple[Running, Slots]]
"""Sessions on one agent, with their slots there."""


def lost_s(victim: Running, now: float) -> float:
    """Return the work (seconds of one member) that a session loses when it is preempted."""
    return len(victim.members) * (RESTART_S + (0.0 if victim.checkpoint else victim.elapsed(now)))


def may_preempt(demand: Demand, victim: Running) -> bool:
    """Say whether `demand` may take a session's slots: never of an equal, a protected one, or one that goes already."""
    return victim.preemptible and victim.priority < demand.priority and not victim.protected and not victim.leaving


@dataclass(frozen=True, slots=True)
class Room:
    """An agent that has room for a member, which takes `slots`, once `victims` have gone from there."""

    agent: str
    site: str
    slots: Slots
    victims: tuple[Running, ...] = ()


def make_room(demand: Demand, agent: str, site: str, free: Slots, there: There, now: float) -> Room | None:
    """Return how an agent with this much `free` gets room for one member, or None.

    Of those `there` that may be preempted, the least loss goes first until the member fits; whoever turns out not to
    be needed stays. One session alone is taken where that loses no more.
    """
    if slots := free.take(demand.request):
        return Room(agent, site, slots)
    able = sorted((pair for pair in there if may_preempt(demand, pair[0])), key=lambda pair: _order(pair[0], now))
    ways = [_fewer(demand, free, able)]
    ways += [[pair] for pair in able if (free + pair[1]).take(demand.request)][:1]
    rooms = []
    for going in ways:
        left = free
        for _, amount in going:
            left += amount
        if slots := left.take(demand.request):
            rooms.append(Room(agent, site, slots, tuple(victim for victim, _ in going)))
    return min(rooms, key=lambda room: _weight((room,), now), default=None)


def choose(demand: Demand, rooms: Iterable[Room], now: float) -> tuple[Room, ...] | None:
    """Return a room for each member on distinct agents, with little work lost and few victims; or None.

    Rooms are taken in the order of what each loses alone; a victim with members on several of these agents counts
    once. `together` members are at one site.
    """
    by_site: dict[str, list[Room]] = {}
    for room in sorted(rooms, key=lambda room: (_weight((room,), now), room.agent)):
        by_site.setdefault(room.site if demand.together else "", []).append(room)
    found = [tuple(there[: demand.nodes]) for there in by_site.values() if len(there) >= demand.nodes]
    return min(found, key=lambda few: _weight(few, now), default=None)


def victims_of(rooms: Sequence[Room]) -> tuple[Running, ...]:
    """Return the sessions that have to go for all of `rooms`, each once."""
    return tuple({victim.session: victim for room in rooms for victim in room.victims}.values())


def by_agent(running: Sequence[Running], now: float, gone: float) -> Mapping[str, There]:
    """Return the sessions on each agent that may be preempted at all: those expected to end after `gone`."""
    there: dict[str, list[tuple[Running, Slots]]] = {}
    for one in running:
        if one.preemptible and not one.protected and not one.leaving and one.end(now)[0] > gone:
            for agent, slots in one.members:
                there.setdefault(agent, []).append((one, slots))
    return dict(sorted(there.items()))


def _fewer(demand: Demand, free: Slots, able: There) -> There:
    """Return enough of `able`, from the front, without those that are not needed, the last one looked at first."""
    going = []
    for pair in able:
        going.append(pair)
        free += pair[1]
        if free.take(demand.request):
            break
    for pair in reversed(going.copy()):
        if (free - pair[1]).take(demand.request):
            going.remove(pair)
            free -= pair[1]
    return going


def _order(victim: Running, now: float) -> tuple[float, float, str]:
    return lost_s(victim, now), victim.elapsed(now), victim.session


def _weight(rooms: Sequence[Room], now: float) -> tuple[float, int, float]:
    going = victims_of(rooms)
    return sum(lost_s(one, now) for one in going), len(going), sum(one.elapsed(now) for one in going)
