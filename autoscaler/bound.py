"""A proven lower bound on what machines for a set of sessions cost, and what each session is worth at it.

Give every offering o rates for its cpu, memory, disk and GPUs that add up to its price p_o, as prices of the whole of
each, and let a session of kind k be worth

    w_k = min over the offerings o that may hold it of (rates_o . share_ok + extra_ok).

Then no machine holds more worth than it costs: the shares of what is on it are at most 1 in each resource, so that the
sum of w_k over its sessions is at most the sum of rates_o . share_ok + extra_ok <= p_o + the sum of extra_ok. Whatever
machines are bought, together they hold all sessions: all of it costs at least the sum of all w_k (weak duality).
This holds for any rates; good ones make the bound tight. They come from the duals of the linear program in which a
session may be cut into pieces, solved by columns found as needed (Gilmore and Gomory 1961), for kinds that stand for
all. It knows which shapes can hold which sessions and each resource's limits, but not that sessions are whole: part
of the gap to any plan is slack that none could remove.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autoscaler.cover import Cover, Rates
from autoscaler.demand import sorts
from autoscaler.simplex import Covering

HEAVY, SORTS = 16, 48
"""Kinds that the program is solved for: those that most of the money goes to, and one for each sort of the others."""
_PIVOTS = 1000
_TIGHT = 3e-4


@dataclass(frozen=True, slots=True)
class Worth:
    """What a member of each kind is worth, by the rates of each offering; `total` is the bound, in the same money.

    `dues[o]` is what each kind that fits an offering would have to pay there by its rates, in the order of `fits`.
    """

    total: float
    kinds: Sequence[float]
    rates: Sequence[Rates]
    dues: Sequence[Sequence[float]]


class _Example(NamedTuple):
    """A kind that stands for as many members as its weight says: its best offering alone, how many fit, the cost."""

    kind: int
    weight: float
    offering: int
    fit: float
    cost: float


def worth(cover: Cover) -> Worth:
    """Return worths whose total is a lower bound on what machines for the cover's sessions cost, extras included."""
    rates = _solve(cover, _examples(cover))
    dues = _dues(cover, rates)
    kinds = _least(cover, dues)
    return Worth(_sum(cover, kinds), kinds, rates, dues)


def price_bound(cover: Cover, rates: Sequence[Rates]) -> int:
    """Return a lower bound on the hourly price (micro-units) of any machines for the cover's sessions.

    `rates` add up to what each offering costs for an expected run; scaled to its price they prove a bound on prices.
    """
    scaled = []
    for offering, whole in zip(cover.able, rates, strict=True):
        scale = (offering.shape.price or 0) / offering.cost
        scaled.append((whole[0] * scale, whole[1] * scale, whole[2] * scale, whole[3] * scale))
    kinds = _least(cover, _dues(cover, scaled, with_extra=False))
    return max(0, int(_sum(cover, kinds) * (1 - 1e-9)))


def _sum(cover: Cover, kinds: Sequence[float]) -> float:
    return sum([value * count for value, count in zip(kinds, cover.counts, strict=True)])


def _examples(cover: Cover) -> list[_Example]:
    """Return kinds that stand for all: those that most of the money goes to, and one for each sort of the others."""
    best: dict[int, tuple[float, int, float, float]] = {}
    for o, offering in enumerate(cover.able):
        shares, extra = cover.shares[o], cover.extra[o]
        for k in cover.fits[o]:
            fit = 1.0 / max(1e-12, *shares[k])
            each = offering.cost / fit + extra[k]
            if k not in best or each < best[k][0]:
                best[k] = (each, o, fit, offering.cost + fit * extra[k])
    order = sorted(best, key=lambda k: (-best[k][0] * cover.counts[k], k))
    found = [_Example(k, cover.counts[k], *best[k][1:]) for k in order[:HEAVY]]
    for alike in sorts([cover.needs[k] for k in order[HEAVY:]], SORTS):
        kinds = [order[HEAVY + n] for n in alike]
        weight = sum([best[k][0] * cover.counts[k] for k in kinds]) / best[kinds[0]][0]
        found.append(_Example(kinds[0], weight, *best[kinds[0]][1:]))
    return found


def _solve(cover: Cover, examples: Sequence[_Example]) -> list[Rates]:
    """Return each offering's rates at (nearly) the best duals for the examples."""
    rows = {example.kind: row for row, example in enumerate(examples)}
    program = Covering([each.weight for each in examples], [(each.cost, each.fit, each.offering) for each in examples])
    value = [0.0] * len(cover.kinds)
    for k, row in rows.items():
        value[k] = program.duals[row]
    every = range(len(cover.able))
    near: Sequence[int] = every
    pivots = 0
    while pivots < _PIVOTS:
        before, promising = pivots, []
        for o in near:
            most, _, content = cover.relax(o, value)
            cost = cover.able[o].cost
            if most > cost * 0.97:
                promising.append(o)
            if most <= cost * (1 + _TIGHT):
                continue
            whole = cost + sum(cover.extra[o][k] * amount for k, amount in content)
            if program.enter(whole, [(rows[k], amount) for k, amount in content], o):
                pivots += 1
                for k, row in rows.items():
                    value[k] = program.duals[row]
        if pivots > before:
            near = promising
        elif near is every:
            break
        else:
            near = every
    return [_spent(cover, o, value) for o in every]


def _spent(cover: Cover, offering: int, value: Sequence[float]) -> Rates:
    """Return rates in proportion to those that prove what the offering can hold, so that they add up to its cost."""
    most, rates, _ = cover.relax(offering, value)
    cost = cover.able[offering].cost
    if most <= 1e-9:
        return (cost / 4, cost / 4, cost / 4, cost / 4)
    scale = cost / most
    return (rates[0] * scale, rates[1] * scale, rates[2] * scale, rates[3] * scale)


def _dues(cover: Cover, rates: Sequence[Rates], *, with_extra: bool = True) -> list[list[float]]:
    found = []
    for (cpu, memory, disk, gpu), shares, extra in zip(rates, cover.shares, cover.extra, strict=True):
        dues = [cpu * c + memory * m + disk * d + gpu * g for c, m, d, g in shares.values()]
        if with_extra:
            dues = [due + more for due, more in zip(dues, extra.values(), strict=True)]
        found.append(dues)
    return found


def _least(cover: Cover, dues: Sequence[Sequence[float]]) -> list[float]:
    """Return each kind's worth: the least that any offering asks for a member; 0 where none may hold it."""
    least = [float("inf")] * len(cover.kinds)
    for fits, asked in zip(cover.fits, dues, strict=True):
        for k, due in zip(fits, asked, strict=True):
            if due < least[k]:
                least[k] = due
    return [0.0 if value == float("inf") else value for value in least]
