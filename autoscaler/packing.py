"""Packing: the cheapest machines for waiting sessions, many sessions a machine.

Greedy by content: for each offering the best content of one machine is kept; the one with the most worth for its cost
is bought, as often as demand lasts, until nothing is left. A content only gets worse as demand goes down, so a stale
one is made anew only when it comes out on top (lazy greedy). What a session is worth comes from the lower bound
(`autoscaler.bound`). Packed once, sessions that were left to badly filled machines turn out dearer than that: their
worth goes up, that of others down, and all is packed again; the cheapest result counts.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import Demand, expected_cost
from atoll.slots import Slots
from autoscaler.bound import Worth, worth
from autoscaler.cover import Content, Cover, Need, Offering
from autoscaler.demand import PLAIN, Kind, Terms, coarser
from autoscaler.limits import Limits

Wanted = tuple[int, int, int, int, int, int]
"""A kind, how many of it are left, and what each needs."""
MOST_KINDS = 400
"""Kinds to pack: of more, those of like size are packed as one, each as if it were the largest of them."""
PASSES = 3
"""How often all is packed, with worths learned from the time before."""
_LEARN, _CALM = 0.15, 0.85
"""How far worths go towards what was paid, as an exponent, and what that is multiplied by with each pass."""
TRIES, THOROUGH = 2000, 5000
"""Most steps to take for one machine's content: each kind is tried first in turn as far as this allows."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """One machine to launch, the sessions it is for, and what they leave `free` of it."""

    offering: Offering
    sessions: tuple[Demand, ...]
    free: Slots


@dataclass(frozen=True, slots=True)
class Batch:
    """`times` machines of one offering (by number) with the same content, at `cost` each."""

    offering: int
    content: Content
    times: int
    cost: float


class Room:
    """What may still be launched: each group's room and the accounts' limits, to try something on."""

    def __init__(self, room: dict[str, int], limits: Limits) -> None:
        self.room = dict(room)
        self.limits = limits.copy()

    def take(self, offering: Offering, times: int) -> int:
        """Count up to `times` launches; return how many there is room for."""
        name, provider = offering.group.name, offering.group.provider
        times = max(0, min(times, self.room[name], self.limits.count(provider, offering.shape)))
        if times:
            self.room[name] -= times
            self.limits.take(provider, offering.shape, times)
        return times


def offerings(
    group: Group, shapes: Sequence[Shape], blocked: Sequence[str], expected_s: float, terms: Terms = PLAIN
) -> list[Offering]:
    """Return what a group may launch: priced, not blocked, allowed by the group, and not worse than another shape.

    Where a policy may deny shapes one by one, none stands for another.
    """
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
        if terms.denied or not any(_dominates(other, shape) for other in kept):
            kept.append(shape)
    return [Offering(group, shape, machine_cost(shape, expected_s)) for shape in kept]


def machine_cost(shape: Shape, expected_s: float) -> int:
    """Return what a machine costs while it starts and runs, the worth of the start delay left out."""
    return max(1, expected_cost(shape.price or 0, expected_s + shape.start_s))


def dearest_first(kinds: Sequence[Kind], able: Sequence[Offering]) -> list[Kind]:
    """Return kinds in the order in which to fill machines that are there: by the share of the best shape they need."""
    value: dict[Kind, float] = {}
    for kind in kinds:
        costs = [_share(kind, o.shape.slots) * o.cost for o in able if kind.may_use(o.group, o.shape)]
        value[kind] = min(costs, default=0.0)
    return sorted(kinds, key=lambda kind: -value[kind])


def fill(free: Slots, group: Group, shape: Shape, kinds: Sequence[Kind]) -> list[tuple[Kind, int]]:
    """Return how many of each kind, in this order, fit into `free` of a machine of this shape."""
    content: list[tuple[Kind, int]] = []
    for kind in kinds:
        if not kind.left or not kind.may_use(group, shape):
            continue
        count = 0
        while count < kind.left and (taken := free.take(kind.example.request)) is not None:
            free = free - taken
            count += 1
        if count:
            content.append((kind, count))
    return content


def pack(
    kinds: Sequence[Kind],
    able: Sequence[Offering],
    room: dict[str, int],
    limits: Limits,
    terms: Terms = PLAIN,
    improve: Callable[[Cover, Worth, Sequence[Batch], Room], Sequence[Batch]] | None = None,
) -> list[Purchase]:
    """Buy machines for all that is left of `kinds`; `room` (what a group may get) and `limits` go down by them.

    `improve` gets the best found and returns something at least as good that also keeps within the room.
    """
    servable = [kind for kind in kinds if kind.left and any(kind.may_use(o.group, o.shape) for o in able)]
    bought = _pack(coarser(servable, MOST_KINDS, up=True), able, room, limits, terms, improve)
    if len(servable) > MOST_KINDS:
        served = {demand.session for purchase in bought for demand in purchase.sessions}
        for kind in servable:
            kind.waiting[kind.next :] = [demand for demand in kind.waiting[kind.next :] if demand.session not in served]
        rest = [kind for kind in servable if kind.left]  # no machine holds the largest of their sort
        bought += pack(rest, able, room, limits, terms) if served else []
    return bought


