"""Gangs: which agents and launches the members of one session get together, near each other where that is not dear."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from atoll.offer import DEARER, Demand, Offer
from federation.routing.bins import Row

Spot = tuple[int, Row]
"""An agent that has room for one member, with what that member is expected to cost there."""

Launch = Callable[[Collection[str] | None, int], Sequence[Offer] | None]
"""Says which machines would be made for so many members at these sites (None: any); None where they cannot be."""


@dataclass(frozen=True, slots=True)
class Gang:
    """Agents and launches, one a member and no two on one machine, and what they cost in all."""

    rows: tuple[Row, ...]
    launches: tuple[Offer, ...] = ()
    cost: int = 0


def gather(
    demand: Demand,
    spots: Iterable[Spot],
    *,
    region: Callable[[str], str],
    launch: Launch | None = None,
    launch_sites: Collection[str] = (),
) -> Gang | None:
    """Return a place for every member, or None: all or nothing.

    `spots` are agents with room, each once. Agents come before launches; what they lack is launched at the same
    site where it can be. Members are put at one site, else at sites of one region, where that costs at most `DEARER`
    more than the cheapest anywhere; `together` makes one site a condition, `spread` takes as many sites as there are.
    """
    found = sorted(spots, key=lambda spot: (spot[0], spot[1].seat.site, spot[1].seat.agent))
    if demand.spread:
        return _complete(demand.nodes, list(_dealt(found)), None, launch)
    by_site: dict[str, list[Spot]] = {site: [] for site in sorted(launch_sites)}
    for spot in found:
        by_site.setdefault(spot[1].seat.site, []).append(spot)
    one_site = _cheapest(_complete(demand.nodes, there, (site,), launch) for site, there in by_site.items())
    if demand.together:
        return one_site
    anywhere = _complete(demand.nodes, found, None, launch)
    most = anywhere.cost * (1 + DEARER) if anywhere else inf
    if one_site and one_site.cost <= most:
        return one_site
    near = _cheapest(
        _complete(demand.nodes, [spot for spot in found if spot[1].seat.site in sites], sites, launch)
        for sites in _regions(by_site, region)
    )
    return near if near and near.cost <= most else anywhere


def _regions(sites: Iterable[str], region: Callable[[str], str]) -> list[tuple[str, ...]]:
    """Return the sites of each region with more than one of them."""
    near: dict[str, list[str]] = {}
    for site in sites:
        if named := region(site):
            near.setdefault(named, []).append(site)
    return [tuple(within) for within in near.values() if len(within) > 1]


def _complete(count: int, spots: Sequence[Spot], sites: Collection[str] | None, launch: Launch | None) -> Gang | None:
    """Return the first spots, and launches for what they lack."""
    used = spots[:count]
    launches: Sequence[Offer] | None = ()
    if len(used) < count:
        launches = launch(sites, count - len(used)) if launch else None
    if launches is None:
        return None
    cost = sum(spot[0] for spot in used) + sum(offer.cost for offer in launches)
    return Gang(tuple(spot[1] for spot in used), tuple(launches), cost)


def _cheapest(gangs: Iterable[Gang | None]) -> Gang | None:
    """Return the cheapest; of equal ones that with the fewest launches, then the first."""
    return min((gang for gang in gangs if gang), key=lambda gang: (gang.cost, len(gang.launches)), default=None)


def _dealt(found: Sequence[Spot]) -> Iterator[Spot]:
    """Yield one spot of every site, then a second of every site, and so on; the cheapest first in each turn."""
    seen: dict[str, int] = {}
    turns: dict[int, list[Spot]] = {}
    for spot in found:
        site = spot[1].seat.site
        seen[site] = turn = seen.get(site, -1) + 1
        turns.setdefault(turn, []).append(spot)
    for turn in sorted(turns):
        yield from turns[turn]
