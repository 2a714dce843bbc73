"""A lens: the index as sessions with one request and the same limits see it, cheapest first, kept between calls.

For each make that could run such a session it has a ladder of bins by cost; the heads of the ladders, sorted, are
where to look first. What was found full is not looked at again until it has more free, and a new kind of session
costs a look at every make, not at every agent.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from atoll import money
from atoll.offer import Cost, Demand, OfferKind, Rejection
from atoll.slots import Request, Slots
from atoll.value import value
from federation.routing.bins import BIN_SIZE, Bin, BinKind, Labels, Launchable, Make, Row
from federation.routing.cost import SiteTerms, Weigher
from federation.routing.rules import Candidate, Rules, Ruling
from federation.routing.words import ask_text

if TYPE_CHECKING:
    from federation.routing.offers import Told

LensKey = tuple[object, ...]
Dear = Callable[["Ladder"], int]
"""What scarcity adds to the cost of a ladder's bins; 0 or more."""


@value()
class Part:
    """What a member would take of a machine: the slots, and their share of the whole, within 0..1.

    `waste` says how scarce the hardware is that it would sit on: GPUs it does not use, or larger than it needs.
    """

    slots: Slots
    share: float
    waste: int

    def price(self, whole: int) -> int:
        """Return the member's part of a machine's price."""
        return round(self.share * whole)


@dataclass(frozen=True, slots=True)
class LaunchTerms:
    """A capable, allowed, priced shape: where to find it, what a member takes of it, and what it would cost.

    `alone` is the cost of a machine of one's own, `joined` that of the member's share of one that others use too.
    """

    group: str
    index: int
    part: Part
    price: int
    alone: Cost
    joined: Cost


class Head(NamedTuple):
    """A bin as an offer: ordered by cost, then price, then waste; `make` (a number) decides between equals."""

    total: int
    price: int
    waste: int
    make: int
    rank: int
    bin: Bin
    ladder: "Ladder"
    parts: Cost | None

    @property
    def cost(self) -> Cost:
        """What `total` is made of: where nothing else was weighed, it is all money for the run."""
        return self.parts or _run_only(self.total)


class Ladder:
    """One make's bins that a lens allows, cheapest first; `open` has a bit for each that may have room.

    `rank` is the place of each bin, `rate` how often an hour such a machine is taken away.
    """

    __slots__ = ("bins", "head", "make", "open", "part", "rank", "rate")

    def __init__(self, make: Make, part: Part, bins: Sequence[Bin], rank: Mapping[Bin, int], rate: float) -> None:
        self.make = make
        self.part = part
        self.rate = rate
        self.bins = bins
        self.rank = rank
        self.open = (1 << len(bins)) - 1
        self.head: Head | None = None


