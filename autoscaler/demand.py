"""Demand by kind: waiting sessions with one request and the same limits, planned together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log

from atoll import money
from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.offer import WAIT_VALUE, Demand, egress_cost, expected_cost, interruption_cost, lost_s
from atoll.slots import Request, Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the installation says of launches beside their price: the router's terms, as far as they concern a plan.

    `labels` are those of sites (a group's own go over them), `egress` is what a GiB costs that leaves one. `rework_s`
    is the running time lost with an interruption by a session that takes no checkpoints, `spot_interruptions` how
    often an hour a spot machine is taken away where its shape does not say. `wait_value` is what a second of waiting
    is worth, in micro-units. `denied` is asked whether a policy is
    against a launch; it may depend only on the demand's fields named in `reads`.
    """

    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    egress: Mapping[str, int] = field(default_factory=dict)
    rework_s: float = 1800.0
    spot_interruptions: float = 0.05
    wait_value: int = WAIT_VALUE
    reads: tuple[str, ...] = ()
    denied: Callable[[Demand, Group, Shape], bool] | None = None

    def leaving(self, demand: Demand, site: str) -> int:
        """Return a member's part of what bringing the data to a site costs, in micro-units."""
        if not demand.data or site == demand.near:
            return 0
        return egress_cost(demand, self.egress.get(demand.near, 0))

    def beside(self, demand: Demand, group: Group, shape: Shape) -> int:
        """Return what a member costs on a machine beside the machine itself: egress and the risk of interruptions."""
        rate = shape.interruptions
        if rate is None:
            rate = self.spot_interruptions if shape.spot else 0.0
        risk = 0
        if rate:
            taken = shape.slots.take(demand.request)
            price = share_price(taken, shape) if taken else shape.price or 0
            lost = lost_s(demand, self.rework_s)
            risk = interruption_cost(price, rate, demand.expected_s, lost, shape.start_s, self.wait_value)
        return self.leaving(demand, group.site) + risk

    def alone(self, demand: Demand, shape: Shape) -> int:
        """Return the expected total of a launch for a member alone, in micro-units: it pays for the whole machine."""
        return expected_cost(shape.price or 0, demand.expected_s, shape.start_s, self.wait_value)


PLAIN = Terms()
"""The terms where nothing is said."""


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
    terms: Terms = PLAIN
    _known: dict[tuple[str, int], bool] = field(default_factory=dict)

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
        """Say whether a member may run on a whole machine of this shape in this group; as `may_use`, and remembered."""
        key = (group.name, id(shape))  # a plan's views keep their shapes while it is made
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = may_use(self.example, group, shape, self.terms)
        return known


def may_use(demand: Demand, group: Group, shape: Shape, terms: Terms = PLAIN) -> bool:
    """Say whether a demand's limits and size allow a member on this shape in this group.

    It must allow what the router allows: place, labels, GPU driver, spot or on demand, `max_price` for the member's
    share and `max_total` for a machine of its own, and the policy.
    """
    asks, limit = demand.request, demand.max_total
    taken = shape.slots.take(asks)
    if taken is None or (shape.spot and not demand.spot):
        return False
    if (demand.sites and group.site not in demand.sites) or (demand.groups and group.name not in demand.groups):
        return False
    elastic = group.kind is GroupKind.ELASTIC
    if elastic and not (shape.spot or demand.on_demand):
        return False
    if demand.labels:
        labels = {**terms.labels.get(group.site, {}), **group.labels}
        if any(labels.get(name) != value for name, value in demand.labels):
            return False
    if elastic and asks.gpu.milli and asks.gpu.driver and group.driver < asks.gpu.driver:
        return False
    if demand.max_price is not None and share_price(taken, shape) > demand.max_price:
        return False
    if limit is not None:
        member = money.cost(shape.price or 0, demand.expected_s + shape.start_s) + terms.leaving(demand, group.site)
        if member * demand.nodes > limit:
            return False
    return not (terms.denied and elastic and terms.denied(demand, group, shape))