def _pack(
    kinds: Sequence[Kind],
    able: Sequence[Offering],
    room: dict[str, int],
    limits: Limits,
    terms: Terms,
    improve: Callable[[Cover, Worth, Sequence[Batch], Room], Sequence[Batch]] | None,
) -> list[Purchase]:
    servable = [kind for kind in kinds if any(kind.may_use(o.group, o.shape) for o in able)]
    if not servable:
        return []
    cover = Cover(servable, able, terms)
    found = worth(cover)
    whole = Room(room, limits)
    best = min(_attempts(cover, found, whole), key=lambda batches: judge(cover, batches))
    if improve is not None:
        best = list(improve(cover, found, best, whole))
    bought: list[Purchase] = []
    for batch in best:
        offering = able[batch.offering]
        room[offering.group.name] -= batch.times
        limits.take(offering.group.provider, offering.shape, batch.times)
        free = _after(offering.shape.slots, [(servable[k], count) for k, count in batch.content])
        for _ in range(batch.times):
            sessions = [demand for k, count in batch.content for demand in servable[k].serve(count)]
            bought.append(Purchase(offering, tuple(sessions), free))
    return bought


def _after(free: Slots, content: Sequence[tuple[Kind, int]]) -> Slots:
    """Return what is left of `free` under this content, taken in its order."""
    for kind, count in content:
        for _ in range(count):
            taken = free.take(kind.example.request)
            if taken is None:
                raise ValueError(f"{kind.example.request} does not fit into {free}")
            free = free - taken
    return free


def judge(cover: Cover, batches: Sequence[Batch]) -> tuple[int, float]:
    """Return how many sessions are left out and what is spent: the less, the better."""
    held = sum(batch.times * sum([count for _, count in batch.content]) for batch in batches)
    return sum(cover.counts) - held, sum([batch.times * batch.cost for batch in batches])


def _attempts(cover: Cover, found: Worth, whole: Room) -> Iterator[list[Batch]]:
    """Yield ways to buy: one machine each, then packed by worths that are learned from pass to pass."""
    yield one_each(cover, whole)
    kinds, learn = list(found.kinds), _LEARN
    for _ in range(PASSES):
        batches = buy(cover, found, kinds, cover.counts, whole)
        yield batches
        kinds = learned(kinds, batches, learn)
        learn *= _CALM


def one_each(cover: Cover, whole: Room) -> list[Batch]:
    """Return the cheapest machine of its own for each session, as far as there is room."""
    room = Room(whole.room, whole.limits)
    batches: list[Batch] = []
    for k, count in enumerate(cover.counts):
        alone = ((k, 1),)
        able = [(cover.able[o].cost + extra[k], o) for o, extra in enumerate(cover.extra) if k in extra]
        for cost, o in sorted(able):
            times = room.take(cover.able[o], count) if count else 0
            if times:
                batches.append(Batch(o, alone, times, cost))
                count -= times
    return batches


def learned(kinds: Sequence[float], batches: Sequence[Batch], learn: float) -> list[float]:
    """Return worths drawn towards what was paid: a machine's cost falls to its sessions by their worths."""
    paid, held = [0.0] * len(kinds), [0] * len(kinds)
    for batch in batches:
        rate = batch.cost / max(1e-9, sum([kinds[k] * count for k, count in batch.content]))
        for k, count in batch.content:
            paid[k] += batch.times * count * rate
            held[k] += batch.times * count
    return [max(1e-9, value) * (paid[k] / held[k]) ** learn if held[k] else value for k, value in enumerate(kinds)]


