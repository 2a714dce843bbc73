"""Demand by kind: waiting sessions with one request and the same limits, planned together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.slots import Request, Slots

KindKey = tuple[Request, tuple[str, ...], tuple[str, ...], int | None, bool]


@dataclass(slots=True, eq=False)
class Kind:
    """Sessions that are alike to the planner, first come first; `next` is the first not yet served.

    `value` (micro-units) is what a member costs at its cheapest: its share of the best shape.
    """

    example: Demand
    waiting: list[Demand] = field(default_factory=list)
    next: int = 0
    value: float = 0.0
    need: tuple[int, int, int, int] = (0, 0, 0, 0)
    parts: dict[tuple[str, str, Slots, int, bool], bool] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """How many are not served yet."""
        return len(self.waiting) - self.next

    def serve(self, count: int) -> list[Demand]:
        """Take the next `count` from those left."""
        served = self.waiting[self.next : self.next + count]
        self.next += len(served)
        return served

    def may_use(self, group: Group, shape: Shape) -> bool:
        """Say whether a member may run on a whole machine of this shape in this group: place, size and cost limits."""
        key = (group.name, group.site, shape.slots, shape.price or 0, shape.spot)
        known = self.parts.get(key)
        if known is None:
            known = self.parts[key] = may_use(self.example, group, shape)
        return known


def may_use(demand: Demand, group: Group, shape: Shape) -> bool:
    """Say whether a demand's limits and size allow a member on this shape in this group."""
    if (demand.sites and group.site not in demand.sites) or (demand.groups and group.name not in demand.groups):
        return False
    if shape.spot and not demand.spot:
        return False
    taken = shape.slots.take(demand.request)
    if taken is None:
        return False
    return demand.max_price is None or share_price(taken, shape) <= demand.max_price


def share_price(taken: Slots, shape: Shape) -> int:
    """Return a member's part of a machine's price, in micro-units an hour."""
    return round(taken.share_of(shape.slots) * (shape.price or 0))


def by_kind(demands: Iterable[Demand]) -> list[Kind]:
    """Group demands by kind, in the order of each kind's first."""
    kinds: dict[KindKey, Kind] = {}
    for demand in demands:
        key = (demand.request, demand.sites, demand.groups, demand.max_price, demand.spot)
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = Kind(demand, need=need_of(demand.request))
        kind.waiting.append(demand)
    return list(kinds.values())


def need_of(request: Request) -> tuple[int, int, int, int]:
    """Return a request as numbers: cpu, memory, disk, gpu."""
    return (request.cpu, request.memory, request.disk, request.gpu.milli)


def mean_expected_s(demands: Sequence[Demand]) -> float:
    """Return the mean expected run time, 600 s for no demand."""
    return sum(demand.expected_s for demand in demands) / len(demands) if demands else 600.0
