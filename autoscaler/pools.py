"""Pools: keep a group at its least size, and its hot pool ready."""

from collections.abc import Iterable

from atoll.group import Group, GroupKind
from atoll.offer import Demand
from atoll.slots import Request, Slots
from atoll.states import AgentState, Reason
from autoscaler.demand import by_kind
from autoscaler.fleet import Fleet, Machine, Standing
from autoscaler.packing import pack
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
    _grow_hot(fleet, view.group)


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
        if missing > 0 and not machine.wanted and fleet.may_start(machine):
            _want(fleet, machine, Reason.MIN_SIZE)
            missing -= 1
    while missing > 0:
        able = [offering for offering in fleet.open_offerings() if offering.group is group]
        if not able:
            break
        best = min(able, key=lambda o: (o.shape.price or 0, o.shape.start_s, o.shape.key))
        fleet.launch(group, best.shape, Reason.MIN_SIZE)
        missing -= 1


def _grow_hot(fleet: Fleet, group: Group) -> None:
    pools = group.pools
    if not pools.hot_count:
        return
    fits = hot_fits(pools.hot, pools.hot_count, (machine.free for machine in staying(fleet, group.name)))
    for machine in fleet.standing(Standing.DRAINING, Standing.COLD, group=group.name):
        here = hot_fits(pools.hot, pools.hot_count - fits, [machine.free])
        if here and not machine.wanted and fleet.may_start(machine):
            _want(fleet, machine, Reason.HOT_POOL)
            fits += here
    wanted = [
        Demand(session=f"hot-{n}", request=pools.hot, expected_s=fleet.expected_s)
        for n in range(pools.hot_count - fits)
    ]
    able = [offering for offering in fleet.open_offerings() if offering.group is group]
    for purchase in pack(by_kind(wanted), able, fleet.room, fleet.limits):
        fleet.add(group, purchase.offering.shape, Reason.HOT_POOL)


def _want(fleet: Fleet, machine: Machine, reason: Reason) -> None:
    if machine.standing is Standing.COLD:
        fleet.room[machine.group.name] -= 1
    machine.wanted = True
    machine.reason = reason
