"""B2: what it takes and costs to launch for N waiting sessions: ours, one instance a session, and a proven bound.

The bound is the dual of the aggregated linear program: non-negative prices for a core and a GiB of
sessions without a GPU, and for a core, a GiB and a device of sessions with one (not lower: those can only
be on GPU shapes), such that no shape holds more worth than it costs. Whatever machines are bought, they
cost at least what the sessions' requests are worth at such prices (weak duality); the simplex method
finds the best. It knows no bin boundaries, so part of each gap is slack that no plan could remove.
"""

import random
import sys
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import numpy.typing as npt

from atoll.group import Group, GroupKind, Size
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action
from atoll.slots import GIB, Request
from autoscaler.plan import plan
from autoscaler.view import GroupView
from bench.rows import Row, main, row
from bench.workload import requests, shapes

SIZES = (30, 100, 1000, 10_000)
SEEDS = 5
Floats = npt.NDArray[np.float64]


def ours(demands: Sequence[Demand], able: Sequence[Shape]) -> tuple[float, float]:
    """Return the planner's price an hour in units, and the seconds it took."""
    group = Group(name="aws", site="aws", kind=GroupKind.ELASTIC, provider="aws", size=Size(max=1_000_000))
    view = GroupView(group=group, shapes=tuple(able))
    began = time.perf_counter()
    made = plan([view], demands, plan_id="p-bench", generation=1, at=0.0)
    took = time.perf_counter() - began
    if len(made.awaits) != len(demands):
        raise AssertionError("the plan left sessions out")
    return sum(s.shape.price or 0 for s in made.steps if s.action is Action.LAUNCH and s.shape) / 1e6, took


def one_each(demands: Sequence[Demand], able: Sequence[Shape]) -> tuple[float, float]:
    """Return the price an hour of the cheapest capable instance for each session alone, and the seconds it took."""
    began = time.perf_counter()
    by_price = sorted(able, key=lambda shape: shape.price or 0)
    known: dict[Request, int] = {}
    for demand in demands:
        if demand.request not in known:
            known[demand.request] = next(s.price or 0 for s in by_price if s.slots.take(demand.request) is not None)
    price = sum(known[demand.request] for demand in demands) / 1e6
    return price, time.perf_counter() - began


def bound(demands: Sequence[Demand], able: Sequence[Shape]) -> float:
    """Return a lower bound on the price an hour of any set of instances that holds all sessions."""
    rows, limits = [], []
    for shape in able:
        cpu, memory, gpu = _amounts(shape.slots.cpu, shape.slots.memory, shape.slots.gpu_milli)
        rows.append((0, 0, cpu, memory, gpu) if gpu else (cpu, memory, 0, 0, 0))
        limits.append((shape.price or 0) / 1e6)
    rows += [(1, 0, -1, 0, 0), (0, 1, 0, -1, 0)]
    limits += [0, 0]
    needed = np.zeros(5)
    for demand in demands:
        asks = demand.request
        cpu, memory, gpu = _amounts(asks.cpu, asks.memory, asks.gpu.milli)
        needed += (0, 0, cpu, memory, gpu) if gpu else (cpu, memory, 0, 0, 0)
    return _largest(np.array(rows, dtype=float), np.array(limits), needed)


def _largest(rows: Floats, limits: Floats, worth: Floats) -> float:
    """Return the largest `worth @ y` with `rows @ y <= limits` and `y >= 0`, where limits >= 0: primal simplex."""
    count, width = rows.shape
    tableau = np.zeros((count + 1, width + count + 1))
    tableau[:count, :width], tableau[:count, width:-1], tableau[:count, -1] = rows, np.eye(count), limits
    tableau[count, :width] = -worth
    while True:
        better = np.flatnonzero(tableau[count, :-1] < -1e-9)
        if not len(better):
            return float(tableau[count, -1])
        enters = int(better[0])  # Bland's rule: no cycling
        column = tableau[:count, enters]
        able = np.flatnonzero(column > 1e-12)
        leaves = int(able[np.argmin(tableau[able, -1] / column[able])])
        tableau[leaves] /= tableau[leaves, enters]
        rest = np.arange(count + 1) != leaves
        tableau[rest] -= np.outer(tableau[rest, enters], tableau[leaves])


def _amounts(cpu: int, memory: int, gpu: int) -> tuple[float, float, float]:
    return cpu / 1000, memory / GIB, gpu / 1000


def compare(count: int, seeds: Sequence[int]) -> list[Row]:
    """Run all contenders on the same sessions; return medians as rows. The targets are those of 10,000 sessions."""
    able, asks = shapes()[0], requests(models=False)[0]
    asks = [ask for ask in asks if any(shape.slots.take(ask) is not None for shape in able)]
    runs = []
    for seed in seeds:
        chance = random.Random(seed * 104_729 + count)
        demands = [Demand(session=f"s-{n}", request=chance.choice(asks)) for n in range(count)]
        (price, took), (each, each_took) = ours(demands, able), one_each(demands, able)
        least = bound(demands, able)
        runs.append((price, took, each, each_took, least, price / each, price / least))
    price, took, each, each_took, least, _, _ = (median(run[k] for run in runs) for k in range(7))
    name, judged = f"plan {count} sessions", count == SIZES[-1]
    return [
        row(f"{name}: time", "s", took, peer="one instance each", theirs=each_took, better="lower",
            target=0.5 if judged else None),
        row(f"{name}: price", "USD/h", price, peer="one instance each", theirs=each, better="lower"),
        row(f"{name}: price over bound", "USD/h", price, peer="proven lower bound", theirs=least, better="lower",
            target=1.05 if judged else None, of="ratio"),
    ]  # fmt: skip


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Measure all sizes (quick: the smallest and the judged one, one seed)."""
    sizes, seeds = ((SIZES[0], SIZES[-1]), (1,)) if quick else (SIZES, range(1, SEEDS + 1))
    notes = [shapes()[1], requests(models=False)[1] + ", any GPU model"]
    notes.append(f"seeds: {len(seeds)} (medians); no agents at the start; bound: dual of the aggregated LP")
    return [one for count in sizes for one in compare(count, seeds)], notes


if __name__ == "__main__":
    sys.exit(main("launch planning: ours, one instance a session, a proven bound", run))
