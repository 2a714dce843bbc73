"""Offers and reasons: what a demand could take, cheapest first, and why everything else is no offer for it."""

from collections.abc import Iterator
from itertools import islice

from atoll import money, slots
from atoll.offer import Demand, Offer, OfferKind, Rejection, expected_cost
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing.bins import Bin, Launchable, Row
from federation.routing.capacity import Capacity
from federation.routing.lens import LaunchTerms, Lens

LOOKED_AT = 4
"""Agents looked at for each reason shown: fitting ones have none, and a large fleet is not walked to explain."""


def agent_offer(demand: Demand, lens: Lens, row: Row) -> Offer:
    """Return the offer of free slots on an agent that was found through `lens`."""
    home = row.bin
    part = lens.part_of(home)
    if part is None:
        raise ValueError(f"agent {row.seat.agent} could never run {lens.asks}")
    price = part.price(home.price)
    return Offer(
        kind=OfferKind.AGENT,
        site=home.site,
        group=home.group,
        target=row.seat.agent,
        slots=_taken(row, lens) if home.mixed else part.slots,
        price=price,
        cost=money.cost(price, demand.expected_s),
        spot=home.spot,
    )


def launch_offer(demand: Demand, terms: LaunchTerms, launchable: Launchable, *, alone: bool = True) -> Offer:
    """Return the offer of an instance to be made.

    Its `price` is the member's share; its `cost` the whole machine's when the member would be `alone` on
    it: a launch is paid in full until others join.
    """
    shape = launchable.shape
    paid = terms.whole if alone else terms.price
    return Offer(
        kind=OfferKind.LAUNCH,
        site=launchable.site,
        group=launchable.group,
        target=shape.key,
        slots=terms.part.slots,
        price=terms.price,
        cost=expected_cost(paid, demand.expected_s, shape.start_s),
        start_s=shape.start_s,
        spot=shape.spot,
    )


def ranked(demand: Demand, lens: Lens, capacity: Capacity, limit: int) -> tuple[Offer, ...]:
    """Return up to `limit` of the cheapest offers on running agents and from shapes that may be launched now."""
    offers = [agent_offer(demand, lens, row) for row in islice(capacity.fitting(lens), limit)]
    free = ((t, capacity.launchable(t.group, t.index)) for t in lens.by_cost(demand.expected_s))
    able = ((t, launchable) for t, launchable in free if not launchable.blocked and launchable.room > 0)
    offers += [launch_offer(demand, terms, launchable) for terms, launchable in islice(able, limit)]
    return tuple(sorted(offers, key=lambda offer: (offer.cost, offer.start_s))[:limit])


def rejected(lens: Lens, capacity: Capacity, limit: int) -> tuple[Rejection, ...]:
    """Return up to `limit` reasons: first capable shapes that are not to be had, then agents, then other shapes."""
    found = list(islice(_blocked_shapes(lens, capacity), limit // 2))
    found += islice(_agents(lens, capacity, LOOKED_AT * limit), limit - len(found))
    found += islice(_other_shapes(lens, capacity), limit - len(found))
    return tuple(found)


def _blocked_shapes(lens: Lens, capacity: Capacity) -> Iterator[Rejection]:
    for terms in lens.terms:
        launchable = capacity.launchable(terms.group, terms.index)
        if launchable.blocked:
            message = launchable.message or f"not asked for now: {launchable.blocked}"
            yield _against(launchable, launchable.blocked, message)
        elif launchable.room <= 0:
            yield _against(launchable, Reason.MAX_SIZE, f"group {launchable.group} is at its largest size")


def _other_shapes(lens: Lens, capacity: Capacity) -> Iterator[Rejection]:
    for launchable in capacity.launchables():
        shape = launchable.shape
        part = lens.part(shape.slots)
        if not lens.at(launchable.site, launchable.group):
            yield _against(launchable, Reason.NO_CAPABLE_SITE, "the session's placement leaves this out")
        elif part is None:
            yield _against(launchable, Reason.NO_CAPABLE_SITE, f"has {slots.text(shape.slots)}; asks {lens.asks}")
        elif not shape.price:
            yield _against(launchable, Reason.NO_CAPABLE_SITE, "its price is unknown, so it is never chosen")
        elif not lens.within(part.price(shape.price), shape.spot):
            yield _against(launchable, Reason.PRICE_LIMIT, over_limit(lens, part.price(shape.price), shape.spot))


def _agents(lens: Lens, capacity: Capacity, looked_at: int) -> Iterator[Rejection]:
    for row in islice(_rows(capacity), looked_at):
        verdict = _verdict(lens, row)
        if verdict is not None:
            seat = row.seat
            yield Rejection(site=seat.site, group=seat.group, target=seat.agent, reason=verdict[0], message=verdict[1])


def _rows(capacity: Capacity) -> Iterator[Row]:
    for home in capacity.bins():
        yield from home.rows.values()


def _verdict(lens: Lens, row: Row) -> tuple[Reason, str] | None:
    seat, home = row.seat, row.bin
    if not lens.at(seat.site, seat.group):
        return Reason.NO_CAPABLE_SITE, "the session's placement leaves this out"
    part = lens.part_of(home)
    if part is None:
        return Reason.NO_CAPABLE_SITE, f"has {slots.text(seat.capacity)}; asks {lens.asks}"
    price = part.price(home.price)
    if not lens.within(price, home.spot):
        return Reason.PRICE_LIMIT, over_limit(lens, price, home.spot)
    if not seat.open:
        return seat.why_closed or Reason.NO_FREE_SLOTS, seat.message or "takes no new session now"
    if _fits(lens, row):
        return None
    return Reason.NO_FREE_SLOTS, f"has {free_text(row)} free; asks {lens.asks}"


def _fits(lens: Lens, row: Row) -> bool:
    request = lens.request
    if row.bin.mixed:
        return row.free.take(request) is not None
    gpu, cpu, memory, disk, _ = row.key
    return gpu >= request.gpu.milli and cpu >= request.cpu and memory >= request.memory and disk >= request.disk


def free_text(row: Row) -> str:
    """Return for people what an agent has free now, a trial's placements counted."""
    gpu, cpu, memory, _, _ = row.key
    text = slots.text(Slots(cpu, memory))
    return f"{text}, {gpu / 1000:g} GPU" if row.bin.capacity.gpu else text


def over_limit(lens: Lens, price: int, spot: bool) -> str:
    """Return which cost limit a price, or being spot, breaks."""
    if spot and not lens.spot:
        return "is a spot machine; the session refuses spot"
    return f"costs {money.text(price)} an hour; the session's limit is {money.text(lens.max_price or 0)}"


def _taken(row: Row, lens: Lens) -> Slots:
    taken = row.free.take(lens.request)
    return taken if taken is not None else Slots()


def _against(launchable: Launchable, reason: Reason, message: str) -> Rejection:
    return Rejection(
        site=launchable.site, group=launchable.group, target=launchable.shape.key, reason=reason, message=message
    )


def capable_bins(lens: Lens, capacity: Capacity) -> Iterator[Bin]:
    """Yield bins at allowed places whose agents could run a member, prices and what is free left aside."""
    for home in capacity.bins():
        if lens.at(home.site, home.group) and lens.part_of(home) is not None:
            yield home


def capable_shapes(lens: Lens, capacity: Capacity) -> Iterator[Launchable]:
    """Yield priced shapes at allowed places that could run a member, cost limits and room left aside."""
    for launchable in capacity.launchables():
        allowed = launchable.shape.price and lens.at(launchable.site, launchable.group)
        if allowed and lens.part(launchable.shape.slots) is not None:
            yield launchable
