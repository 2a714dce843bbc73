"""Gangs: a machine for every member of a session or for none, near each other where that is not dear.

As in the router (`federation.routing.gangs`): members go to one site, else to sites of one region, where that costs at
most `DEARER` more than the cheapest anywhere; `together` makes one site a condition, `spread` takes as many sites as
there are. Machines that are there or on their way come before launches.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from atoll.offer import DEARER, Demand, expected_cost
from atoll.states import Reason
from autoscaler.cover import Offering
from autoscaler.demand import share_price
from autoscaler.fleet import Fleet, Machine, Standing

_ORDER = (Standing.READY, Standing.PENDING, Standing.DRAINING, Standing.COLD, Standing.NEW)


@dataclass(frozen=True, slots=True)
class _Places:
    """Machines that are there and those to be launched, one a member, and what they cost in all."""

    machines: Sequence[Machine]
    launches: Sequence[Offering]
    cost: int


def serve_gang(fleet: Fleet, demand: Demand) -> bool:
    """Give each member a machine of its own, those launched for it and free agents first; all get one or none does."""
    places = _choose(fleet, demand)
    if places is None:
        return False
    for machine in places.machines:
        fleet.use(machine, demand)
    for offering in places.launches:
        fleet.launch(offering.group, offering.shape, Reason.DEMAND).put(demand)
    return True


def _choose(fleet: Fleet, demand: Demand) -> _Places | None:
    mine = {one.instance for view in fleet.views for one in view.pending if demand.session in one.sessions}
    there = [
        machine
        for machine in sorted(fleet.standing(*_ORDER), key=lambda one: one.instance not in mine)
        if fleet.allows(demand, machine.group, machine.shape) and machine.free.take(demand.request) is not None
    ]
    able = [offering for offering in fleet.open_offerings() if fleet.allows(demand, offering.group, offering.shape)]
    able.sort(key=lambda o: (fleet.terms.alone(demand, o.shape), o.group.name))
    if demand.spread:
        return _complete(fleet, demand, _dealt(there), able, mine)

    def at(sites: Collection[str]) -> _Places | None:
        within = [machine for machine in there if machine.group.site in sites]
        return _complete(fleet, demand, within, [o for o in able if o.group.site in sites], mine)

    sites = list(dict.fromkeys([*(m.group.site for m in there), *(o.group.site for o in able)]))
    one_site = _cheapest(at([site]) for site in sites)
    if demand.together or len(sites) < 2:
        return one_site
    anywhere = _complete(fleet, demand, there, able, mine)
    most = anywhere.cost * (1 + DEARER) if anywhere else float("inf")
    if one_site and one_site.cost <= most:
        return one_site
    near = _cheapest(at(within) for within in _regions(fleet, sites))
    return near if near and near.cost <= most else anywhere


def _complete(
    fleet: Fleet, demand: Demand, there: Iterable[Machine], able: Sequence[Offering], mine: Collection[str]
) -> _Places | None:
    """Return the first machines there are room to use, and launches for what they lack, or None."""
    used: list[Machine] = []
    starts: Counter[str] = Counter()
    for machine in there:
        if len(used) == demand.nodes:
            break
        cold = machine.standing is Standing.COLD and not machine.wanted
        if cold and fleet.room[machine.group.name] <= starts[machine.group.name]:
            continue
        starts[machine.group.name] += cold
        used.append(machine)
    taken = Counter(machine.group.site for machine in used) if demand.spread else None
    new = _launches(fleet, able, demand.nodes - len(used), starts, taken)
    if new is None:
        return None
    cost = sum(_cost(fleet, demand, machine) for machine in used if machine.instance not in mine)
    return _Places(used, new, cost + sum(fleet.terms.alone(demand, offering.shape) for offering in new))


def _launches(
    fleet: Fleet, able: Sequence[Offering], count: int, starts: Counter[str], taken: Counter[str] | None
) -> list[Offering] | None:
    """Return `count` launches within room and limits, the first of `able` first, or None.

    With `taken`, how many members sites have, those at the sites with the fewest come first.
    """
    new: list[Offering] = []
    used, limits, rest = Counter(starts), fleet.limits.copy(), list(able)
    while len(new) < count and rest:
        offering = min(rest, key=lambda o: taken[o.group.site]) if taken is not None else rest[0]
        name, provider = offering.group.name, offering.group.provider
        if used[name] >= fleet.room[name] or not limits.count(provider, offering.shape):
            rest.remove(offering)
            continue
        limits.take(provider, offering.shape)
        used[name] += 1
        if taken is not None:
            taken[offering.group.site] += 1
        new.append(offering)
    return new if len(new) == count else None


def _cost(fleet: Fleet, demand: Demand, machine: Machine) -> int:
    """Return a member's part of a machine that runs or is to; one that is started for it costs what a launch does."""
    if machine.standing is Standing.COLD and not machine.wanted:
        return fleet.terms.alone(demand, machine.shape)
    taken = machine.free.take(demand.request)
    return expected_cost(share_price(taken, machine.shape) if taken else 0, demand.expected_s)


def _cheapest(found: Iterable[_Places | None]) -> _Places | None:
    """Return the cheapest; of equal ones that with the fewest launches, then the first."""
    return min((one for one in found if one), key=lambda one: (one.cost, len(one.launches)), default=None)


def _regions(fleet: Fleet, sites: Iterable[str]) -> list[list[str]]:
    """Return the sites of each region with more than one of them."""
    near: dict[str, list[str]] = {}
    for site in sites:
        if region := fleet.terms.labels.get(site, {}).get("region", ""):
            near.setdefault(region, []).append(site)
    return [within for within in near.values() if len(within) > 1]


def _dealt(there: Iterable[Machine]) -> list[Machine]:
    """Return one machine of every site, then a second of every site, and so on."""
    turns: Counter[str] = Counter()
    dealt = []
    for machine in there:
        dealt.append((turns[machine.group.site], machine))
        turns[machine.group.site] += 1
    return [machine for _, machine in sorted(dealt, key=lambda pair: pair[0])]
