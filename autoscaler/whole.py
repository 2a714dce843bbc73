"""A tighter bound: sessions stay whole on machines that are small enough to look at every content that might pay.

As in `autoscaler.bound`, sessions are given worths such that no machine holds more than it costs. Where a machine's
rates cannot show that, all contents are searched that might be worth more (depth first; a content is given up as soon
as what its members are worth less than the rates ask of them exceeds what there is to lose). A machine with too many of
them keeps to its rates: there sessions may be cut, which only lowers the bound. The worths come from the covering
program with whole contents as columns for the small machines, and cut ones for the large.
"""

from collections.abc import Callable, Sequence

from autoscaler.cover import Content, Cover, Key, Need, Rates
from autoscaler.simplex import Covering

_NODES = 3000
"""Contents to look at before a machine counts as too large."""
_TIGHT = 5e-4


class Whole:
    """One search for good worths in hourly prices."""

    def __init__(self, cover: Cover, contents: Sequence[Key]) -> None:
        """Begin with these contents; each kind must be alone in one of them at least."""
        self._cover = cover = cover.priced()
        known = sorted((cover.able[o].cost, (o, content)) for o, content in contents)
        self._large: set[int] = set()
        alone: dict[int, tuple[float, float, int]] = {}
        for cost, (o, content) in known:
            if len(content) == 1:
                ((k, count),) = content
                if k not in alone or cost / count < alone[k][0] / alone[k][1]:
                    alone[k] = (cost, count, o)
        self._program = Covering[int](cover.counts, [alone[k] for k in range(len(cover.kinds))])
        while sum([self._program.enter(cost, content, o) for cost, (o, content) in known]):
            pass

    def bound(self, left: Callable[[], float]) -> float:
        """Return the bound after as many steps as there are seconds `left`."""
        every = range(len(self._cover.able))
        near: Sequence[int] = every
        while left() > 0:
            more = [o for o in near if self._step(o)]
            if not more and near is every:
                break
            near = more or every
        return self._safe()

    def _step(self, o: int) -> bool:
        """Take in a content of this offering that is worth more than it costs; False where there is none."""
        duals, price = self._program.duals, self._cover.able[o].cost
        most, rates, cut = self._cover.relax(o, duals)
        if most <= price * (1 + _TIGHT):
            return False
        if o not in self._large:
            found = self._search(o, duals, rates, most)
            if found is not None:
                return bool(found) and self._program.enter(price, found, o)
            self._large.add(o)
        return self._program.enter(price, cut, o)

    def _search(self, o: int, worth: Sequence[float], rates: Rates, most: float) -> Content | None:
        """Return a content worth more than the machine, empty where there is none, None where it takes too long."""
        cover, shares = self._cover, self._cover.shares[o]
        price = cover.able[o].cost * (1 + _TIGHT)
        able: list[_Item] = []
        for k in cover.fits[o]:
            loss = sum([rate * share for rate, share in zip(rates, shares[k], strict=True)]) - worth[k]
            if worth[k] > 0 and most - loss > price:
                able.append((loss, worth[k], cover.needs[k], k))
        able.sort(key=lambda item: (-item[1], item[-1]))
        search = _Search(cover.counts, price)
        done = search.deeper(able, most - price, 0.0, cover.sizes[o])
        if not done and not search.best:
            return None
        return tuple((k, search.best.count(k)) for k in dict.fromkeys(search.best))

    def _safe(self) -> float:
        """Return the total worth once every machine that holds too much has been made to hold less."""
        cover, worth = self._cover, list(self._program.duals)
        for o, offering in enumerate(cover.able):
            most, rates, _ = cover.relax(o, worth)
            if most <= offering.cost:
                continue
            if o not in self._large and self._search(o, worth, rates, most) == ():
                for k in cover.fits[o]:
                    worth[k] /= 1 + _TIGHT
                continue
            cpu, memory, disk, gpu = (rate * offering.cost / most for rate in rates)
            for k in cover.fits[o]:
                c, m, d, g = cover.shares[o][k]
                worth[k] = min(worth[k], cpu * c + memory * m + disk * d + gpu * g)
        return sum([value * count for value, count in zip(worth, cover.counts, strict=True)])


_Item = tuple[float, float, Need, int]
"""What a member is worth less than the rates ask, what it is worth, what it needs, and its kind."""


class _Search:
    """Contents of one machine, depth first: `best` is the first found of those worth the most over `price`."""

    def __init__(self, counts: Sequence[int], price: float) -> None:
        self.best: list[int] = []
        self._counts = counts
        self._price = price
        self._chosen: list[int] = []
        self._nodes = 0

    def deeper(self, able: Sequence[_Item], spare: float, value: float, size: Need) -> bool:
        """Try all that may still be added, `spare` being what may be lost; False when it takes too long."""
        self._nodes += 1
        if self._nodes > _NODES:
            return False
        if value > self._price:
            self._price, self.best = value, list(self._chosen)
        fit = [item for item in able if item[0] < spare and all(n <= s for n, s in zip(item[2], size, strict=True))]
        for at, (loss, gain, (cpu, memory, disk, gpu), k) in enumerate(fit):
            if self._chosen.count(k) >= self._counts[k]:
                continue
            self._chosen.append(k)
            rest = (size[0] - cpu, size[1] - memory, size[2] - disk, size[3] - gpu)
            going = self.deeper(fit[at:], spare - loss, value + gain, rest)
            self._chosen.pop()
            if not going:
                return False
        return True
