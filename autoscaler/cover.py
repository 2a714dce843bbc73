"""What is to be covered by launches: kinds of sessions, the machines that may hold them, and what each takes of one."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from atoll.group import Group
from atoll.instance import Shape
from autoscaler.demand import Kind, Terms

Need = tuple[int, int, int, int]
"""An amount of cpu, memory, disk and GPUs, in the units of `Slots`."""
Rates = tuple[float, float, float, float]
"""What the whole of a machine's cpu, memory, disk and GPUs is worth, each."""
Item = tuple[float, float, float, float, float, int]
"""A member's value over its own cost, what it takes of a machine, and its kind."""
Content = tuple[tuple[int, int], ...]
"""What is on a machine: kinds by number, and how many of each."""

Key = tuple[int, Content]
"""An offering by number, and what is on a machine of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Offering:
    """A shape that a group may launch now; `cost` is a machine's own for the expected run time, in micro-units."""

    group: Group
    shape: Shape
    cost: int


class Cover:
    """Kinds and offerings by number, and what a member of each kind takes of each machine.

    `fits[o]` are the kinds that an offering may hold, `shares[o][k]` the parts (0..1) that a member takes of its cpu,
    memory, disk and GPUs, `extra[o][k]` what a member costs there beside the machine. Devices of several models count
    as one lot: what is found for such a machine's shares may be more than it can hold, never less.
    """

    def __init__(self, kinds: Sequence[Kind], able: Sequence[Offering], terms: Terms) -> None:
        self.kinds = kinds
        self.able = able
        self.needs = [kind.need for kind in kinds]
        self.counts = [kind.left for kind in kinds]
        self.sizes = [_amounts(offering.shape) for offering in able]
        self.fits = [[k for k, kind in enumerate(kinds) if kind.may_use(o.group, o.shape)] for o in able]
        soonest = min((offering.shape.start_s for offering in able), default=0.0)
        self.shares: list[dict[int, Rates]] = []
        self.extra: list[dict[int, float]] = []
        for offering, size, fits in zip(able, self.sizes, self.fits, strict=True):
            cpu, memory, disk, gpu = (1.0 / amount if amount else 0.0 for amount in size)
            late = (offering.shape.start_s - soonest) * terms.wait_value
            needs = [(k, *self.needs[k]) for k in fits]
            self.shares.append({k: (c * cpu, m * memory, d * disk, g * gpu) for k, c, m, d, g in needs})
            self.extra.append({k: late + terms.beside(kinds[k].example, offering.group, offering.shape) for k in fits})

    def priced(self) -> "Cover":
        """Return the same at the prices of an hour: offerings cost that, members nothing beside."""
        other = copy(self)
        other.able = [Offering(o.group, o.shape, o.shape.price or 0) for o in self.able]
        other.extra = [dict.fromkeys(extra, 0.0) for extra in self.extra]
        return other

    def cost(self, offering: int, content: Content) -> float:
        """Return what a machine with this content costs, the members' own part included."""
        extra = self.extra[offering]
        return self.able[offering].cost + sum([extra[k] * count for k, count in content])

    def relax(self, offering: int, worth: Sequence[float]) -> tuple[float, Rates, list[tuple[int, float]]]:
        """Return the most that a machine could hold if members could be cut, in worth over their own cost there.

        Beside the value it returns the rates that prove it, and the fractional content. The rates add up to the value,
        and at them no member takes less than its worth.
        """
        extra, shares = self.extra[offering], self.shares[offering]
        found = [(worth[k] - extra[k], *shares[k], k) for k in self.fits[offering] if worth[k] > extra[k]]
        return _knapsack(found)


def _knapsack(
    items: Sequence[Item],
) -> tuple[float, Rates, list[tuple[int, float]]]:
    """Solve the linear knapsack with four unit capacities by the primal simplex method (four rows)."""
    inverse = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
    amounts, basis = [1.0] * 4, [-1] * 4
    rates = [0.0] * 4
    for _ in range(50):
        cpu, memory, disk, gpu = rates
        best = 1e-9
        enters: Item | None = None
        for item in items:
            gain = item[0] - cpu * item[1] - memory * item[2] - disk * item[3] - gpu * item[4]
            if gain > best:
                best, enters = gain, item
        if enters:
            column, number = list(enters[1:5]), enters[5]
        else:
            low = min(range(4), key=rates.__getitem__)
            if rates[low] >= -1e-12:
                break
            best, column, number = -rates[low], [1.0 if row == low else 0.0 for row in range(4)], -1
        steps = [sum([part * one for part, one in zip(line, column, strict=True)]) for line in inverse]
        limits = [(amounts[row] / step, row) for row, step in enumerate(steps) if step > 1e-12]
        if not limits:
            break
        most, leaves = min(limits)
        pivot = [part / steps[leaves] for part in inverse[leaves]]
        for row, step in enumerate(steps):
            if row != leaves and step:
                inverse[row] = [part - step * one for part, one in zip(inverse[row], pivot, strict=True)]
                amounts[row] -= step * most
        inverse[leaves], amounts[leaves], basis[leaves] = pivot, most, number
        rates = [rate + best * part for rate, part in zip(rates, pivot, strict=True)]
    content = [(k, amount) for k, amount in zip(basis, amounts, strict=True) if k >= 0 and amount > 1e-12]
    sure = _proven(items, rates)
    return sum(sure), sure, content


def _proven(items: Sequence[Item], rates: Sequence[float]) -> Rates:
    """Return the rates raised, where rounding or a halt before the end asks for it, until no item is worth more."""
    cpu, memory, disk, gpu = (max(0.0, rate) for rate in rates)
    scale, rest = 1.0, 0.0
    for value, c, m, d, g, _ in items:
        due = cpu * c + memory * m + disk * d + gpu * g
        if value > due * scale:
            if due > 1e-6 * value:
                scale = value / due
            else:
                rest = max(rest, value / max(c, m, d, g, 1e-12))
    return (cpu * scale + rest, memory * scale + rest, disk * scale + rest, gpu * scale + rest)


def _amounts(shape: Shape) -> Need:
    slots = shape.slots
    return (slots.cpu, slots.memory, slots.disk, slots.gpu_milli)
