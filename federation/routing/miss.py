"""The nearest miss: which part of a request nothing has, what the largest has, and what to do about it."""

from collections.abc import Callable, Iterable

from atoll import slots
from atoll.slots import Slots
from atoll.states import Reason
from federation.routing.capacity import Capacity
from federation.routing.lens import Lens
from federation.routing.offers import limit_against, missing_text, shape_limit_against
from federation.routing.words import memory_text

_KINDS: tuple[tuple[str, Callable[[Slots], int], Callable[[int], str]], ...] = (
    ("cores", lambda s: s.cpu, lambda n: f"{n / 1000:g}"),
    ("of memory", lambda s: s.memory, lambda n: f"{n / slots.GIB:.1f} GiB"),
    ("of disk", lambda s: s.disk, lambda n: f"{n / slots.GIB:.1f} GiB"),
)


_LIMIT_HINTS = {
    Reason.PRICE_LIMIT: "raise max_price, or allow spot",
    Reason.TOTAL_LIMIT: "raise max_total, or lower the expected run time if it is too high",
    Reason.WORTH_WAITING: "it goes on demand once its deadline asks for that; an earlier deadline makes it sooner",
    Reason.POLICY: "ask whoever keeps the policy, or ask for something it allows",
}


def limit_miss(lens: Lens, capacity: Capacity) -> tuple[Reason, str, str] | None:
    """Return reason, message and hint when only limits on cost or the policy exclude all there is, else None."""
    found: list[tuple[int, Reason, str]] = []
    for make in capacity.makes():
        part = lens.part_of(make)
        for home in make.bins if part else ():
            if part and lens.at(home.site, home.group):
                price = part.price(home.price)
                if against := limit_against(lens, home, price):
                    found.append((price, against[0], f"at site {home.site}, {against[1]}"))
    for launchable in capacity.launchables():
        part = lens.part(launchable.shape.slots, launchable.labels, launchable.driver)
        if part and launchable.shape.price and lens.at(launchable.site, launchable.group):
            against = shape_limit_against(lens, launchable, part)
            if against:
                found.append(
                    (part.price(launchable.shape.price), against[0], f"at site {launchable.site}, {against[1]}")
                )
    if not found:
        return None
    _, reason, text = min(found)
    return reason, f"the cheapest capable offer, {text}", _LIMIT_HINTS[reason]


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