def share_price(taken: Slots, shape: Shape) -> int:
    """Return a member's part of a machine's price, in micro-units an hour."""
    return round(taken.share_of(shape.slots) * (shape.price or 0))


def by_kind(demands: Iterable[Demand], terms: Terms = PLAIN) -> list[Kind]:
    """Group demands by kind, in the order of each kind's first."""
    kinds: dict[tuple[object, ...], Kind] = {}
    for demand in demands:
        key = _kind_key(demand, terms)
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = Kind(demand, need=need_of(demand.request), terms=terms)
        kind.waiting.append(demand)
    return list(kinds.values())


def _kind_key(demand: Demand, terms: Terms) -> tuple[object, ...]:
    """Return what makes demands alike to the planner; run times and data matter to those with limits on their cost."""
    asks = demand.request
    key: tuple[object, ...] = (
        asks.cpu, asks.memory, asks.disk, asks.gpu.milli, asks.gpu.models, asks.gpu.memory, asks.gpu.memory_max,
        asks.gpu.driver, demand.sites, demand.groups, demand.max_price, demand.spot, demand.on_demand, demand.labels,
        demand.checkpoint,
    )  # fmt: skip
    if demand.max_total is not None:
        key += (demand.max_total, demand.expected_s, demand.nodes)
    if demand.data:
        key += (demand.near, demand.data)
    if terms.reads:
        key += tuple(getattr(demand, name) for name in terms.reads)
    return key


def coarser(kinds: Sequence[Kind], most: int, *, up: bool) -> list[Kind]:
    """Return (nearly) `most` kinds at most: those of like size become one, which needs as much as the largest of them.

    Or as the smallest, where sizes are not to go `up`. Only kinds that are alike in all but size become one.
    """
    if len(kinds) <= most:
        return list(kinds)
    alike: dict[tuple[object, ...], list[Kind]] = {}
    for kind in kinds:
        alike.setdefault(_kind_key(kind.example, kind.terms)[4:], []).append(kind)
    merged = []
    for same in alike.values():
        cells = sorts([kind.need for kind in same], max(1, most * len(same) // len(kinds)))
        merged += [_merged([same[n] for n in cell], up=up) for cell in cells]
    return merged


def _merged(kinds: Sequence[Kind], *, up: bool) -> Kind:
    first, pick = kinds[0], max if up else min
    cpu, memory, disk, gpu = (pick(kind.need[n] for kind in kinds) for n in range(4))
    asks = first.example.request
    asks = replace(asks, cpu=cpu, memory=memory, disk=disk, gpu=replace(asks.gpu, milli=gpu))
    waiting = [demand for kind in kinds for demand in kind.waiting[kind.next :]]
    return Kind(replace(first.example, request=asks), waiting, need=need_of(asks), terms=first.terms)


def sorts(needs: Sequence[tuple[int, int, int, int]], most: int) -> list[list[int]]:
    """Return the numbers of needs of like size together, in (mostly) no more than `most` sorts, the finest that do."""
    cells: dict[tuple[int, ...], list[int]] = {}
    for grain in (1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 6, 10, 100):
        cells = {}
        for n, need in enumerate(needs):
            size = tuple(int(log(amount, grain)) if amount > 0 else -1 for amount in need)
            cells.setdefault(size, []).append(n)
        if len(cells) <= most:
            break
    return list(cells.values())


def need_of(request: Request) -> tuple[int, int, int, int]:
    """Return a request as numbers: cpu, memory, disk, gpu."""
    return (request.cpu, request.memory, request.disk, request.gpu.milli)


def mean_expected_s(demands: Sequence[Demand]) -> float:
    """Return the mean expected run time, 600 s for no demand."""
    return sum(demand.expected_s for demand in demands) / len(demands) if demands else 600.0
