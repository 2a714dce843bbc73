"""The nearest miss: which part of a request nothing has, what the largest has, and what to do about it."""

from collections.abc import Callable, Iterable

from atoll import slots
from atoll.slots import Slots
from federation.routing.capacity import Capacity
from federation.routing.lens import Lens
from federation.routing.offers import capable_bins, capable_shapes, over_limit

_KINDS: tuple[tuple[str, Callable[[Slots], int], Callable[[int], str]], ...] = (
    ("cores", lambda s: s.cpu, lambda n: f"{n / 1000:g}"),
    ("of memory", lambda s: s.memory, lambda n: f"{n / slots.GIB:.1f} GiB"),
    ("of disk", lambda s: s.disk, lambda n: f"{n / slots.GIB:.1f} GiB"),
)


def price_miss(lens: Lens, capacity: Capacity) -> str:
    """Return the cheapest of what only cost limits exclude, or "" when more than those is in the way."""
    prices = [(home.price, home.spot, home.capacity, home.site) for home in capable_bins(lens, capacity)]
    prices += [
        (found.shape.price or 0, found.shape.spot, found.shape.slots, found.site)
        for found in capable_shapes(lens, capacity)
    ]
    parts = [(part.price(whole), spot, site) for whole, spot, has, site in prices if (part := lens.part(has))]
    if not parts:
        return ""
    price, spot, site = min(parts)
    return f"the cheapest capable offer, at site {site}, {over_limit(lens, price, spot)}"


def nearest_miss(lens: Lens, capacity: Capacity) -> tuple[str, str]:
    """Return a message and a hint for a request that no agent's capacity and no shape could ever hold."""
    agents = [home.capacity for home in capacity.bins() if lens.at(home.site, home.group)]
    shapes = [f.shape.slots for f in capacity.launchables() if lens.at(f.site, f.group) and f.shape.price]
    if not agents and not shapes:
        return "there is no agent and no launchable shape where the session may run", _where_hint(lens)
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
    if gpu.memory:
        kind += f" of {gpu.memory / slots.GIB:.0f} GiB"
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
    if lens.sites or lens.groups:
        return f"its placement allows only {', '.join((*lens.sites, *lens.groups))}: widen it, or add agents there"
    return "join an agent with `atoll agent join`, or add a provider and a group"
