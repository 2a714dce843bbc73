"""Offers and reasons: what a demand could take, cheapest first, and why everything else is no offer for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import NamedTuple

from atoll import money, slots
from atoll.offer import Cost, Offer, OfferKind, Rejection
from atoll.states import Reason
from federation.routing.bins import Bin, Launchable, Row
from federation.routing.capacity import Capacity
from federation.routing.lens import Dear, Head, LaunchTerms, Lens, Part
from federation.routing.rules import Ruling
from federation.routing.words import free_text, version_text

WAITS_FOR_SPOT = "is an on-demand machine; the session waits for spot while its deadline allows it"
EACH = 4
"""Agents of one bin that reasons are given for: the others are alike."""


def agent_offer(lens: Lens, row: Row, head: Head | None = None, extra: int = 0) -> Offer:
    """Return the offer of free slots on an agent, with room or not; `extra` is what scarcity adds to its cost.

    `head` are the terms of its bin where they are known. Raises `ValueError` for one that `lens` does not allow.
    """
    head = head or lens.terms_in(row.bin)
    if head is None:
        raise ValueError(f"agent {row.seat.agent} is no place for {lens.asks}")
    home, part = head.bin, head.ladder.part.slots
    return Offer(
        kind=OfferKind.AGENT,
        site=home.site,
        group=home.group,
        target=row.seat.agent,
        slots=(row.free.take(lens.request) or part) if home.make.mixed else part,
        price=head.price,
        cost=head.total + extra,
        spot=home.make.kind.spot,
        parts=replace(head.cost, scarcity=extra) if extra else head.cost,
    )


def launch_offer(terms: LaunchTerms, launchable: Launchable, *, alone: bool = True) -> Offer:
    """Return the offer of an instance to be made.

    Its `price` is the member's share; its `cost` the whole machine's when the member would be `alone` on
    it: a launch is paid in full until others join.
    """
    shape, cost = launchable.shape, terms.alone if alone else terms.joined
    return Offer(
        kind=OfferKind.LAUNCH,
        site=launchable.site,
        group=launchable.group,
        target=shape.key,
        slots=terms.part.slots,
        price=terms.price,
        cost=cost.total,
        start_s=shape.start_s,
        spot=shape.spot,
        parts=cost,
    )


# -- what a decision tells beside what was taken ------------------------------------------------------------------


class Place(NamedTuple):
    """An agent with room, its bin's terms, and its offer."""

    row: Row
    head: Head
    offer: Offer


@dataclass(frozen=True, slots=True)
class Told:
    """The best alternatives and the reasons against the rest, for one kind of demand; kept as long as they hold.

    `places` are the agents offered; the numbers in reasons are of the moment when they were found. `version` is that
    of the launchables.
    """

    ranked: tuple[Offer, ...]
    rejected: tuple[Rejection, ...]
    places: tuple[Place, ...]
    version: int


def tell(lens: Lens, capacity: Capacity, limit: int, before: Told | None = None, first: Place | None = None) -> Told:
    """Return up to `limit` alternatives, one for each place, and up to `limit` reasons.

    `before`, if given, was told when nothing had more room than now: its reasons hold unless launchables changed,
    its alternatives as far as they still have room. `first` is the cheapest place, where it is known.
    """
    if before and before.version == capacity.launch_version:
        places = _renewed(before.places, lens, limit)
        if places is before.places:
            return before
        rejected, places = before.rejected, places or _places(lens, limit, first)
    else:
        rejected, places = _rejected(lens, capacity, limit), _places(lens, limit, first)
    offers = [place.offer for place in places]
    if lens.terms:
        offers += islice(_launchable_now(lens, capacity), limit)
        offers.sort(key=lambda offer: (offer.cost, offer.start_s))
    return Told(tuple(offers[:limit]), rejected, tuple(places), capacity.launch_version)


def with_scarcity(told: Told, lens: Lens, dear: Dear) -> tuple[Offer, ...]:
    """Return the alternatives with what scarcity adds to their cost now."""
    places = {place.row.seat.agent: place for place in told.places}
    offers = [
        agent_offer(lens, place.row, place.head, dear(place.head.ladder))
        if offer.kind is OfferKind.AGENT and (place := places.get(offer.target))
        else offer
        for offer in told.ranked
    ]
    return tuple(sorted(offers, key=lambda offer: (offer.cost, offer.start_s)))


