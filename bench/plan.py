"""B2: what it takes and costs to launch for N waiting sessions: ours beside peers and a proven lower bound.

The bound is the one that each plan carries (`autoscaler.bound`): prices of each shape's cpu, memory and GPUs that add
up to the shape's price, at which no session is cheaper than it is worth. It knows which shapes can hold which sessions,
but not that sessions are whole, so that part of each gap is slack that no plan could remove.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

from atoll.group import Group, GroupKind, Size
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action
from atoll.slots import Request
from autoscaler.plan import plan
from autoscaler.view import GroupView
from bench.peers import ray
from bench.rows import Row, main, row
from bench.workload import requests, shapes

SIZES = (30, 100, 1000, 10_000)
SEEDS = 5
SOON_S = 0.4
"""When the search for something better ends, counted from the start of the plan: all of it takes half a second."""
LATE_S = 10.0
NAMES = {0.0: "greedy", SOON_S: f"within {SOON_S:g} s", LATE_S: f"within {LATE_S:g} s"}
Priced = tuple[float, float]
"""A price an hour in units, and the seconds of processor time that it took."""


def ours(demands: Sequence[Demand], able: Sequence[Shape], within_s: float) -> tuple[Priced, float]:
    """Return what the planner's launches cost, and the bound on it; the search goes on for so long (0: none)."""
    group = Group(name="aws", site="aws", kind=GroupKind.ELASTIC, provider="aws", size=Size(max=1_000_000))
    view = GroupView(group=group, shapes=tuple(able))
    began = time.process_time()

    def left() -> float:
        return began + within_s - time.process_time()

    made = plan([view], demands, plan_id="p-bench", generation=1, at=0.0, left=left if within_s else None)
    took = time.process_time() - began
    price = sum(step.shape.price or 0 for step in made.steps if step.action is Action.LAUNCH and step.shape)
    if len(made.awaits) != len(demands) or made.quote is None or made.quote.price != price:
        raise AssertionError("the plan left sessions out, or its quote is wrong")
    return (price / 1e6, took), made.quote.bound / 1e6


def one_each(asks: Sequence[Request], able: Sequence[Shape]) -> Priced:
    """Return what the cheapest capable instance for each session alone costs."""
    began = time.process_time()
    by_price = sorted(able, key=lambda shape: shape.price or 0)
    known: dict[Request, int] = {}
    for ask in asks:
        if ask not in known:
            known[ask] = next(s.price or 0 for s in by_price if s.slots.take(ask) is not None)
    return sum(known[ask] for ask in asks) / 1e6, time.process_time() - began


def peers(count: int) -> dict[str, Callable[[Sequence[Request], Sequence[Shape]], Priced]]:
    """Return whom to compare with at this size."""
    found: dict[str, Callable[[Sequence[Request], Sequence[Shape]], Priced]] = {"one instance each": one_each}
    if ray.version() and count <= ray.MOST:
        found |= {"Ray v1": ray.launch_v1, "Ray v2": ray.launch_v2}
    return found


def compare(count: int, seeds: Sequence[int], budgets: Sequence[float]) -> list[Row]:
    """Run all contenders on the same sessions; return medians as rows. The targets are those of 10,000 sessions."""
    able, asks = shapes()[0], requests(models=False)[0]
    asks = [ask for ask in asks if any(shape.slots.take(ask) is not None for shape in able)]
    mine: dict[float, list[tuple[float, float, float]]] = {budget: [] for budget in budgets}
    theirs: dict[str, list[Priced]] = {name: [] for name in peers(count)}
    for seed in seeds:
        chance = random.Random(seed * 104_729 + count)
        drawn = [chance.choice(asks) for _ in range(count)]
        demands = [Demand(session=f"s-{n}", request=ask) for n, ask in enumerate(drawn)]
        for budget in budgets:
            (price, took), bound = ours(demands, able, budget)
            mine[budget].append((price, took, bound))
        for name, peer in peers(count).items():
            if peer is one_each or count <= ray.QUICK or seed == seeds[0]:
                theirs[name].append(peer(drawn, able))
    return [*_ours_rows(count, mine), *_peer_rows(count, mine[SOON_S], theirs)]


def _ours_rows(count: int, mine: dict[float, list[tuple[float, float, float]]]) -> list[Row]:
    judged = count == SIZES[-1]
    most = {SOON_S: 1.05, LATE_S: 1.02}
    rows = []
    for budget, runs in mine.items():
        name = f"plan {count} sessions, {NAMES[budget]}"
        at = sorted(runs, key=lambda run: run[0] / run[2])[len(runs) // 2]
        if budget < LATE_S:
            took = median(run[1] for run in runs)
            rows.append(row(f"{name}: time", "s", took, better="lower", target=0.5 if judged and budget else None))
        rows.append(
            row(f"{name}: price over bound", "USD/h", at[0], peer="proven lower bound", theirs=at[2], better="lower",
                target=most.get(budget) if judged else None, of="ratio")
        )  # fmt: skip
    return rows


def _peer_rows(count: int, mine: Sequence[tuple[float, float, float]], theirs: dict[str, list[Priced]]) -> list[Row]:
    rows, name = [], f"plan {count} sessions, {NAMES[SOON_S]}"
    price, took = median(run[0] for run in mine), median(run[1] for run in mine)
    for peer, runs in theirs.items():
        dear, slow = median(run[0] for run in runs), median(run[1] for run in runs)
        rows.append(
            row(f"{name}: price", "USD/h", price, peer=peer, theirs=dear, better="lower", target=1.0, of="ratio")
        )
        rows.append(row(f"{name}: time", "s", took, peer=peer, theirs=slow, better="lower"))
    return rows


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Measure all sizes (quick: the smallest and the judged one, one seed; Ray at the smallest only)."""
    sizes, seeds = ((SIZES[0], SIZES[-1]), (1,)) if quick else (SIZES, range(1, SEEDS + 1))
    installed = ray.version()
    notes = [
        shapes()[1],
        requests(models=False)[1] + ", any GPU model",
        f"seeds: {len(seeds)} (medians); no agents at the start; seconds are processor time",
        f"Ray {installed}: up to {ray.MOST} sessions, over {ray.QUICK} one seed only; it ignores prices"
        if installed
        else "Ray: not installed, left out",
    ]
    rows = []
    for count in sizes:
        late = [LATE_S] if not quick or count == SIZES[-1] else []
        rows += compare(count, seeds, [0.0, SOON_S, *late])
    return rows, notes


if __name__ == "__main__":
    sys.exit(main("launch planning: ours, one instance a session, Ray, a proven bound", run))
