"""Growth: serve waiting sessions from pending, draining, cold and new machines, gangs all-or-nothing."""

from collections.abc import Sequence

from atoll.offer import Demand, expected_cost
from atoll.states import Reason
from autoscaler.demand import Kind, by_kind, may_use, share_price
from autoscaler.fleet import Fleet, Machine, Standing
from autoscaler.packing import Offering, fill, machine_cost, pack, set_values


def serve(fleet: Fleet, demands: Sequence[Demand]) -> list[Demand]:
    """Put `demands` on the fleet at the least cost; return those left out. Their order decides nothing here."""
    rest = _keep_awaited(fleet, demands)
    unserved = [demand for demand in rest if demand.nodes > 1 and not _serve_gang(fleet, demand)]
    kinds = by_kind(demand for demand in rest if demand.nodes == 1)
    order = set_values(kinds, _yardstick(fleet))
    order += [kind for kind in kinds if kind not in order]
    for machine in fleet.standing(Standing.PENDING, Standing.DRAINING, Standing.COLD, Standing.NEW):
        _fill_machine(fleet, machine, order)
    for purchase in pack(kinds, fleet.open_offerings(), fleet.room, fleet.limits):
        machine = fleet.add(purchase.offering.group, purchase.offering.shape, Reason.DEMAND)
        for demand in purchase.sessions:
            machine.put(demand)
    return unserved + [demand for kind in kinds for demand in kind.waiting[kind.next :]]


def serve_in_order(fleet: Fleet, demands: Sequence[Demand]) -> list[Demand]:
    """Serve as `serve` does, but strictly in order: used where groups cannot grow enough for all of them."""
    unserved = []
    for demand in _keep_awaited(fleet, demands):
        done = _serve_gang(fleet, demand) if demand.nodes > 1 else _serve_one(fleet, demand)
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
            if may_use(demand, machine.group, machine.shape) and machine.free.take(demand.request) is not None
        ]
        if len(machines) < demand.nodes:
            rest.append(demand)
            continue
        for machine in machines[: demand.nodes]:
            machine.put(demand)
    return rest


def _serve_one(fleet: Fleet, demand: Demand) -> bool:
    for machine in fleet.standing(Standing.PENDING, Standing.DRAINING, Standing.COLD, Standing.NEW):
        able = may_use(demand, machine.group, machine.shape) and _worth(fleet, machine, demand)
        if able and fleet.use(machine, demand):
            return True
    best = _cheapest(fleet, demand)
    return best is not None and fleet.launch(best.group, best.shape, Reason.DEMAND).put(demand)


def _serve_gang(fleet: Fleet, demand: Demand) -> bool:
    """Give each member a machine of its own, free agents first; change nothing unless all get one."""
    chosen: list[Machine] = []
    starts: dict[str, int] = {}
    order = (Standing.READY, Standing.PENDING, Standing.DRAINING, Standing.COLD, Standing.NEW)
    for machine in fleet.standing(*order):
        if len(chosen) == demand.nodes:
            break
        fits = may_use(demand, machine.group, machine.shape) and machine.free.take(demand.request) is not None
        name = machine.group.name
        cold = machine.standing is Standing.COLD and not machine.wanted
        if not fits or (cold and fleet.room[name] <= starts.get(name, 0)):
            continue
        starts[name] = starts.get(name, 0) + cold
        chosen.append(machine)
    new = _gang_launches(fleet, demand, demand.nodes - len(chosen), starts)
    if new is None:
        return False
    for machine in chosen:
        fleet.use(machine, demand)
    for offering in new:
        fleet.launch(offering.group, offering.shape, Reason.DEMAND).put(demand)
    return True


def _gang_launches(fleet: Fleet, demand: Demand, count: int, starts: dict[str, int]) -> list[Offering] | None:
    """Return `count` launches within room and limits, cheapest first, or None."""
    able = [o for o in fleet.open_offerings() if may_use(demand, o.group, o.shape)]
    able.sort(key=lambda o: (expected_cost(o.shape.price or 0, demand.expected_s, o.shape.start_s), o.group.name))
    new: list[Offering] = []
    used, limits = dict(starts), fleet.limits.copy()
    for offering in able:
        name, provider = offering.group.name, offering.group.provider
        while len(new) < count and used.get(name, 0) < fleet.room[name] and limits.count(provider, offering.shape):
            limits.take(provider, offering.shape)
            used[name] = used.get(name, 0) + 1
            new.append(offering)
    return new if len(new) == count else None


def _fill_machine(fleet: Fleet, machine: Machine, order: Sequence[Kind]) -> None:
    if not fleet.may_start(machine):
        return
    able = [kind for kind in order if kind.left and _worth(fleet, machine, kind.example)]
    for kind, count in fill(machine.free, machine.group, machine.shape, able):
        for demand in kind.serve(count):
            fleet.use(machine, demand)


def _worth(fleet: Fleet, machine: Machine, demand: Demand) -> bool:
    """Say whether a draining agent is worth taking back: not when the router would rather wait for a cheaper launch."""
    if machine.standing is not Standing.DRAINING:
        return True
    best = _cheapest(fleet, demand)
    taken = machine.free.take(demand.request)
    if best is None or taken is None:
        return True
    here = expected_cost(share_price(taken, machine.shape), demand.expected_s)
    return here <= expected_cost(best.shape.price or 0, demand.expected_s, best.shape.start_s)


def _cheapest(fleet: Fleet, demand: Demand) -> Offering | None:
    able = [o for o in fleet.open_offerings() if may_use(demand, o.group, o.shape)]
    return min(
        able,
        key=lambda o: (
            expected_cost(o.shape.price or 0, demand.expected_s, o.shape.start_s),
            o.group.name,
            o.shape.key,
        ),
        default=None,
    )


def _yardstick(fleet: Fleet) -> list[Offering]:
    """Return shapes to value kinds by: what could be launched, full groups too, else what is there."""
    if fleet.able:
        return fleet.able
    return [Offering(m.group, m.shape, machine_cost(m.shape, fleet.expected_s)) for m in fleet.machines]
