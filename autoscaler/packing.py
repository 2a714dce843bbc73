"""Packing: the cheapest machines for waiting sessions, many sessions a machine.

Greedy by pattern: for each shape the best filling is kept; the one with the most value for its cost is
bought, as often as demand lasts, until nothing is left. A filling only gets worse as demand goes down,
so a stale one is recomputed only when it comes out on top (lazy greedy). Fillings are tried in two orders,
between "the dearest first" and "the most value for its share first": either of these alone costs 2 to 8 % more on
the shapes of the openb trace.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import WAIT_VALUE, Demand, expected_cost
from atoll.slots import Slots
from autoscaler.demand import Kind
from autoscaler.limits import Limits

Pattern = list[tuple[Kind, int]]

_LEANINGS = (0.5, 0.8)
"""Exponents of a kind's share of the machine: 0 would fill by value alone, 1 by value for the share."""


@dataclass(frozen=True, slots=True, eq=False)
class Offering:
    """A shape that a group may launch now; `cost` is a machine's own for the expected run time, in micro-units."""

    group: Group
    shape: Shape
    cost: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """One machine to launch and the sessions it is for."""

    offering: Offering
    sessions: tuple[Demand, ...]


def offerings(group: Group, shapes: Sequence[Shape], blocked: Sequence[str], expected_s: float) -> list[Offering]:
    """Return what a group may launch: priced, not blocked, allowed by the group, and not worse than another shape."""
    able = [
        shape
        for shape in shapes
        if shape.price
        and shape.key not in blocked
        and (not group.shapes or shape.name in group.shapes)
        and (group.spot is None or group.spot == shape.spot)
    ]
    kept: list[Shape] = []
    for shape in sorted(able, key=lambda s: (s.price or 0, s.start_s, -s.slots.cpu, -s.slots.memory, s.key)):
        if not any(_dominates(other, shape) for other in kept):
            kept.append(shape)
    return [Offering(group, shape, machine_cost(shape, expected_s)) for shape in kept]


def machine_cost(shape: Shape, expected_s: float) -> int:
    """Return what a machine costs while it starts and runs, the worth of the start delay left out."""
    return max(1, expected_cost(shape.price or 0, expected_s + shape.start_s))


def set_values(kinds: Sequence[Kind], able: Sequence[Offering]) -> list[Kind]:
    """Give each kind its value; return those that some offering could hold, dearest first."""
    servable: list[Kind] = []
    for kind in kinds:
        costs = [_share(kind, o.shape.slots) * o.cost for o in able if kind.may_use(o.group, o.shape)]
        if costs:
            kind.value = max(1e-6, min(costs))
            servable.append(kind)
    return sorted(servable, key=lambda kind: -kind.value)


def fill(free: Slots, group: Group, shape: Shape, kinds: Sequence[Kind], at_most: int = 1 << 30) -> Pattern:
    """Return how many of each kind, dearest first, fit into `free` of a machine of this shape."""
    if len(free.gpu) > 1:
        return _fill_mixed(free, group, shape, kinds, at_most)
    cpu, memory, disk, gpu = free.cpu, free.memory, free.disk, free.gpu_milli
    pattern: Pattern = []
    for kind in kinds:
        c, m, d, g = kind.need
        if c > cpu or m > memory or g > gpu or d > disk or kind.next >= len(kind.waiting):
            continue
        if not kind.may_use(group, shape):
            continue
        count = min(kind.left, at_most)
        for have, need in ((cpu, c), (memory, m), (disk, d), (gpu, g)):
            if need:
                count = min(count, have // need)
        pattern.append((kind, count))
        cpu, memory, disk, gpu = cpu - count * c, memory - count * m, disk - count * d, gpu - count * g
        at_most -= count
        if not at_most:
            break
    return pattern


def pack(kinds: Sequence[Kind], able: Sequence[Offering], room: dict[str, int], limits: Limits) -> list[Purchase]:
    """Buy machines for all that is left of `kinds`; `room` (what a group may get) and `limits` go down by them."""
    servable = set_values(kinds, able)
    soonest = min((o.shape.start_s for o in able), default=0.0)
    fillings = [_Filling(offering, servable, soonest) for offering in able]
    able_now = [number for number, filling in enumerate(fillings) if filling.renew()]
    heap = [(-fillings[number].worth, number) for number in able_now]
    heapq.heapify(heap)
    bought: list[Purchase] = []
    while heap:
        _, number = heapq.heappop(heap)
        filling = fillings[number]
        offering, pattern = filling.offering, filling.pattern
        name, provider = offering.group.name, offering.group.provider
        most = min(room[name], limits.count(provider, offering.shape))
        if most <= 0:
            continue
        for _ in range(min(most, *(kind.left // count for kind, count in pattern))):
            sessions = [demand for kind, count in pattern for demand in kind.serve(count)]
            bought.append(Purchase(offering, tuple(sessions)))
            room[name] -= 1
            limits.take(provider, offering.shape)
        if filling.renew():
            heapq.heappush(heap, (-filling.worth, number))
    return bought


class _Filling:
    """The best known filling of one offering, and how much value it gives for the money (`worth`)."""

    def __init__(self, offering: Offering, kinds: Sequence[Kind], soonest: float) -> None:
        self.offering = offering
        self.pattern: Pattern = []
        self.worth = 0.0
        shape = offering.shape
        self._late = (shape.start_s - soonest) * WAIT_VALUE
        able = [(kind, _share(kind, shape.slots)) for kind in kinds if kind.may_use(offering.group, shape)]
        self._orders = [
            [kind for kind, _ in sorted(able, key=lambda pair: -pair[0].value / max(pair[1], 1e-9) ** leaning)]
            for leaning in _LEANINGS
        ]

    def renew(self) -> bool:
        """Find the best filling from what is left; False when nothing fits."""
        self.worth = 0.0
        offering = self.offering
        for at, order in enumerate(self._orders):
            self._orders[at] = order = [kind for kind in order if kind.left]
            pattern = fill(offering.shape.slots, offering.group, offering.shape, order)
            members = sum(count for _, count in pattern)
            value = sum(kind.value * count for kind, count in pattern)
            worth = value / (offering.cost + members * self._late)
            if worth > self.worth:
                self.worth, self.pattern = worth, pattern
        return self.worth > 0


def _fill_mixed(free: Slots, group: Group, shape: Shape, kinds: Sequence[Kind], at_most: int) -> Pattern:
    pattern: Pattern = []
    for kind in kinds:
        count = 0
        while count < min(kind.left, at_most) and kind.may_use(group, shape):
            taken = free.take(kind.example.request)
            if taken is None:
                break
            free = free - taken
            count += 1
        if count:
            pattern.append((kind, count))
            at_most -= count
    return pattern


def _share(kind: Kind, whole: Slots) -> float:
    cpu, memory, disk, gpu = kind.need
    pairs = ((cpu, whole.cpu), (memory, whole.memory), (disk, whole.disk), (gpu, whole.gpu_milli))
    return max((part / total for part, total in pairs if part and total), default=0.0)


def _dominates(other: Shape, shape: Shape) -> bool:
    """Say whether `other`, which costs no more, has all that `shape` has and is ready as soon."""
    big, small = other.slots, shape.slots
    return (
        big.cpu >= small.cpu
        and big.memory >= small.memory
        and big.disk >= small.disk
        and other.start_s <= shape.start_s
        and (not other.spot or shape.spot)
        and (not small.gpu or big.covers(small))
        and len(big.gpu) <= max(1, len(small.gpu))
    )