def buy(
    cover: Cover, found: Worth, kinds: Sequence[float], counts: Sequence[int], whole: Room, tries: int = TRIES
) -> list[Batch]:
    """Buy greedily for `counts` sessions of each kind at the worths `kinds`, within the room there is."""
    room, left = Room(whole.room, whole.limits), list(counts)
    tried: dict[int, _Contents] = {}
    heap = []
    for o, (fits, dues) in enumerate(zip(cover.fits, found.dues, strict=True)):
        ratios = [kinds[k] / due for k, due in zip(fits, dues, strict=True) if left[k] and due > 0]
        if ratios:  # no content is worth more for its cost than the best of its kinds
            heap.append((-max(ratios), o))
    heapq.heapify(heap)
    batches: list[Batch] = []
    while heap:
        _, o = heapq.heappop(heap)
        here = tried.get(o)
        if here is None:
            here = tried[o] = _Contents(cover, o, kinds, found.dues[o])
        elif here.best and all(left[k] >= count for k, count in here.best):
            times = room.take(cover.able[o], min([left[k] // count for k, count in here.best]))
            if not times:
                continue
            for k, count in here.best:
                left[k] -= times * count
            batches.append(Batch(o, here.best, times, cover.cost(o, here.best)))
        value = here.renew(left, tries)
        if value > 0:
            heapq.heappush(heap, (-value, o))
    return batches


class _Contents:
    """The best known content of one offering's machine (`best`)."""

    def __init__(self, cover: Cover, offering: int, kinds: Sequence[float], dues: Sequence[float]) -> None:
        self.best: Content = ()
        self._cover, self._offering, self._kinds = cover, offering, kinds
        pairs = zip(cover.fits[offering], dues, strict=True)
        gains = [(kinds[k] / max(1e-9, due), kinds[k], k) for k, due in pairs]
        gain_first = sorted(gains, key=lambda each: (-each[0], -each[1], each[2]))
        large_first = sorted(gains, key=lambda each: (-each[1] * each[0] ** 8, each[2]))
        self._orders = [[k for *_, k in order] for order in (gain_first, large_first)]

    def renew(self, left: Sequence[int], tries: int) -> float:
        """Find the best content from what is left; return its worth for its cost, 0 when nothing fits."""
        kinds, cost = self._kinds, self._cover.cost
        best = 0.0
        content: Content = ()
        self._orders = [[k for k in order if left[k]] for order in self._orders]
        for tried in contents(self._cover, self._offering, self._orders, left, tries):
            value = sum([kinds[k] * count for k, count in tried])
            if value > best * self._cover.able[self._offering].cost:
                ratio = value / cost(self._offering, tried)
                if ratio > best:
                    best, content = ratio, tried
        self.best = content
        return best


def contents(
    cover: Cover, offering: int, orders: Sequence[Sequence[int]], left: Sequence[int], tries: int = 0
) -> Iterator[Content]:
    """Yield contents of one machine: filled in each order, with kinds of which there are any in turn before others."""
    shape = cover.able[offering].shape
    if len(shape.slots.gpu) > 1:
        for order in orders:
            yield _fill_mixed(cover, shape.slots, order, left)
        return
    size, needs = cover.sizes[offering], cover.needs
    for order in orders:
        wanted = [(k, left[k], *needs[k]) for k in order]
        least = min([need[2] for need in wanted], default=0)
        yield tuple(_fill(size, wanted, least))
        for first in wanted[: tries // (len(wanted) + 1)]:
            content = _fill(_less(size, needs[first[0]]), wanted, least, first[0])
            yield tuple(content)


def _less(size: Need, need: Need) -> Need:
    return (size[0] - need[0], size[1] - need[1], size[2] - need[2], size[3] - need[3])


def _fill(size: Need, wanted: Sequence[Wanted], least: int, first: int = -1) -> list[tuple[int, int]]:
    """Fill a machine in this order; `least` is the least cpu that any needs.

    Where one of kind `first` is there already, `size` is what that leaves.
    """
    cpu, memory, disk, gpu = size
    content = []
    for k, count, c, m, d, g in wanted:
        if k == first:
            count -= 1
        elif c > cpu or m > memory or g > gpu or d > disk:
            continue
        if c and cpu // c < count:
            count = cpu // c
        if m and memory // m < count:
            count = memory // m
        if g and gpu // g < count:
            count = gpu // g
        if d and disk // d < count:
            count = disk // d
        if count:
            cpu, memory, disk, gpu = cpu - count * c, memory - count * m, disk - count * d, gpu - count * g
        if k == first:
            content.append((k, count + 1))
            first = -1
        elif count:
            content.append((k, count))
        if cpu < least and first < 0:
            break
    if first >= 0:
        content.append((first, 1))
    return content


def _fill_mixed(cover: Cover, free: Slots, order: Sequence[int], left: Sequence[int]) -> Content:
    """Fill a machine whose devices are of several models: which model a session takes decides what else fits."""
    content = []
    for k in order:
        request, count = cover.kinds[k].example.request, 0
        while count < left[k] and (taken := free.take(request)) is not None:
            free = free - taken
            count += 1
        if count:
            content.append((k, count))
    return tuple(content)


def _share(kind: Kind, whole: Slots) -> float:
    cpu, memory, disk, gpu = kind.need
    pairs = ((cpu, whole.cpu), (memory, whole.memory), (disk, whole.disk), (gpu, whole.gpu_milli))
    return max((part / total for part, total in pairs if part and total), default=0.0)


def _dominates(other: Shape, shape: Shape) -> bool:
    """Say whether `other`, which costs no more, has all that `shape` has, is ready as soon, and stays as long."""
    big, small = other.slots, shape.slots
    return (
        big.cpu >= small.cpu
        and big.memory >= small.memory
        and big.disk >= small.disk
        and other.start_s <= shape.start_s
        and other.spot == shape.spot
        and (other.interruptions or 0.0) <= (shape.interruptions or 0.0)
        and (not small.gpu or (big.covers(small) and {g.memory for g in big.gpu} == {g.memory for g in small.gpu}))
        and len(big.gpu) <= max(1, len(small.gpu))
    )
