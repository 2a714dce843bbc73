"""B1: placements a second, their tail, count and price: ours and scans, on the same agents and the same sessions.

The scans: with numpy and with numba (where it is installed) for the cheapest agent that fits, and in list order for
the first; up to 2,000 agents also Ray v2, where it is installed. Every contender keeps its own books. Ours explains
each decision and is asked in bursts of 500 (as after a change) and one by one (for the tail); the others explain
nothing. Times are processor times: this is one core's work, and the machine may do other things.
"""

import gc
import importlib
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from atoll.offer import Decision, Demand, Outcome
from atoll.slots import Gpu, Request, Slots
from bench.peers import ray
from bench.rows import Row, main, row
from bench.workload import Machine, machines, requests
from federation.routing.capacity import Capacity, Seat
from federation.routing.place import route
from federation.routing.schedule import schedule

SIZES = (100, 2000, 10_000, 62_500)
QUEUED = (100, 1000)
"""Agents in the cases where the whole queue is decided at once."""
RAY_SIZES = (100, 2000)
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
    burst: int = BURST


@dataclass(frozen=True)
class Result:
    """What one contender did with a case; the times of ours are those of single decisions, in seconds."""

    rate: float
    p50: float
    p99: float
    placed: Placements

    @property
    def count(self) -> int:
        """How many sessions got a place."""
        return sum(one is not None for one in self.placed)

    def count_of(self, demands: Sequence[Demand], model: str) -> int:
        """How many of the sessions that can use only this GPU model got a place."""
        pairs = zip(demands, self.placed, strict=True)
        return sum(one is not None for demand, one in pairs if demand.request.gpu.models == (model,))


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


def queue(size: int, seed: int, *, kinds: list[Machine], asks: list[Request]) -> Case:
    """Make a case of one call: empty agents, and a queue that asks for half as many GPUs again as there are."""
    chance = random.Random(seed * 6007 + size)
    factors = [chance.uniform(0.8, 1.25) for _ in range(SITES)]
    seats = []
    for number in range(size):
        kind, site = chance.choice(kinds), number % SITES
        price = round(kind.price * factors[site])
        seats.append(Seat(agent=f"a-{number}", site=f"site-{site}", group=f"group-{site}", capacity=kind.slots,
                          free=kind.slots, price=price))  # fmt: skip
    demands: list[Demand] = []
    wanted = 1.5 * sum(seat.capacity.gpu_milli for seat in seats)
    while wanted > 0:
        demands.append(Demand(session=f"s-{len(demands)}", request=chance.choice(asks)))
        wanted -= demands[-1].request.gpu.milli
    return Case(seats, demands, burst=len(demands))


def run_ours(given: Case, warm: int = WARM) -> Result:
    """Route in bursts for the rate, then one by one on a fresh index for the tail; act on decisions as control does."""
    rate, placed = _bursts(given, warm, route)
    times = _singles(given, warm)
    return Result(rate, median(times), _p99(times), placed)


def _bursts(
    given: Case, warm: int, decide: Callable[[Sequence[Demand], Capacity], list[Decision]]
) -> tuple[float, Placements]:
    capacity = _index(given.seats)
    numbers = {seat.agent: number for number, seat in enumerate(given.seats)}
    placed: Placements = []
    spent = 0.0
    for at in range(0, len(given.demands), given.burst):
        began = time.process_time()
        decisions = decide(given.demands[at : at + given.burst], capacity)
        spent += (time.process_time() - began) * (at >= warm)
        for decision in decisions:
            if decision.outcome is Outcome.PLACE:
                offer = decision.taken[0]
                _occupy(capacity, offer.target, offer.slots)
                placed.append((numbers[offer.target], offer.price))
            else:
                placed.append(None)
    return (len(given.demands) - warm) / spent, placed


def _queue_pass(demands: Sequence[Demand], capacity: Capacity) -> list[Decision]:
    """Decide as the control plane does: in the queue's order, with reservations for those that wait."""
    return schedule(demands, capacity, now=0.0)


def _singles(given: Case, warm: int) -> list[float]:
    capacity = _index(given.seats)
    times = []
    for demand in given.demands:
        began = time.process_time()
        (decision,) = route([demand], capacity)
        times.append(time.process_time() - began)
        if decision.outcome is Outcome.PLACE:
            _occupy(capacity, decision.taken[0].target, decision.taken[0].slots)
    return times[warm:]


def run_numpy(given: Case, warm: int = WARM) -> Result:
    """Scan all agents with numpy for the cheapest that fits: exact, and O(agents) a session."""
    scan = _Arrays(given.seats)
    return _timed(given.demands, scan.place, warm)


def run_numba(given: Case, warm: int = WARM) -> Result | None:
    """Scan as `run_numpy` does, in compiled code; None where numba is not installed."""
    scan = _Compiled.of(given.seats)
    return None if scan is None else _timed(given.demands, scan.place, warm)


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