class Lens:
    """What could ever serve one kind of demand: a ladder for each capable make, and terms for each capable shape."""

    def __init__(self, demand: Demand, rules: Rules, sites: Mapping[str, SiteTerms]) -> None:
        self.demand = demand
        self.request: Request = demand.request
        self.choosy = is_choosy(demand)
        self.weigher = Weigher(demand, rules, sites)
        self.asks = ask_text(self.request)
        self.ladders: dict[Make, Ladder] = {}
        self.heads: list[Head] = []
        self.terms: list[LaunchTerms] = []
        self.on_demand: int | None = None
        self.told: dict[int, Told] = {}
        self.excluded: list[Rejection] = []
        self.excluded_limit = 0
        self.seen = -1
        self.shapes = -1
        self._judge = rules.judge
        self._reorders = rules.judge is not None or self.weigher.has_egress
        self.limited = demand.max_price is not None or demand.max_total is not None
        self._plain = not (self.limited or self._reorders)
        self._anywhere = demand.on_demand and not (demand.sites or demand.groups)
        self._expected_s = demand.expected_s
        self._sums: tuple[int, int, tuple[str, ...]] | None = None
        self._smallest = (self.request.gpu.milli, self.request.cpu)
        self._rulings: dict[tuple[int, BinKind], Ruling] = {}
        self._shape_rulings: dict[tuple[str, str, int], Ruling] = {}

    # -- what is allowed --------------------------------------------------------------------------

    def at(self, site: str, group: str) -> bool:
        """Say whether placement limits allow this site and group."""
        sites, groups = self.demand.sites, self.demand.groups
        return (not sites or site in sites) and (not groups or group in groups)

    def part(self, capacity: Slots, labels: Labels = (), driver: tuple[int, ...] = ()) -> Part | None:
        """Return what a member takes of such a machine, or None when it could never run there."""
        request, wanted = self.request, self.demand.labels
        if request.cpu > capacity.cpu or request.memory > capacity.memory or (request.gpu.milli and not capacity.gpu):
            return None
        if (wanted and not set(wanted).issubset(labels)) or (request.gpu.driver and not self.drives(driver)):
            return None
        taken = capacity.take(request)
        return None if taken is None else Part(taken, taken.share_of(capacity), _waste(taken, capacity))

    def part_of(self, make: Make) -> Part | None:
        """Return what a member takes of a make's agents, limits on place and cost left aside."""
        ladder = self.ladders.get(make)
        return ladder.part if ladder else self.part(make.capacity, make.kind.labels, make.kind.driver)

    def drives(self, driver: tuple[int, ...]) -> bool:
        """Say whether a GPU driver is new enough; an unknown one is not."""
        gpu = self.request.gpu
        return not gpu.milli or not gpu.driver or driver >= gpu.driver

    def within(self, price: int, spot: bool) -> bool:
        """Say whether the limits on price and spot allow a member's price, on a spot machine or not."""
        most = self.demand.max_price
        return (self.demand.spot or not spot) and (most is None or price <= most)

    def pays(self, spot: bool, owned: bool) -> bool:
        """Say whether such a machine may be paid for: own ones always, on-demand ones unless it waits for spot."""
        return owned or spot or self.demand.on_demand

    def ruling(self, make: Make, home: Bin, price: int) -> Ruling | None:
        """Return what the policy says of a bin's agents, asked once for each kind of bin; None without a policy."""
        if self._judge is None:
            return None
        key = (make.number, home.kind)
        if key not in self._rulings:
            kind = home.kind
            candidate = Candidate(
                kind=OfferKind.AGENT,
                site=kind.site,
                group=kind.group,
                provider=kind.provider,
                region=self.weigher.region(kind.site),
                shape=kind.shape,
                price=price,
                spot=make.kind.spot,
                owned=kind.owned,
            )
            self._rulings[key] = self._judge(self.demand, candidate)
        return self._rulings[key]

    def shape_ruling(self, launchable: Launchable, price: int) -> Ruling | None:
        """Return what the policy says of a shape, asked once for each; None without a policy."""
        if self._judge is None:
            return None
        shape = launchable.shape
        key = (launchable.group, shape.key, price)
        if key not in self._shape_rulings:
            candidate = Candidate(
                kind=OfferKind.LAUNCH,
                site=launchable.site,
                group=launchable.group,
                provider=launchable.provider,
                region=self.weigher.region(launchable.site),
                shape=shape.name,
                price=price,
                spot=shape.spot,
                owned=False,
                start_s=shape.start_s,
            )
            self._shape_rulings[key] = self._judge(self.demand, candidate)
        return self._shape_rulings[key]

    # -- bins, cheapest first ---------------------------------------------------------------------

    def see_all(self, makes: Iterable[Make]) -> None:
        """Look at every make anew."""
        self.ladders.clear()
        self.heads.clear()
        self.told.clear()
        for make in makes:
            self._see_make(make)

    def see(self, events: Iterable[Bin | Make]) -> None:
        """Take in what happened to the index: bins that have more free, makes whose bins came or went."""
        for event in events:
            if isinstance(event, Make):
                self._see_make(event)
                self.told.clear()
            elif event.make in self.ladders:
                self.reopen(event)
                self.told.clear()

    def reopen(self, home: Bin) -> bool:
        """Look into a bin again, for something there has more free; return whether it had been closed."""
        ladder = self.ladders.get(home.make)
        rank = ladder.rank.get(home) if ladder else None
        if ladder is None or rank is None or ladder.open >> rank & 1:
            return False
        ladder.open |= 1 << rank
        if ladder.head is None or rank < ladder.head.rank:
            self._put_head(ladder, rank)
        return True

    def find(self, dear: Dear | None = None) -> tuple[Row, Head, int] | None:
        """Return the cheapest open agent that fits, its bin's terms and what scarcity adds, or None."""
        heads, request, at = self.heads, self.request, 0
        found: tuple[Row, Head, int] | None = None
        while at < len(heads):
            head = heads[at]
            if found and head.total >= found[1].total + found[2]:
                break
            row = head.bin.first(request)
            if row is None:
                self._close(head.ladder)
                continue
            if dear is None:
                return row, head, 0
            extra = dear(head.ladder)
            if found is None or head.total + extra < found[1].total + found[2]:
                found = row, head, extra
            at += 1
        return found

    def in_order(self, dear: Dear | None = None) -> Iterator[tuple[Head, int]]:
        """Yield all bins that may have room, cheapest first, with what scarcity adds; nothing may change meanwhile."""
        heads: Iterator[tuple[int, Head, int]] = ((head.total, head, 0) for head in self.heads)
        if dear:
            heads = iter(sorted((head.total + (extra := dear(head.ladder)), head, extra) for head in self.heads))
        later: list[tuple[int, Head, int]] = []
        soonest = next(heads, None)
        while soonest or later:
            if soonest and (not later or soonest < later[0]):
                _, head, extra = soonest
                soonest = next(heads, None)
            else:
                _, head, extra = heappop(later)
            yield head, extra
            rest = head.ladder.open >> (head.rank + 1)
            after = self._head(head.ladder, head.rank + (rest & -rest).bit_length()) if rest else None
            if after:
                heappush(later, (after.total + extra, after, extra))

    def fitting(self, each: int = BIN_SIZE, dear: Dear | None = None) -> Iterator[tuple[Row, Head, int]]:
        """Yield open agents that fit, at most `each` of a bin, cheapest first, with terms and what scarcity adds."""
        for head, extra in self.in_order(dear):
            for row in islice(head.bin.fitting(self.request), each):
                yield row, head, extra

    def terms_in(self, home: Bin) -> Head | None:
        """Return a bin's terms, whether it has room or not; None where it is not allowed."""
        ladder = self.ladders.get(home.make)
        rank = ladder.rank.get(home) if ladder else None
        return self._head(ladder, rank) if ladder and rank is not None else None

    def allows(self, row: Row) -> bool:
        """Say whether an agent could serve these demands when it has room: it is capable, and within all limits."""
        ladder = self.ladders.get(row.bin.make)
        rank = ladder.rank.get(row.bin) if ladder else None
        if ladder is None or rank is None:
            return False
        return not self.limited or self._head(ladder, rank) is not None

    @property
    def least(self) -> int:
        """The least that any allowed place costs a member, room or not; no place: 0."""
        return self._summary[0]

    @property
    def most(self) -> int:
        """The most that any allowed place costs a member, room or not; no place: 0."""
        return self._summary[1]

    @property
    def models(self) -> tuple[str, ...]:
        """The GPU models that could serve a member, sorted; none where it asks for no GPU."""
        return self._summary[2]

    @property
    def _summary(self) -> tuple[int, int, tuple[str, ...]]:
        if self._sums is None:
            ladders = self.ladders.values()
            low = [head.total for ladder in ladders if (head := self._head(ladder, 0))]
            high = [head.total for ladder in ladders if (head := self._head(ladder, len(ladder.bins) - 1))]
            models = {
                gpu.model for ladder in ladders for gpu in ladder.make.capacity.gpu if self.request.gpu.allows(gpu)
            }
            asked = tuple(sorted(models)) if self.request.gpu.milli else ()
            self._sums = min(low, default=0), max(high + low, default=0), asked
        return self._sums

    def _see_make(self, make: Make) -> None:
        """Build the ladder of a make anew, if it can run such a session at all within the limits."""
        before = self.ladders.pop(make, None)
        self._sums = None
        self.excluded_limit = 0
        if before:
            self._drop_head(before)
        part = before.part if before else self.part_of(make)
        if part is None or not make.by_kind or (make.kind.spot and not self.demand.spot):
            return
        rate = self.weigher.rate(make.kind.interruptions, spot=make.kind.spot)
        bins, rank = make.bins, make.rank
        if not self._anywhere:
            spot = make.kind.spot
            bins = [home for home in bins if self.at(home.site, home.group) and self.pays(spot, home.kind.owned)]
        if self._reorders:
            prices = [part.price(home.price) for home in bins]
            costs = [self._weigh(make, rate, home, price) for home, price in zip(bins, prices, strict=True)]
            order = [(cost.total, prices[at], at) for at, cost in enumerate(costs) if cost]
            bins = [bins[at] for _, _, at in sorted(order)]
        if bins is not make.bins:
            rank = {home: at for at, home in enumerate(bins)}
        ladder = Ladder(make, part, bins, rank, rate)
        if bins and self._put_head(ladder, 0):
            self.ladders[make] = ladder

    def _head(self, ladder: Ladder, rank: int) -> Head | None:
        home = ladder.bins[rank]
        price = round(ladder.part.share * home.price)
        if self._plain and not ladder.rate:
            total, parts = money.cost(price, self._expected_s), None
        else:
            parts = self._weigh(ladder.make, ladder.rate, home, price)
            if parts is None:
                return None
            total = parts.total
        return Head(total, price, ladder.part.waste, ladder.make.number, rank, home, ladder, parts)

    def _weigh(self, make: Make, rate: float, home: Bin, price: int) -> Cost | None:
        """Return a member's cost in a bin, or None when a limit or the policy is against it."""
        if not self.within(price, make.kind.spot):
            return None
        ruling = self.ruling(make, home, price)
        if ruling and ruling.denied:
            return None
        cost = self.weigher.cost(price, home.site, rate=rate, ruling=ruling)
        return None if self.weigher.over_total(cost) else cost

    def _put_head(self, ladder: Ladder, rank: int) -> bool:
        if ladder.head:
            self._drop_head(ladder)
        ladder.head = head = self._head(ladder, rank)
        if head:
            insort(self.heads, head)
        return head is not None

    def _drop_head(self, ladder: Ladder) -> None:
        if ladder.head:
            del self.heads[bisect_left(self.heads, ladder.head)]
            ladder.head = None

    def _close(self, ladder: Ladder) -> None:
        """Note that a ladder's head has no room, and go on to the next bin that has some."""
        bins, least = ladder.bins, self._smallest
        rest = ladder.open & ~(1 << ladder.head.rank) if ladder.head and ladder.make.most >= least else 0
        while rest:
            low = rest & -rest
            home = bins[low.bit_length() - 1]
            if home.order and home.order[-1] >= least:
                break
            rest ^= low
        ladder.open = rest
        if rest:
            self._put_head(ladder, (rest & -rest).bit_length() - 1)
        else:
            self._drop_head(ladder)

    # -- shapes -----------------------------------------------------------------------------------

    def see_launchables(self, launchables: Iterable[Launchable], version: int) -> None:
        """Take in all groups' shapes: those that are capable, allowed and have a price above 0, cheapest first."""
        self.terms = []
        self.told.clear()
        self._shape_rulings.clear()
        self.excluded_limit = 0
        self.on_demand = None
        places: dict[str, int] = {}
        for launchable in launchables:
            index = places[launchable.group] = places.get(launchable.group, -1) + 1
            terms = self.launch_terms(launchable, index)
            if terms is None:
                continue
            if not launchable.shape.spot:
                self.on_demand = terms.price if self.on_demand is None else min(terms.price, self.on_demand)
            if self.may_launch(launchable, terms):
                self.terms.append(terms)
        self.terms.sort(key=lambda terms: (terms.alone.total, terms.group, terms.index))
        self.shapes = version

    def floor(self, *, joining: bool) -> int:
        """Return the least that any launch costs; with `joining`, on a machine that others are to share."""
        return min(terms.joined.total for terms in self.terms) if joining else self.terms[0].alone.total

    def may_launch(self, launchable: Launchable, terms: LaunchTerms) -> bool:
        """Say whether limits and policy allow a machine on these terms."""
        ruling, spot = self.shape_ruling(launchable, terms.price), launchable.shape.spot
        allowed = self.pays(spot, owned=False) and self.within(terms.price, spot)
        return allowed and not (ruling and ruling.denied) and not self.weigher.over_total(terms.alone)

    def launch_terms(self, launchable: Launchable, index: int, start_s: float | None = None) -> LaunchTerms | None:
        """Return the terms of a machine that starts in `start_s` (None: as its shape does), or None: not capable."""
        shape = launchable.shape
        start = shape.start_s if start_s is None else start_s
        if not shape.price or not self.at(launchable.site, launchable.group):
            return None
        part = self.part(shape.slots, launchable.labels, launchable.driver)
        if part is None:
            return None
        price = part.price(shape.price)
        rate = self.weigher.rate(shape.interruptions, spot=shape.spot)
        ruling = self.shape_ruling(launchable, price)
        alone, joined = (
            self.weigher.cost(paid, launchable.site, rate=rate, start_s=start, ruling=ruling)
            for paid in (shape.price, price)
        )
        return LaunchTerms(launchable.group, index, part, price, alone, joined)


