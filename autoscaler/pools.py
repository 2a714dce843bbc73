"""Pools: keep a group at its least size, and its hot pool ready."""

from collections.abc import Iterable

from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.offer import WAIT_VALUE, Demand, expected_cost
from atoll.slots import Request, Slots
from atoll.states import AgentState, Reason
from autoscaler.demand import by_kind, share_price
from autoscaler.fleet import Fleet, Machine, Standing
from autoscaler.packing import pack
from autoscaler.predict import Arrivals, Ready, ready_slots
from autoscaler.view import GroupView

_STAYING = (Standing.READY, Standing.PENDING, Standing.NEW)


def staying(fleet: Fleet, group: str) -> list[Machine]:
    """Return the machines of a group that are there or coming and not on their way out, once this plan is done."""
    return [
        machine for machine in fleet.standing(*Standing, group=group) if machine.standing in _STAYING or machine.wanted
    ]


def grow_pools(fleet: Fleet, view: GroupView) -> None:
    """Add what a group lacks of `size.min` and of its hot pool, draining agents first, within its room."""
    if view.group.kind is not GroupKind.ELASTIC:
        return
    _grow_to_min(fleet, view)
    for count, reason in hot_sizes(view, view.predicted.ahead):
        _grow_hot(fleet, view.group, count, reason)


def hot_sizes(view: GroupView, predicted: int) -> list[tuple[int, Reason]]:
    """Return how large the hot pool is to be, and why: by the group's own word, and with what is `predicted`."""
    said = view.hot_count
    sizes = [(said, said, Reason.HOT_POOL), (predicted, said + predicted, Reason.PREDICTED)]
    return [(count, reason) for part, count, reason in sizes if part > 0]


def predict(view: GroupView, arrivals: Arrivals, now: float, wait_value: int = WAIT_VALUE) -> Ready:
    """Return what a group's own history adds to its hot pool now: nothing where it did not ask for that.

    A slot costs its share of the shape that holds it at the least price; the time looked ahead is that one's start.
    """
    hot = view.group.pools.hot
    able = [(shape, shape.slots.take(hot)) for shape in view.shapes if shape.price and shape.key not in view.blocked]
    priced = [(share_price(taken, shape), shape.start_s, shape.key) for shape, taken in able if taken]
    if not view.group.pools.predict or not priced:
        return Ready()
    price, start_s, _ = min(priced)
    return ready_slots(arrivals.samples(now, start_s), price, wait_value=wait_value)


def hot_fits(pools_request: Request, count: int, free: Iterable[Slots]) -> int:
    """Return how many of `count` hot requests fit into these free amounts."""
    fits = 0
    for have in free:
        left = have
        while fits < count and (taken := left.take(pools_request)) is not None:
            left = left - taken
            fits += 1
    return fits


def _grow_to_min(fleet: Fleet, view: GroupView) -> None:
    group = view.group
    lost = sum(not (a.connected or a.notice) for a in view.agents if a.state is AgentState.READY)
    missing = group.size.min - len(staying(fleet, group.name)) - lost
    for machine in fleet.standing(Standing.DRAINING, Standing.COLD, group=group.name):
        if missing > 0 and not machine.wanted and not _dear(fleet, machine) and fleet.may_start(machine):
            _want(fleet, machine, Reason.MIN_SIZE)
            missing -= 1
    while missing > 0:
        able = [offering for offering in fleet.open_offerings() if offering.group is group]
        if not able:
            break
        best = min(able, key=lambda o: (o.shape.price or 0, o.shape.start_s, o.shape.key))
        fleet.launch(group, best.shape, Reason.MIN_SIZE)
        missing -= 1


def _grow_hot(fleet: Fleet, group: Group, count: int, reason: Reason) -> None:
    hot = group.pools.hot
    missing = count - hot_fits(hot, count, (machine.free for machine in staying(fleet, group.name)))
    for machine in fleet.standing(Standing.DRAINING, Standing.COLD, group=group.name):
        here = 0 if machine.wanted or _dear(fleet, machine) else hot_fits(hot, missing, [machine.free])
        if here and fleet.may_start(machine):
            _want(fleet, machine, reason)
            missing -= here
    wanted = [Demand(session=f"hot-{n}", request=hot, expected_s=fleet.expected_s) for n in range(missing)]
    able = [offering for offering in fleet.open_offerings() if offering.group is group]
    for purchase in pack(by_kind(wanted), able, fleet.room, fleet.limits):
        fleet.add(group, purchase.offering.shape, reason)


def _dear(fleet: Fleet, machine: Machine) -> bool:
    """Say whether to start this stopped machine costs more than to launch one that has all of its slots."""
    if machine.standing is not Standing.COLD:
        return False
    shape, here = machine.shape, _cost(fleet, machine.shape)
    return any(
        offering.group is machine.group
        and offering.shape.slots.covers(shape.slots)
        and _cost(fleet, offering.shape) < here
        for offering in fleet.open_offerings()
    )


def _cost(fleet: Fleet, shape: Shape) -> int:
    return expected_cost(shape.price or 0, fleet.expected_s, shape.start_s, fleet.terms.wait_value)


def _want(fleet: Fleet, machine: Machine, reason: Reason) -> None:
    if machine.standing is Standing.COLD:
        fleet.room[machine.group.name] -= 1
    machine.wanted = True
    machine.reason = reason