class _Compiled:
    """The agents as columns, scanned by a compiled loop."""

    def __init__(self, seats: Sequence[Seat], scan: Callable[..., tuple[int, float]]) -> None:
        self._scan = scan
        self._free = np.array([[s.free.cpu, s.free.memory, s.free.gpu_milli] for s in seats], dtype=np.int64)
        self._of = np.array([[max(1, amount(s.capacity)) for amount in _AMOUNTS] for s in seats], dtype=np.int64)
        self._price = np.array([s.price for s in seats], dtype=np.int64)
        names = sorted({s.capacity.gpu[0].model for s in seats if s.capacity.gpu})
        self._bits = {name: 1 << number for number, name in enumerate(names)}
        bits = [self._bits[s.capacity.gpu[0].model] if s.capacity.gpu else 0 for s in seats]
        self._model = np.array(bits, dtype=np.int64)
        self.place(Demand(session="compile", request=Request(cpu=2**60)))

    @classmethod
    def of(cls, seats: Sequence[Seat]) -> "_Compiled | None":
        """Return the scan, compiled; None where numba is not installed."""
        try:
            numba: Any = importlib.import_module("numba")
        except ImportError:
            return None
        return cls(seats, numba.njit(_cheapest))

    def place(self, demand: Demand) -> tuple[int, int] | None:
        asks = demand.request
        allowed = sum(self._bits.get(model, 0) for model in asks.gpu.models) if asks.gpu.models else -1
        asked = (asks.cpu, asks.memory, asks.gpu.milli, allowed)
        number, price = self._scan(self._free, self._of, self._price, self._model, *asked)
        if number < 0:
            return None
        self._free[number] -= (asks.cpu, asks.memory, asks.gpu.milli)
        return number, round(price)


def _cheapest(free: Any, whole: Any, prices: Any, models: Any, cpu: int, memory: int, gpu: int, allowed: int) -> Any:
    """Return the cheapest agent that fits and the price there, -1 for none: plain loops, which numba compiles."""
    best, least = -1, np.inf
    for n in range(len(prices)):
        if free[n, 0] < cpu or free[n, 1] < memory or free[n, 2] < gpu:
            continue
        if gpu > 0 and models[n] & allowed == 0:
            continue
        share = max(cpu / whole[n, 0], memory / whole[n, 1])
        if gpu > 0:
            share = max(share, gpu / whole[n, 2])
        price = min(share, 1.0) * prices[n]
        if price < least:
            best, least = n, price
    return best, least


_AMOUNTS: tuple[Callable[[Slots], int], ...] = (lambda s: s.cpu, lambda s: s.memory, lambda s: s.gpu_milli)


def _timed(demands: Sequence[Demand], place: Callable[[Demand], tuple[int, int] | None], warm: int) -> Result:
    times, placed = [], []
    for demand in demands:
        began = time.process_time()
        placed.append(place(demand))
        times.append(time.process_time() - began)
    kept = times[warm:]
    return Result(len(kept) / sum(kept), median(kept), _p99(kept), placed)


PEERS: Mapping[str, Callable[[Case, int], Result | None]] = {
    "numpy scan, cheapest": run_numpy,
    "numba scan, cheapest": run_numba,
    "list-order scan": run_naive,
}


def compare(name: str, cases: Sequence[Case], *, warm: int, judged: bool) -> list[Row]:
    """Run all contenders on the same cases; return medians as rows, with targets where they are `judged`."""
    ours, theirs = [], {peer: [] for peer in PEERS}  # type: tuple[list[Result], dict[str, list[Result]]]
    queued: list[tuple[float, int]] = []
    for given in cases:
        gc.collect()
        gc.freeze()
        ours.append(run_ours(given, warm))
        rate, placed = _bursts(given, warm, _queue_pass)
        queued.append((rate, sum(one is not None for one in placed)))
        for peer, run_peer in PEERS.items():
            if (result := run_peer(given, warm)) is not None:
                theirs[peer].append(result)
        gc.unfreeze()
    rows = [row(f"{name}: one decision, p50", "ms", median(r.p50 * 1000 for r in ours), better="lower")]
    rows.append(row(f"{name}: rate, whole queue pass", "decisions/s", median(rate for rate, _ in queued)))
    rows.append(row(f"{name}: placed, whole queue pass", f"of {len(cases[0].demands)}", median(n for _, n in queued)))
    for peer, results in theirs.items():
        if results:
            rows += _rows(name, peer, ours, results, cases, judged=judged)
    return rows


