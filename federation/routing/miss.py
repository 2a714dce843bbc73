"""The nearest miss: which part of a request nothing has, what the largest has, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from atoll import slots
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing.capacity import Capacity
from federation.routing.lens import Lens
from federation.routing.offers import Against, limits_against, missing_text, shape_limits_against
from federation.routing.words import duration, enough, memory_text

_KINDS: tuple[tuple[str, Callable[[Slots], int], Callable[[int], str]], ...] = (
    ("cores", lambda s: s.cpu, lambda n: f"{n / 1000:g}"),
    ("of memory", lambda s: s.memory, lambda n: f"{n / slots.GIB:.1f} GiB"),
    ("of disk", lambda s: s.disk, lambda n: f"{n / slots.GIB:.1f} GiB"),
)


def limit_miss(lens: Lens, capacity: Capacity) -> tuple[Reason, str, str] | None:
    """Return reason, message and hint when only limits on cost or the policy exclude all there is, else None."""
    found = [(site, against) for site, against in _limited(lens, capacity) if against]
    if not found:
        return None
    site, against = min(found, key=lambda one: (one[1][0].price, one[1][0].reason, one[0], one[1][0].message))
    first = against[0]
    alone = [those[0] for _, those in found if len(those) == 1 and those[0].reason is first.reason]
    message = f"the cheapest capable offer, at site {site}, {first.message}"
    return first.reason, message, _limit_hint(lens, first.reason, alone or against[:1])


def _limited(lens: Lens, capacity: Capacity) -> Iterator[tuple[str, list[Against]]]:
    """Yield the site of each place that could run it, and all limits that are against it."""
    for make in capacity.makes():
        part = lens.part_of(make)
        for home in make.bins if part else ():
            if part and lens.at(home.site, home.group):
                yield home.site, list(limits_against(lens, home, part))
    for launchable in capacity.launchables():
        part = lens.part(launchable.shape.slots, launchable.labels, launchable.driver)
        if part and launchable.shape.price and lens.at(launchable.site, launchable.group):
            yield launchable.site, list(shape_limits_against(lens, launchable, part))


def _limit_hint(lens: Lens, reason: Reason, against: Sequence[Against]) -> str:
    """Return what to do about a limit: `against` are the places that nothing else is against, where there are any."""
    if reason is Reason.PRICE_LIMIT:
        return _price_hint(lens, against)
    if reason is Reason.TOTAL_LIMIT:
        least = enough(min(one.least for one in against))
        return f"raise max_total to {least}, or lower the expected run time if it is too high"
    if reason is Reason.WORTH_WAITING:
        return "it goes on demand once its deadline asks for that; an earlier deadline makes it sooner"
    return "ask whoever keeps the policy, or ask for something it allows"


def _price_hint(lens: Lens, against: Sequence[Against]) -> str:
    """Return which price would do, whether it would on spot machines, or each where both do."""
    most, refuses = lens.demand.max_price, not lens.demand.spot
    paid = min((one.least for one in against if not (one.spot and refuses)), default=None)
    spot = min((one.least for one in against if one.spot and refuses), default=None)
    ways = [] if paid is None else [f"raise max_price to {enough(paid)}"]
    if spot is not None and (most is None or spot <= most):
        ways.append("allow spot")
    elif spot is not None and (paid is None or spot < paid):
        ways.append(f"allow spot and raise max_price to {enough(spot)}")
    return ", or ".join(ways)


def outside_hours(lens: Lens, now: float) -> tuple[str, str] | None:
    """Return a message and a hint where all agents that could run it are closed, and some open at their hours."""
    ladders = lens.ladders.values()
    if any(home.order for ladder in ladders for home in ladder.bins):
        return None
    rows = (row for ladder in ladders for home in ladder.bins for row in home.rows.values())
    shut = [row.seat for row in rows if row.seat.why_closed is Reason.OUTSIDE_HOURS]
    if not shut:
        return None
    first = min(shut, key=lambda seat: (seat.opens_at is None, seat.opens_at or 0.0, seat.group, seat.agent))
    count = "the agent that could run it is" if len(shut) == 1 else f"the {len(shut)} agents that could run it are"
    message = f"{count} outside their owner's hours; group {first.group} {first.message}"
    if first.opens_at is None:
        return message, "change the group's hours, or add agents that it may use at any time"
    soon = duration(first.opens_at - now)
    return message, f"it may start in about {soon}; to have it sooner, add agents that it may use at any time"


def nearest_miss(lens: Lens, capacity: Capacity) -> tuple[str, str]:
    """Return a message and a hint for a request that no agent's capacity and no shape could ever hold."""
    makes = [make for make in capacity.makes() if any(lens.at(kind.site, kind.group) for kind in make.by_kind)]
    launchables = [f for f in capacity.launchables() if lens.at(f.site, f.group) and f.shape.price]
    if not makes and not launchables:
        return "there is no agent and no launchable shape where the session may run", _where_hint(lens)
    there = [(make.capacity, make.kind.labels, make.kind.driver) for make in makes]
    there += [(f.shape.slots, f.labels, f.driver) for f in launchables]
    lacking = {missing_text(lens, labels, driver) for has, labels, driver in there if has.take(lens.request)}
    if lacking:
        return f"all that is large enough {min(lacking)}", "change what it asks for, or add agents that have it"
    agents, shapes = [make.capacity for make in makes], [f.shape.slots for f in launchables]
    gpu = _gpu_miss(lens, agents, shapes)
    if gpu:
        return gpu
    request = lens.request
    asked = Slots(request.cpu, request.memory, request.disk)
    for noun, amount, text in _KINDS:
        agent, shape = _largest(agents, amount), _largest(shapes, amount)
        if amount(asked) > max(agent, shape):
            message = (
                f"asks {text(amount(asked))} {noun}; the largest agent has {text(agent)}, "
                f"the largest shape {text(shape)}"
            )
            return message, f"ask for at most {text(max(agent, shape))}, or add a group with larger machines"
    return f"no agent or shape has all of {lens.asks} at once", "ask for less of one kind, or add a group that has it"