def _rejected(lens: Lens, capacity: Capacity, limit: int) -> tuple[Rejection, ...]:
    """Return reasons: against shapes not to be had, full agents, then all others."""
    reasons = list(islice(_blocked_shapes(lens, capacity), limit // 2)) if lens.terms else []
    reasons += islice(_full(lens), limit - len(reasons))
    if len(reasons) < limit:
        reasons += excluded(lens, capacity, limit)[: limit - len(reasons)]
    return tuple(reasons)


def _launchable_now(lens: Lens, capacity: Capacity) -> Iterator[Offer]:
    for terms in lens.terms:
        launchable = capacity.launchable(terms.group, terms.index)
        if not launchable.blocked and launchable.room > 0:
            yield launch_offer(terms, launchable)


def _renewed(places: Sequence[Place], lens: Lens, limit: int) -> Sequence[Place]:
    """Return places with another agent in place of one that is full; none when so many are full that too few remain."""
    rows = [place.row if fits(lens, place.row) else place.head.bin.first(lens.request) for place in places]
    if all(row is place.row for row, place in zip(rows, places, strict=True)):
        return places
    gone = rows.count(None)
    if gone and (len(rows) - gone) * 2 < limit:
        return []
    return [
        place if row is place.row else Place(row, place.head, agent_offer(lens, row, place.head))
        for row, place in zip(rows, places, strict=True)
        if row is not None
    ]


def _places(lens: Lens, limit: int, first: Place | None) -> list[Place]:
    """Return the cheapest agents that have room, one of each kind of bin; `first` is the first, where it is known."""
    found = {(first.head.make, first.head.bin.kind): first} if first else {}
    for head, _ in lens.in_order():
        key = (head.make, head.bin.kind)
        row = head.bin.first(lens.request) if key not in found else None
        if row is not None:
            found[key] = Place(row, head, agent_offer(lens, row, head))
            if len(found) == limit:
                break
    return list(found.values())


# -- reasons ------------------------------------------------------------------------------------------------------


def _blocked_shapes(lens: Lens, capacity: Capacity) -> Iterator[Rejection]:
    for terms in lens.terms:
        launchable = capacity.launchable(terms.group, terms.index)
        if launchable.blocked:
            message = launchable.message or f"not asked for now: {launchable.blocked}"
            yield _against(launchable, launchable.blocked, message)
        elif launchable.room <= 0:
            yield _against(launchable, Reason.MAX_SIZE, f"group {launchable.group} is at its largest size")


def _other_shapes(lens: Lens, capacity: Capacity) -> Iterator[Rejection]:
    usable = {(terms.group, terms.index) for terms in lens.terms}
    index: dict[str, int] = {}
    for launchable in capacity.launchables():
        at = index[launchable.group] = index.get(launchable.group, -1) + 1
        if (launchable.group, at) in usable:
            continue
        shape = launchable.shape
        part = lens.part(shape.slots, launchable.labels, launchable.driver)
        if not lens.at(launchable.site, launchable.group):
            yield _against(launchable, Reason.NO_CAPABLE_SITE, "the session's placement leaves this out")
        elif part is None:
            has = f"has {slots.text(shape.slots)}; asks {lens.asks}"
            message = missing_text(lens, launchable.labels, launchable.driver) or has
            yield _against(launchable, Reason.NO_CAPABLE_SITE, message)
        elif not shape.price:
            yield _against(launchable, Reason.NO_CAPABLE_SITE, "its price is unknown, so it is never chosen")
        elif against := next(shape_limits_against(lens, launchable, part), None):
            yield _against(launchable, against.reason, against.message)


def _full(lens: Lens) -> Iterator[Rejection]:
    """Yield reasons against agents that could run it but have no room: those cheaper than a make's first that has."""
    for ladder in lens.ladders.values():
        for rank, home in enumerate(ladder.bins):
            if ladder.open >> rank & 1 and home.first(lens.request) is not None:
                break
            for row in islice(home.rows.values(), EACH):
                yield _against_row(lens, row)


def beside_room(lens: Lens, told: Sequence[Rejection], limit: int) -> tuple[Rejection, ...]:
    """Return `told`, and reasons against the full agents of bins where others have room: too few, for a gang."""
    known = {no.target for no in told}
    rows = (
        row
        for ladder in lens.ladders.values()
        for home in ladder.bins
        for row in islice((row for row in home.rows.values() if not (row.seat.open and fits(lens, row))), EACH)
        if row.seat.agent not in known
    )
    return (*told, *(_against_row(lens, row) for row in islice(rows, limit - len(told))))


def _against_row(lens: Lens, row: Row) -> Rejection:
    seat = row.seat
    if seat.open:
        reason, message = Reason.NO_FREE_SLOTS, f"has {free_text(row)} free; asks {lens.asks}"
    else:
        reason, message = seat.why_closed or Reason.NO_FREE_SLOTS, seat.message or "takes no new session now"
    return Rejection(site=seat.site, group=seat.group, target=seat.agent, reason=reason, message=message)


def excluded(lens: Lens, capacity: Capacity, limit: int) -> list[Rejection]:
    """Return up to `limit` reasons against what a demand could never use: agents, one of each kind, then shapes.

    They hold until the makes or the shapes change, and are kept with the lens until then.
    """
    if lens.excluded_limit < limit:
        agents = islice(_excluded_agents(lens, capacity), limit)
        lens.excluded = list(islice(chain(agents, _other_shapes(lens, capacity)), limit))
        lens.excluded_limit = limit
    return lens.excluded


def _excluded_agents(lens: Lens, capacity: Capacity) -> Iterator[Rejection]:
    for make in capacity.makes():
        ladder = lens.ladders.get(make)
        if ladder and ladder.bins is make.bins and not lens.limited:
            continue
        part = lens.part_of(make)
        for home in make.bins if part else make.bins[:1]:
            against = _against_bin(lens, home, part)
            if against:
                seat = next(iter(home.rows.values())).seat
                yield Rejection(
                    site=seat.site,
                    group=seat.group,
                    target=seat.agent,
                    reason=against.reason,
                    message=against.message,
                )


class Against(NamedTuple):
    """A limit or policy that is against a place, the `price` there, and what the limit would have to be at `least`."""

    reason: Reason
    message: str
    price: int = 0
    least: int = 0
    spot: bool = False


def _against_bin(lens: Lens, home: Bin, part: Part | None) -> Against | None:
    """Return why all agents of a bin are no place for a demand, or None when they are one."""
    if not lens.at(home.site, home.group):
        return Against(Reason.NO_CAPABLE_SITE, "the session's placement leaves this out")
    if part is None:
        kind = home.make.kind
        has = f"has {slots.text(kind.capacity)}; asks {lens.asks}"
        return Against(Reason.NO_CAPABLE_SITE, missing_text(lens, kind.labels, kind.driver) or has)
    return next(limits_against(lens, home, part), None)


def limits_against(lens: Lens, home: Bin, part: Part) -> Iterator[Against]:
    """Yield the limits and the policy that are against a member in a bin."""
    make, price = home.make, part.price(home.price)
    cost = lens.weigher.cost(price, home.site)
    ruling = lens.ruling(make, home, price)
    return _limits(lens, price, cost, ruling, spot=make.kind.spot, owned=home.kind.owned)


def shape_limits_against(lens: Lens, launchable: Launchable, part: Part) -> Iterator[Against]:
    """Yield the limits and the policy that are against a priced shape of which a member would take `part`."""
    shape, whole = launchable.shape, launchable.shape.price or 0
    price = part.price(whole)
    cost = lens.weigher.cost(whole, launchable.site, start_s=shape.start_s)
    return _limits(lens, price, cost, lens.shape_ruling(launchable, price), spot=shape.spot, owned=False)


def _limits(lens: Lens, price: int, cost: Cost, ruling: Ruling | None, *, spot: bool, owned: bool) -> Iterator[Against]:
    if not lens.pays(spot, owned):
        yield Against(Reason.WORTH_WAITING, WAITS_FOR_SPOT, price)
    if not lens.within(price, spot):
        yield Against(Reason.PRICE_LIMIT, over_limit(lens, price, spot), price, price, spot)
    if ruling and ruling.denied:
        yield Against(Reason.POLICY, ruling.denied, price)
    if lens.weigher.over_total(cost):
        pays = lens.weigher.all_pay(cost)
        yield Against(Reason.TOTAL_LIMIT, over_total(lens, pays), price, pays)


def fits(lens: Lens, row: Row) -> bool:
    """Say whether a member fits into what an agent has free now."""
    request = lens.request
    if row.bin.make.mixed:
        return row.key[1] >= 0 and row.free.take(request) is not None
    gpu, cpu, memory, disk, _ = row.key
    return gpu >= request.gpu.milli and cpu >= request.cpu and memory >= request.memory and disk >= request.disk


def missing_text(lens: Lens, labels: tuple[tuple[str, str], ...], driver: tuple[int, ...]) -> str:
    """Return which label or driver such a machine lacks, or ""."""
    for name, value in lens.demand.labels:
        if (name, value) not in labels:
            return f"has no label {name}={value}"
    if not lens.drives(driver):
        asked = version_text(lens.request.gpu.driver)
        return f"its GPU driver is {version_text(driver) or 'unknown'}; asks {asked} or newer"
    return ""


def over_limit(lens: Lens, price: int, spot: bool) -> str:
    """Return which limit a price, or being spot, breaks."""
    if spot and not lens.demand.spot:
        return "is a spot machine; the session refuses spot"
    return f"costs {money.text(price)} an hour; the session's limit is {money.text(lens.demand.max_price or 0)}"


def over_total(lens: Lens, pays: int) -> str:
    """Return how an expected total breaks the limit on it."""
    limit = money.text(lens.demand.max_total or 0)
    return f"is expected to cost {money.text(pays)} in all; the session's limit is {limit}"


def _against(launchable: Launchable, reason: Reason, message: str) -> Rejection:
    return Rejection(
        site=launchable.site, group=launchable.group, target=launchable.shape.key, reason=reason, message=message
    )
