"""A lens: the index as sessions with one request and the same limits see it, cheapest first, kept between calls."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atoll import slots
from atoll.offer import Demand, expected_cost
from atoll.slots import Request, Slots
from federation.routing.bins import Bin, Launchable

LensKey = tuple[Request, tuple[str, ...], tuple[str, ...], int | None, bool]


@dataclass(frozen=True, slots=True)
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
    """A capable, allowed, priced shape: where to find it, what a member takes of it, and its prices an hour."""

    group: str
    index: int
    part: Part
    price: int
    whole: int
    start_s: float


class Lens:
    """Bins and shapes that could ever serve one kind of demand, in order of price.

    `open` has a bit for each rank whose bin may have room: a bin that had none is not searched again
    until one of its agents has more free than before.
    """

    def __init__(self, key: LensKey) -> None:
        self.request, self.sites, self.groups, self.max_price, self.spot = key
        self.order = array("I")
        self.rank = array("i")
        self.open = 0
        self.structure = -1
        self.epoch = -1
        self.seen = 0
        self.shapes = -1
        self.terms: list[LaunchTerms] = []
        self.cheapest_launch: int | None = None
        self.on_demand: int | None = None
        self._parts: dict[Slots, Part | None] = {}
        self._by_size: dict[int, Part | None] = {}
        self._by_cost: dict[float, list[LaunchTerms]] = {}
        self.asks = ask_text(self.request)

    def part(self, capacity: Slots) -> Part | None:
        """Return what a member takes of a machine with this capacity, or None when it could never run there."""
        try:
            return self._parts[capacity]
        except KeyError:
            taken = capacity.take(self.request)
            part = None if taken is None else Part(taken, taken.share_of(capacity), _waste(taken, capacity))
            if len(self._parts) > 4096:
                self._parts.clear()
            self._parts[capacity] = part
            return part

    def part_of(self, home: Bin) -> Part | None:
        """Return what a member takes of a bin's agents: as `part`, without hashing the capacity."""
        try:
            return self._by_size[home.size]
        except KeyError:
            part = self._by_size[home.size] = self.part(home.capacity)
            return part

    def at(self, site: str, group: str) -> bool:
        """Say whether placement limits allow this site and group."""
        return (not self.sites or site in self.sites) and (not self.groups or group in self.groups)

    def within(self, price: int, spot: bool) -> bool:
        """Say whether cost limits allow a member's price, on a spot machine or not."""
        return (self.spot or not spot) and (self.max_price is None or price <= self.max_price)

    def see_bins(self, bins: Sequence[Bin | None], structure: int) -> None:
        """Rank all bins anew: by the member's price, then by how much scarcer hardware it would sit on."""
        ranked: list[tuple[int, int, int]] = []
        anywhere = not self.sites and not self.groups
        most, spot = self.max_price, self.spot
        by_size = self._by_size
        for home in bins:
            if home is None or not (anywhere or self.at(home.site, home.group)):
                continue
            part = by_size[home.size] if home.size in by_size else self.part_of(home)
            if part is None or (home.spot and not spot):
                continue
            price = round(part.share * home.price)
            if most is None or price <= most:
                ranked.append((price, part.waste, home.number))
        ranked.sort()
        self.order = array("I", [number for _, _, number in ranked])
        self.rank = array("i", [-1]) * len(bins)
        for rank, (_, _, number) in enumerate(ranked):
            self.rank[number] = rank
        self.open = (1 << len(ranked)) - 1
        self.structure = structure

    def see_growth(self, numbers: Iterable[int]) -> None:
        """Search these bins again: something there has more free."""
        rank = self.rank
        for number in numbers:
            if rank[number] >= 0:
                self.open |= 1 << rank[number]

    def see_launchables(self, launchables: Iterable[tuple[str, Sequence[Launchable]]], version: int) -> None:
        """Take in all groups' shapes: those that are capable, allowed and have a price above 0."""
        self.terms = []
        self._by_cost.clear()
        self.on_demand = None
        for group, offered in launchables:
            for index, launchable in enumerate(offered):
                shape = launchable.shape
                if not shape.price or not self.at(launchable.site, group):
                    continue
                part = self.part(shape.slots)
                if part is None:
                    continue
                price = part.price(shape.price)
                if not shape.spot:
                    self.on_demand = price if self.on_demand is None else min(price, self.on_demand)
                if self.within(price, shape.spot):
                    self.terms.append(LaunchTerms(group, index, part, price, shape.price, shape.start_s))
        self.cheapest_launch = min((terms.whole for terms in self.terms), default=None)
        self.shapes = version

    def by_cost(self, expected_s: float) -> list[LaunchTerms]:
        """Return the shapes by the expected total cost of a machine of one's own, cheapest first."""
        found = self._by_cost.get(expected_s)
        if found is None:
            found = sorted(self.terms, key=lambda t: (expected_cost(t.whole, expected_s, t.start_s), t.group, t.index))
            if len(self._by_cost) >= 8:
                self._by_cost.clear()
            self._by_cost[expected_s] = found
        return found


def lens_key(demand: Demand) -> LensKey:
    """Return what a demand's lens is kept under: everything that decides which offers it may take, and their price."""
    return (demand.request, demand.sites, demand.groups, demand.max_price, demand.spot)


def ask_text(request: Request) -> str:
    """Return a request for people: `2 cpu, 4.0 GiB, 1 x T4|L4`."""
    text = slots.text(Slots(request.cpu, request.memory))
    if request.disk:
        text += f", {request.disk / slots.GIB:.1f} GiB disk"
    if request.gpu.milli:
        text += f", {request.gpu.milli / 1000:g} x {'|'.join(request.gpu.models) or 'GPU'}"
        if request.gpu.memory:
            text += f" of {request.gpu.memory / slots.GIB:.0f} GiB"
    return text


def _waste(taken: Slots, capacity: Slots) -> int:
    if not taken.gpu:
        return capacity.gpu_milli
    return taken.gpu[0].memory
