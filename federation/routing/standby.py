"""Standbys as one trial sees them: machines on their way that have room, then stopped ones; in the planner's order.

A machine on its way is paid for anyway: a member pays its share. One that is stopped costs the whole until others join.
Sessions that a machine was launched for have their place on it; what is over is for all. (`autoscaler.grow` serves
sessions in the same order, so what is told here is what it will do.)
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from atoll import money, slots
from atoll.instance import Shape
from atoll.offer import Demand, Offer, OfferKind, Rejection
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing.bins import Standby
from federation.routing.lens import LaunchTerms, Lens
from federation.routing.offers import Told


class Way(NamedTuple):
    """A standby that could hold a member, and on what terms."""

    standby: Standby
    terms: LaunchTerms

    def suits(self, cost: int, below: int | None, sites: Collection[str] | None) -> bool:
        """Say whether it is at one of `sites` (None: any) and costs less than `below` (None: whatever)."""
        return (sites is None or self.standby.site in sites) and (below is None or cost < below)

    def offer(self, *, alone: bool) -> Offer:
        """Return the offer of a member's part; of a stopped machine the cost is the whole's where it is `alone`."""
        standby, terms = self.standby, self.terms
        cost = terms.alone if alone else terms.joined
        return Offer(
            kind=standby.kind,
            site=standby.site,
            group=standby.group,
            target=standby.instance,
            slots=terms.part.slots,
            price=terms.price,
            cost=cost.total,
            start_s=standby.start_s,
            spot=standby.shape.spot,
            parts=cost,
        )


class Standbys:
    """All standbys, and how each kind of demand sees them.

    `room` (by group) and `machines` are the trial's: what is left of groups and machines it has made use of.
    """

    def __init__(
        self, standbys: Sequence[Standby], room: dict[str, int], machines: dict[tuple[str, str], Slots]
    ) -> None:
        self._all = standbys
        self._room = room
        self._machines = machines
        self._seen: dict[Lens, tuple[Way, ...]] = {}
        self._left: dict[Lens, list[Way]] = {}
        self._of: dict[str, list[Standby]] = {}
        for standby in standbys:
            for session in standby.sessions if standby.kind is OfferKind.PENDING else ():
                self._of.setdefault(session, []).append(standby)

    def join(
        self, demand: Demand, lens: Lens, below: int | None, sites: Collection[str] | None, taken: Collection[str]
    ) -> Offer | None:
        """Return room on a machine that comes anyway and count it, or None: one launched for it, else the cheapest.

        Only what costs less than `below` will do, at `sites` (None: any), and no instance of `taken`.
        """
        skipped = set(taken)
        if own := self._of.get(demand.session):
            for way in _ways(lens, own, whole=True):
                if way.standby.instance not in taken and way.suits(way.terms.joined.total, below, sites):
                    return way.offer(alone=False)
            skipped.update(standby.instance for standby in own)
        left = self._left.get(lens)
        if left is None:
            left = self._left[lens] = list(self._seen_by(lens))
        at = 0
        while at < len(left):
            way = left[at]
            standby, free = way.standby, self._free(way.standby)
            if free is not None:
                part = free.take(demand.request)
                if part is None:
                    del left[at]
                    continue
                if standby.instance not in skipped and way.suits(way.terms.joined.total, below, sites):
                    self._machines[standby.group, standby.instance] = free - part
                    return way.offer(alone=False)
            at += 1
        return None

    def renew(self) -> None:
        """Look again for room where there was none: what was counted has been taken back."""
        self._left.clear()

    def stopped(self, lens: Lens, below: int | None, sites: Collection[str] | None) -> Way | None:
        """Return the cheapest stopped machine that may be started at these sites for less than `below`, or None."""
        for way in self._seen_by(lens):
            standby = way.standby
            if standby.kind is OfferKind.COLD and self._room.get(standby.group, standby.room) > 0:
                idle = (standby.group, standby.instance) not in self._machines
                if idle and way.suits(way.terms.alone.total, below, sites):
                    return way
        return None

    def start(self, way: Way) -> Offer:
        """Return the offer of a stopped machine for a member and count it: others may join from now on."""
        standby = way.standby
        self._room[standby.group] = self._room.get(standby.group, standby.room) - 1
        self._machines[standby.group, standby.instance] = standby.free - way.terms.part.slots
        return way.offer(alone=True)

    def told(self, told: Told, lens: Lens, limit: int) -> Told:
        """Return what is told with standbys among the alternatives, as they were when the trial began."""
        offers = [*told.ranked, *islice(self._offers(lens), limit)]
        offers.sort(key=lambda offer: (offer.cost, offer.start_s))
        return replace(told, ranked=tuple(offers[:limit]))

    def _offers(self, lens: Lens) -> Iterator[Offer]:
        """Yield every machine on its way with room, and one of those that are stopped and alike."""
        told = set()
        for way in self._seen_by(lens):
            standby = way.standby
            if standby.kind is OfferKind.PENDING:
                yield way.offer(alone=False)
            elif standby.room > 0 and (alike := (standby.group, standby.shape.key)) not in told:
                told.add(alike)
                yield way.offer(alone=True)

    def able(self, lens: Lens) -> bool:
        """Say whether a member could run on any, were it not full."""
        return next(_ways(lens, self._all, whole=True), None) is not None

    def against(self, lens: Lens, limit: int) -> Iterator[Rejection]:
        """Yield reasons against up to `limit` machines that a member could run on, were they not full."""
        for way in islice(_ways(lens, self._all, whole=True), limit):
            standby = way.standby
            if standby.kind is OfferKind.COLD:
                if standby.room <= 0:
                    message = f"is stopped, and group {standby.group} is at its largest size"
                    yield _against(standby, Reason.MAX_SIZE, message)
            elif standby.free.take(lens.request) is None:
                message = f"is on its way with {slots.text(standby.free)} to spare; asks {lens.asks}"
                yield _against(standby, Reason.NO_FREE_SLOTS, message)

    def _free(self, standby: Standby) -> Slots | None:
        """Return what is left of a machine that comes anyway, None of one that is stopped."""
        free = self._machines.get((standby.group, standby.instance))
        return standby.free if free is None and standby.kind is OfferKind.PENDING else free

    def _seen_by(self, lens: Lens) -> tuple[Way, ...]:
        found = self._seen.get(lens)
        if found is None:
            found = self._seen[lens] = tuple(sorted(_ways(lens, self._all), key=_order))
        return found


def beside(ranked: Sequence[Offer], taken: Offer) -> tuple[Offer, ...]:
    """Return the alternatives with `taken` among them."""
    if any((offer.kind, offer.target) == (taken.kind, taken.target) for offer in ranked):
        return tuple(ranked)
    return tuple(sorted((*ranked[: max(1, len(ranked) - 1)], taken), key=lambda offer: (offer.cost, offer.start_s)))


def launch_text(offers: Sequence[Offer]) -> str:
    """Return what is made for a session, and when it is there, for people."""
    start_s, price = max(offer.start_s for offer in offers), money.text(sum(offer.price for offer in offers))
    first = offers[0]
    if len(offers) == 1 and first.kind is OfferKind.PENDING:
        return f"joins instance {first.target} of group {first.group}, there in about {start_s:.0f} s, {price} an hour"
    kinds = (OfferKind.PENDING, OfferKind.COLD, OfferKind.LAUNCH)
    alike = [[offer for offer in offers if offer.kind is kind] for kind in kinds]
    what = " and ".join(_part(those) for those in alike if those)
    return f"best served by {what}: about {start_s:.0f} s to start, {price} an hour"


def _part(offers: Sequence[Offer]) -> str:
    first, count = offers[0], len(offers)
    groups = f"group {first.group}" if len({offer.group for offer in offers}) == 1 else "several groups"
    if first.kind is OfferKind.LAUNCH:
        shapes = first.target if len({offer.target for offer in offers}) == 1 else "several shapes"
        return f"{count} x {shapes} of {groups}, not there yet"
    which = f"instance {first.target}" if count == 1 else f"{count} instances"
    return f"{which} of {groups}, {'on the way' if first.kind is OfferKind.PENDING else 'stopped now'}"


def _ways(lens: Lens, standbys: Sequence[Standby], *, whole: bool = False) -> Iterator[Way]:
    """Yield those of `standbys` that a member may use: with room on what is free, or on the `whole` of one."""
    request = lens.request
    able: dict[tuple[str, Shape], bool] = {}
    known: dict[tuple[str, Shape, float], LaunchTerms | None] = {}
    for standby in standbys:
        if not whole and standby.free.take(request) is None:
            continue
        kind = (standby.group, standby.shape)
        if kind not in able:
            launched = lens.launch_terms(standby, 0)
            able[kind] = launched is not None and lens.may_launch(standby, launched)
        if not able[kind]:
            continue
        key = (*kind, standby.start_s)
        if key not in known:
            known[key] = lens.launch_terms(standby, 0, standby.start_s)
        if terms := known[key]:
            yield Way(standby, terms)


def _order(way: Way) -> tuple[bool, int, str, str]:
    stopped = way.standby.kind is OfferKind.COLD
    cost = way.terms.alone if stopped else way.terms.joined
    return (stopped, cost.total, way.standby.group, way.standby.instance)


def _against(standby: Standby, reason: Reason, message: str) -> Rejection:
    return Rejection(site=standby.site, group=standby.group, target=standby.instance, reason=reason, message=message)