def _gpu_miss(lens: Lens, agents: list[Slots], shapes: list[Slots]) -> tuple[str, str] | None:
    gpu = lens.request.gpu
    if not gpu.milli:
        return None
    kind = " or ".join(gpu.models) + " GPUs" if gpu.models else "GPUs"
    if gpu.memory or gpu.memory_max:
        kind += f" of {memory_text(gpu)}"
    agent, shape = _largest(agents, lambda s: _able(lens, s)), _largest(shapes, lambda s: _able(lens, s))
    most = max(agent, shape)
    if gpu.milli <= most:
        return None
    message = (
        f"asks {gpu.milli / 1000:g} {kind}; the largest agent has {agent / 1000:g}, the largest shape {shape / 1000:g}"
    )
    there = sorted({g.model for has in [*agents, *shapes] for g in has.gpu if g.milli})
    if most:
        return message, f"ask for at most {most / 1000:g}, with --nodes for more, or add a group that has them"
    if there:
        return message, f"GPU models there are: {', '.join(there)}"
    return message, "join a machine with GPUs, or add a group whose shapes have them"


def _able(lens: Lens, has: Slots) -> int:
    return max((gpu.milli for gpu in has.gpu if lens.request.gpu.allows(gpu)), default=0)


def _largest(amounts: Iterable[Slots], amount: Callable[[Slots], int]) -> int:
    return max(map(amount, amounts), default=0)


def _where_hint(lens: Lens) -> str:
    demand = lens.demand
    if demand.sites or demand.groups:
        return f"its placement allows only {', '.join((*demand.sites, *demand.groups))}: widen it, or add agents there"
    return "join an agent with `atoll agent join`, or add a provider and a group"
