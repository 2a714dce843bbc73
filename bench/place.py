"""B1: placements a second, their tail, count and price: ours, a numpy scan for the cheapest, a list-order scan.

Every contender gets the same agents and the same sessions in the same order and keeps its own books.
Ours explains each decision and is asked in bursts of 500 (as after a change) and one by one (for the
tail); the scans explain nothing.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt

from atoll.offer import Demand, Outcome
from atoll.slots import Gpu, Request, Slots
from bench.rows import Row, main, row
from bench.workload import Machine, machines, requests
from federation.routing.capacity import Capacity, Seat
from federation.routing.place import route

SIZES = (100, 2000, 10_000, 62_500)
SEEDS = 5
SITES = 64
BURST = 500
WARM = 2000
"""Sessions placed before the clock starts: a control plane that runs has seen most kinds of request."""

Placements = list[tuple[int, int] | None]
"""For each session the agent's number and the price of its share, or None."""


@dataclass(frozen=True)
class Case:
    """Agents as they are at the start, and the sessions to place."""

    seats: list[Seat]
    demands: list[Demand]


@dataclass(frozen=True)
class Result:
    """What one contender did with a case."""

    rate: float
    p99: float
    placed: Placements

    @property
    def count(self) -> int:
        """How many sessions got a place."""
        return sum(one is not None for one in self.placed)