def lens_key(demand: Demand, reads: Sequence[str]) -> LensKey:
    """Return what a demand's lens is kept under: everything that decides which offers it may take, and their cost."""
    matters = demand.max_total is not None or bool(demand.data)
    request, gpu = demand.request, demand.request.gpu
    return (
        (request.cpu, request.memory, request.disk),
        (gpu.milli, gpu.models, gpu.memory, gpu.memory_max, gpu.driver),
        demand.sites,
        demand.groups,
        demand.labels,
        demand.max_price,
        demand.spot,
        demand.on_demand,
        demand.expected_s,
        demand.checkpoint,
        (demand.max_total, demand.near, demand.data, demand.nodes) if matters else None,
        tuple([getattr(demand, name) for name in reads]) if reads else None,
    )


def is_choosy(demand: Demand) -> bool:
    """Say whether a demand may be able to use only some GPU models."""
    gpu = demand.request.gpu
    return gpu.milli > 0 and bool(gpu.models or gpu.memory or gpu.memory_max or gpu.driver or demand.labels)


@lru_cache(maxsize=4096)
def _run_only(total: int) -> Cost:
    return Cost(total)


def _waste(taken: Slots, capacity: Slots) -> int:
    if not taken.gpu:
        return capacity.gpu_milli
    return taken.gpu[0].memory