def _rows(
    name: str, peer: str, ours: Sequence[Result], theirs: Sequence[Result], cases: Sequence[Case], *, judged: bool
) -> list[Row]:
    def both(of: Callable[[Result], float]) -> tuple[float, float]:
        return median(map(of, ours)), median(map(of, theirs))

    exact, listed = peer == "numpy scan, cheapest", peer == "list-order scan"
    total = len(cases[0].demands)
    rate, p99, placed = both(lambda r: r.rate), both(lambda r: r.p99 * 1000), both(lambda r: r.count)
    price = _common_price(ours, theirs)
    rows = [
        row(f"{name}: rate", "decisions/s", rate[0], peer=peer, theirs=rate[1],
            target=50_000 if judged and exact else None),
        row(f"{name}: p99", "ms", p99[0], peer=peer, theirs=p99[1], better="lower",
            target=1.0 if judged and exact else None),
        row(f"{name}: placed", f"of {total}", placed[0], peer=peer, theirs=placed[1],
            target=1.0 if judged and listed else None, of="ratio"),
        row(f"{name}: price, placed by both", "USD/h a session", price[0], peer=peer, theirs=price[1], better="lower",
            target=1.01 if judged and exact else None, of="ratio"),
    ]  # fmt: skip
    if listed:
        pairs = [[r.count_of(c.demands, "T4") for r, c in zip(runs, cases, strict=True)] for runs in (ours, theirs)]
        t4 = sum(demand.request.gpu.models == ("T4",) for demand in cases[0].demands)
        rows.append(
            row(f"{name}: T4-only placed", f"of {t4}", median(pairs[0]), peer=peer, theirs=median(pairs[1]),
                target=1.0 if judged and median(pairs[1]) else None, of="ratio")
        )  # fmt: skip
    return rows


def against_ray(name: str, given: Case) -> list[Row]:
    """Compare with Ray v2 placing the first requests on running nodes; it does not tell at what price."""
    asks = given.demands[: ray.MOST]
    count, took = ray.place_v2([demand.request for demand in asks], [(s.capacity, s.free) for s in given.seats])
    ours = run_ours(replace(given, demands=asks, burst=len(asks)), 0)
    return [
        row(f"{name}: rate", "decisions/s", ours.rate, peer="Ray v2", theirs=len(asks) / took),
        row(f"{name}: placed", f"of {len(asks)}", ours.count, peer="Ray v2", theirs=count),
    ]


def _common_price(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[float, float]:
    mine, others = [], []
    for one, other in zip(ours, theirs, strict=True):
        pairs = [(a[1], b[1]) for a, b in zip(one.placed, other.placed, strict=True) if a and b]
        mine.append(sum(a for a, _ in pairs) / len(pairs) / 1e6)
        others.append(sum(b for _, b in pairs) / len(pairs) / 1e6)
    return median(mine), median(others)


def _index(seats: Sequence[Seat]) -> Capacity:
    capacity = Capacity()
    for seat in seats:
        capacity.put_seat(seat)
    gc.freeze()  # as the control plane does with a large index (`federation.control.seating`)
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
    """Measure all sizes (quick: the largest alone, one seed) in light load and overload, and a whole queue at once."""
    sizes, seeds, count = ((SIZES[-1],), (1,), 2000) if quick else (SIZES, range(1, SEEDS + 1), 4000)
    kinds, asks = machines()[0], requests(models=True)[0]
    notes = [machines()[1], requests(models=True)[1]]
    notes.append(f"seeds: {len(seeds)} (medians); {WARM} sessions to warm up, then {count} timed, in bursts of {BURST}")
    notes.append(f"{SITES} sites; ours explains every decision, the others explain nothing; processor times")
    notes.append("queue: all sessions in one call, nothing placed yet, 1.5 times the GPUs there are; none to warm up")
    rows = []
    for size in sizes:
        for overload in (False, True):
            load = "overload" if overload else "light"
            cases = [case(size, count, seed, overload=overload, kinds=kinds, asks=asks) for seed in seeds]
            rows += compare(f"place {size} agents, {load}", cases, warm=WARM, judged=size == SIZES[-1])
    for size in QUEUED[-1:] if quick else QUEUED:
        cases = [queue(size, seed, kinds=kinds, asks=asks) for seed in (range(1, 4) if quick else seeds)]
        rows += compare(f"queue for {size} agents", cases, warm=0, judged=False)
    missing = [peer for peer in PEERS if not any(one.peer == peer for one in rows)]
    if ray.version():
        for size in () if quick else RAY_SIZES:
            for overload in (False, True):
                given = case(size, count, 1, overload=overload, kinds=kinds, asks=asks)
                rows += against_ray(f"place {size} agents, {'overload' if overload else 'light'}", given)
    else:
        missing.append("Ray v2")
    if missing:
        notes.append(f"not installed here, so not measured: {', '.join(missing)}")
    return rows, notes


if __name__ == "__main__":
    sys.exit(main("placement: ours, and scans", run))