def case(size: int, count: int, seed: int, *, overload: bool, kinds: list[Machine], asks: list[Request]) -> Case:
    """Make a case: light load leaves agents 40 to 100 % free; under overload sessions ask for far more than is free."""
    chance = random.Random(seed * 7919 + size + overload)
    factors = [chance.uniform(0.8, 1.25) for _ in range(SITES)]
    with_room = max(3, min(size, (WARM + count) // 20))
    roomy = set(chance.sample(range(size), with_room))
    seats = []
    for number in range(size):
        kind, site = chance.choice(kinds), number % SITES
        left = chance.uniform(0.4, 1.0) if not overload or number in roomy else 0.0
        seats.append(
            Seat(
                agent=f"a-{number}",
                site=f"site-{site}",
                group=f"group-{site}",
                capacity=kind.slots,
                free=_part(kind.slots, left),
                price=round(kind.price * factors[site]),
            )
        )
    demands = [Demand(session=f"s-{n}", request=chance.choice(asks)) for n in range(WARM + count)]
    return Case(seats, demands)


def run_ours(given: Case, warm: int = WARM) -> Result:
    """Route in bursts for the rate, then one by one on a fresh index for the tail; act on decisions as control does."""
    capacity = _index(given.seats)
    numbers = {seat.agent: number for number, seat in enumerate(given.seats)}
    placed: Placements = []
    spent = 0.0
    for at in range(0, len(given.demands), BURST):
        began = time.perf_counter()
        decisions = route(given.demands[at : at + BURST], capacity)
        spent += (time.perf_counter() - began) * (at >= warm)
        for decision in decisions:
            if decision.outcome is Outcome.PLACE:
                offer = decision.taken[0]
                _occupy(capacity, offer.target, offer.slots)
                placed.append((numbers[offer.target], offer.price))
            else:
                placed.append(None)
    return Result((len(given.demands) - warm) / spent, _tail(given, warm), placed)


def _tail(given: Case, warm: int) -> float:
    capacity = _index(given.seats)
    times = []
    for demand in given.demands:
        began = time.perf_counter()
        (decision,) = route([demand], capacity)
        times.append(time.perf_counter() - began)
        if decision.outcome is Outcome.PLACE:
            _occupy(capacity, decision.taken[0].target, decision.taken[0].slots)
    return _p99(times[warm:])


def run_numpy(given: Case, warm: int = WARM) -> Result:
    """Scan all agents with numpy for the cheapest that fits: exact, and O(agents) a session."""
    scan = _Arrays(given.seats)
    return _timed(given.demands, scan.place, warm)


def run_naive(given: Case, warm: int = WARM) -> Result:
    """Take the first agent in list order that fits, whatever its price."""
    free = [[s.free.gpu_milli, s.free.cpu, s.free.memory] for s in given.seats]
    models = [s.capacity.gpu[0].model if s.capacity.gpu else "" for s in given.seats]

    def place(demand: Demand) -> tuple[int, int] | None:
        asks = demand.request
        gpu, cpu, memory, allowed = asks.gpu.milli, asks.cpu, asks.memory, asks.gpu.models
        for number, have in enumerate(free):
            if have[0] >= gpu and have[1] >= cpu and have[2] >= memory:
                if gpu and allowed and models[number] not in allowed:
                    continue
                have[0], have[1], have[2] = have[0] - gpu, have[1] - cpu, have[2] - memory
                return number, _share_price(given.seats[number], asks)
        return None

    return _timed(given.demands, place, warm)


class _Arrays:
    """The agents as columns."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        def column(values: list[int]) -> npt.NDArray[np.int64]:
            return np.array(values, dtype=np.int64)

        self._cpu, self._memory = column([s.free.cpu for s in seats]), column([s.free.memory for s in seats])
        self._gpu = column([s.free.gpu_milli for s in seats])
        self._of = [np.maximum(1, column([amount(s.capacity) for s in seats])) for amount in _AMOUNTS]
        self._price = column([s.price for s in seats])
        names = sorted({s.capacity.gpu[0].model for s in seats if s.capacity.gpu})
        self._names = {name: number for number, name in enumerate(names)}
        self._model = column([self._names[s.capacity.gpu[0].model] if s.capacity.gpu else -1 for s in seats])

    def place(self, demand: Demand) -> tuple[int, int] | None:
        asks = demand.request
        fits = (self._cpu >= asks.cpu) & (self._memory >= asks.memory) & (self._gpu >= asks.gpu.milli)
        if asks.gpu.milli and asks.gpu.models:
            fits &= np.isin(self._model, [self._names[m] for m in asks.gpu.models if m in self._names])
        able = np.flatnonzero(fits)
        if not len(able):
            return None
        cpu, memory, gpu = self._of
        share = np.maximum(asks.cpu / cpu[able], asks.memory / memory[able])
        if asks.gpu.milli:
            share = np.maximum(share, asks.gpu.milli / gpu[able])
        prices = np.minimum(share, 1.0) * self._price[able]
        best = int(np.argmin(prices))
        number = int(able[best])
        self._cpu[number] -= asks.cpu
        self._memory[number] -= asks.memory
        self._gpu[number] -= asks.gpu.milli
        return number, round(float(prices[best]))


_AMOUNTS: tuple[Callable[[Slots], int], ...] = (lambda s: s.cpu, lambda s: s.memory, lambda s: s.gpu_milli)


def _timed(demands: Sequence[Demand], place: Callable[[Demand], tuple[int, int] | None], warm: int) -> Result:
    times, placed = [], []
    for demand in demands:
        began = time.perf_counter()
        placed.append(place(demand))
        times.append(time.perf_counter() - began)
    return Result((len(demands) - warm) / sum(times[warm:]), _p99(times[warm:]), placed)


def compare(size: int, count: int, seeds: Sequence[int], *, overload: bool) -> list[Row]:
    """Run all contenders on the same cases; return medians as rows. The targets are those of 62,500 agents."""
    kinds, asks = machines()[0], requests(models=True)[0]
    runs = []
    for seed in seeds:
        given = case(size, count, seed, overload=overload, kinds=kinds, asks=asks)
        runs.append((run_ours(given), run_numpy(given), run_naive(given)))
    name = f"place {size} agents, {'overload' if overload else 'light'}"
    judged = size == SIZES[-1]

    def middle(of: Callable[[Result], float], which: int) -> float:
        return median(of(run[which]) for run in runs)

    rows = []
    for which, peer in ((1, "numpy scan, cheapest"), (2, "list-order scan")):
        rows.append(
            row(f"{name}: rate", "decisions/s", middle(lambda r: r.rate, 0), peer=peer,
                theirs=middle(lambda r: r.rate, which), target=50_000 if judged else None)
        )  # fmt: skip
        rows.append(
            row(f"{name}: p99", "ms", middle(lambda r: r.p99 * 1000, 0), peer=peer, better="lower",
                theirs=middle(lambda r: r.p99 * 1000, which), target=1.0 if judged else None)
        )  # fmt: skip
        rows.append(
            row(f"{name}: placed", f"of {WARM + count}", middle(lambda r: r.count, 0), peer=peer,
                theirs=middle(lambda r: r.count, which), target=1.0 if judged and which == 2 else None, of="ratio")
        )  # fmt: skip
        ours, theirs = _common_price(runs, which)
        rows.append(
            row(f"{name}: price, placed by both", "USD/h a session", ours, peer=peer, better="lower",
                theirs=theirs, target=1.01 if judged and which == 1 else None, of="ratio")
        )  # fmt: skip
    return rows


def _common_price(runs: Sequence[tuple[Result, Result, Result]], which: int) -> tuple[float, float]:
    ours, theirs = [], []
    for run in runs:
        pairs = [(a[1], b[1]) for a, b in zip(run[0].placed, run[which].placed, strict=True) if a and b]
        ours.append(sum(a for a, _ in pairs) / len(pairs) / 1e6)
        theirs.append(sum(b for _, b in pairs) / len(pairs) / 1e6)
    return median(ours), median(theirs)


def _index(seats: Sequence[Seat]) -> Capacity:
    capacity = Capacity()
    for seat in seats:
        capacity.put_seat(seat)
    return capacity


def _occupy(capacity: Capacity, agent: str, taken: Slots) -> None:
    seat = capacity.seat(agent)
    assert seat is not None
    capacity.put_seat(replace(seat, free=seat.free - taken))


def _share_price(seat: Seat, asks: Request) -> int:
    taken = seat.capacity.take(asks)
    return 0 if taken is None else round(taken.share_of(seat.capacity) * seat.price)


def _part(whole: Slots, left: float) -> Slots:
    gpu = tuple(Gpu(g.model, int(g.milli * left) // 1000 * 1000, g.memory) for g in whole.gpu)
    return Slots(int(whole.cpu * left), int(whole.memory * left), 0, gpu)


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Measure all sizes (quick: the largest alone, one seed), light and overloaded."""
    sizes, seeds, count = ((SIZES[-1],), (1,), 2000) if quick else (SIZES, range(1, SEEDS + 1), 4000)
    notes = [machines()[1], requests(models=True)[1]]
    notes.append(f"seeds: {len(seeds)} (medians); {WARM} sessions to warm up, then {count} timed, in bursts of {BURST}")
    notes.append(f"{SITES} sites; ours explains every decision, the scans explain nothing")
    rows = [one for size in sizes for load in (False, True) for one in compare(size, count, seeds, overload=load)]
    return rows, notes


if __name__ == "__main__":
    sys.exit(main("placement: ours, numpy scan, list-order scan", run))
