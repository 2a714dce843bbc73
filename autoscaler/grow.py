"""Growth: serve waiting sessions from pending, draining, cold and new machines, gangs all-or-nothing."""

from collections.abc import Callable, Sequence

from atoll.offer import Demand, expected_cost
from atoll.plan import Quote
from atoll.states import Reason
from autoscaler.bound import Worth, price_bound, worth
from autoscaler.cover import Cover, Offering
from autoscaler.demand import Kind, by_kind, coarser, share_price
from autoscaler.fleet import Fleet, Machine, Standing
from autoscaler.gangs import serve_gang
from autoscaler.improve import search
from autoscaler.packing import MOST_KINDS, Batch, Room, dearest_first, fill, machine_cost, pack


def serve(fleet: Fleet, demands: Sequence[Demand], left: Callable[[], float] | None = None) -> list[Demand]:
    """Put `demands` on the fleet at the least cost; return those left out. Their order decides nothing here.

    `left` says how many seconds there are still to look for cheaper launches.
    """

    def improve(cover: Cover, found: Worth, best: Sequence[Batch], room: Room) -> Sequence[Batch]:
        fleet.method, fleet.rates = "greedy", dict(zip(cover.able, found.rates, strict=True))
        fleet.packed = cover if len(kinds) <= MOST_KINDS else None
        if left is None:
            return best
        better = search(cover, found, best, room, left)
        fleet.method, fleet.bound = better.method, better.bound
        return better.batches

    rest = _keep_awaited(fleet, demands)
    unserved = [demand for demand in rest if demand.nodes > 1 and not serve_gang(fleet, demand)]
    kinds = by_kind((demand for demand in rest if demand.nodes == 1), fleet.terms)
    there = list(fleet.standing(Standing.PENDING, Standing.DRAINING, Standing.COLD, Standing.NEW))
    order = dearest_first(kinds, _yardstick(fleet)) if there else []
    for machine in there:
        _fill_machine(fleet, machine, order)
    for purchase in pack(kinds, fleet.open_offerings(), fleet.room, fleet.limits, fleet.terms, improve):
        machine = fleet.add(purchase.offering.group, purchase.offering.shape, Reason.DEMAND)
        machine.free = purchase.free
        machine.sessions += [demand.session for demand in purchase.sessions]
    return unserved + [demand for kind in kinds for demand in kind.waiting[kind.next :]]


def quote(fleet: Fleet, demands: Sequence[Demand], seconds: float) -> Quote | None:
    """Judge the launches for demand, if any, by a bound on any launches that hold the same members."""
    new = [m for m in fleet.standing(Standing.NEW) if m.reason is Reason.DEMAND]
    if not new:
        return None
    packed, bound = fleet.packed, fleet.bound
    alone = packed is not None and sum(packed.counts) == sum(len(machine.sessions) for machine in new)
    if packed is None or not alone or any(demand.nodes > 1 for demand in demands):
        bound = 0
        asks = {demand.session: demand for demand in demands}
        members = (asks[key] for machine in new for key in machine.sessions)
        kinds = coarser(by_kind(members, fleet.terms), MOST_KINDS, up=False)
        packed = Cover(kinds, fleet.able, fleet.terms)
    known = all(offering in fleet.rates for offering in packed.able)
    rates = [fleet.rates[offering] for offering in packed.able] if known else worth(packed).rates
    price = sum(machine.shape.price or 0 for machine in new)
    return Quote(price=price, bound=max(bound, price_bound(packed, rates)), method=fleet.method, seconds=seconds)


def serve_in_order(fleet: Fleet, demands: Sequence[Demand]) -> list[Demand]:
    """Serve as `serve` does, but strictly in order: used where groups cannot grow enough for all of them."""
    unserved = []
    for demand in _keep_awaited(fleet, demands):
        done = serve_gang(fleet, demand) if demand.nodes > 1 else _serve_one(fleet, demand)
        if not done:
            unserved.append(demand)
    return unserved


def _keep_awaited(fleet: Fleet, demands: Sequence[Demand]) -> list[Demand]:
    """Leave sessions with the pending instances that were launched for them; return the others."""
    by_instance = {machine.instance: machine for machine in fleet.standing(Standing.PENDING)}
    awaited: dict[str, list[Machine]] = {}
    for view in fleet.views:
        for pending in view.pending:
            for session in pending.sessions:
                awaited.setdefault(session, []).append(by_instance[pending.instance])
    rest = []
    for demand in demands:
        machines = [
            machine
            for machine in awaited.get(demand.session, ())
            if fleet.allows(demand, machine.group, machine.shape) and machine.free.take(demand.request) is not None
        ]
        if len(machines) < demand.nodes:
            rest.append(demand)
            continue
        for machine in machines[: demand.nodes]:
            machine.put(demand)
    return rest


def _serve_one(fleet: Fleet, demand: Demand) -> bool:
    for machine in fleet.standing(Standing.PENDING, Standing.DRAINING, Standing.COLD, Standing.NEW):
        able = fleet.allows(demand, machine.group, machine.shape) and _worth(fleet, machine, demand)
        if able and fleet.use(machine, demand):
            return True
    best = _cheapest(fleet, demand)
    return best is not None and fleet.launch(best.group, best.shape, Reason.DEMAND).put(demand)


def _fill_machine(fleet: Fleet, machine: Machine, order: Sequence[Kind]) -> None:
    if not fleet.may_start(machine):
        return
    able = [kind for kind in order if kind.left and _worth(fleet, machine, kind.example)]
    for kind, count in fill(machine.free, machine.group, machine.shape, able):
        for demand in kind.serve(count):
            fleet.use(machine, demand)


def _worth(fleet: Fleet, machine: Machine, demand: Demand) -> bool:
    """Say whether a draining or stopped machine is worth having back: not where a launch would be cheaper."""
    started = machine.standing is Standing.COLD and machine.wanted
    if started or machine.standing not in (Standing.DRAINING, Standing.COLD):
        return True
    best = _cheapest(fleet, demand)
    taken = machine.free.take(demand.request)
    if best is None or taken is None:
        return True
    start_s = machine.shape.start_s if machine.standing is Standing.COLD else 0.0
    here = expected_cost(share_price(taken, machine.shape), demand.expected_s, start_s, fleet.terms.wait_value)
    return here <= fleet.terms.alone(demand, best.shape)


def _cheapest(fleet: Fleet, demand: Demand) -> Offering | None:
    able = [o for o in fleet.open_offerings() if fleet.allows(demand, o.group, o.shape)]
    return min(able, key=lambda o: (fleet.terms.alone(demand, o.shape), o.group.name, o.shape.key), default=None)


def _yardstick(fleet: Fleet) -> list[Offering]:
    """Return shapes to value kinds by: what could be launched, full groups too, else what is there."""
    if fleet.able:
        return fleet.able
    return [Offering(m.group, m.shape, machine_cost(m.shape, fleet.expected_s)) for m in fleet.machines]
