"""B4: what bursting to a cloud costs on real traces, at what waits: ours with homecoming, and four other ways.

Jobs of Microsoft's Philly clusters run on owned nodes of eight GPUs with a cloud beside them: 1, 2, 4 or 8 GPUs a
machine at 3.06 USD per GPU and hour (the p3 family's price was the same for each GPU of any size), 180 s to boot,
billed by the second. Ours is the product: its router, planner and homecoming, in its simulator. Nobody knows run
times beforehand, all pay from order to end, and work lost by a move (60 s) is done again. Costs are over the fluid
bound: GPU hours over what is owned, if everything started at once and could be cut in any parts.

Threshold scaling trades idle machines for less waiting, as hot pools do with ours: both are run at several settings,
and ours is compared with what threshold scaling costs at the same p95 wait, between its settings on a straight line.

What homecoming does was chosen, and its settings were, on the early weeks; all rows are of the later ones. Which
sessions can take a checkpoint is drawn by chance: with half of them and the middle size five times (medians), else
once. The full run takes about half an hour on two cores.
"""

import argparse
import csv
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log
from pathlib import Path
from random import Random
from statistics import median

from atoll.group import Group, GroupKind, Pools, Size
from atoll.instance import Shape
from atoll.session import Checkpoint
from atoll.site import Site
from atoll.slots import GIB, Gpu, GpuRequest, Request, Slots
from bench import baselines, rows
from bench.baselines import BASELINES, NODE, SIZES, Result, Span, Threshold, Work, fluid
from bench.rows import DATA, Row, row
from federation.routing.rules import Rules
from federation.simulate.home import Home
from federation.simulate.model import Job, Machine, Options, Setup
from federation.simulate.run import simulate

TRACE = DATA / "traces" / "philly.csv"
PRICE = 3_060_000
"""Micro-units for a GPU and hour; it cancels out of every ratio."""
SEEDS = 5
CHECKPOINTABLE = (0.0, 0.2, 0.5, 1.0)
TARGETS = {0.5: 0.92, 1.0: 0.80}
HIGHS = (0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Parts of all GPUs in use above which threshold scaling grows; a fifth below, it shrinks."""
HOT = (2, 8, 24, 48)
"""Hot pools of ours, in GPUs."""


@dataclass(frozen=True, slots=True)
class Case:
    """A cluster's jobs, the sizes of what is owned, and its weeks: tuned on `early`, reported on `later`."""

    cluster: str
    owned: tuple[int, ...]
    early: Span
    later: Span


@dataclass(frozen=True, slots=True)
class Point:
    """One run of ours: the part of the sessions that can be moved, and the settings that trade cost for wait."""

    case: Case
    owned: int
    part: float
    seed: int = 1
    hot: int = 0
    patience_s: float = 0.0
    home: bool = True


def _day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _case(cluster: str, owned: tuple[int, ...], days: tuple[str, str, str]) -> Case:
    begin, split, end = (_day(day) for day in days)
    return Case(cluster, owned, (begin, split), (split, end))


CASES = (
    _case("6214e9", (96, 128, 192), ("2017-09-21", "2017-10-05", "2017-10-19")),
    _case("6c71a0", (48, 64, 96), ("2017-09-25", "2017-10-11", "2017-11-05")),
    _case("ee9e8c", (64, 128, 192), ("2017-09-25", "2017-10-11", "2017-11-05")),
)
QUICK = _case("6c71a0", (64,), ("2017-09-25", "2017-10-11", "2017-10-20"))


def read(cluster: str, until: float) -> list[Work]:
    """Return a cluster's jobs; more than eight GPUs are a gang of whole nodes' parts."""
    found = []
    with TRACE.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            at, gpus = _day(line["submitted_at"]), int(line["gpus"])
            if line["cluster"] == cluster and at < until:
                nodes = -(-gpus // NODE)
                found.append(Work(at, float(line["duration_s"]), -(-gpus // nodes), nodes))
    return sorted(found, key=lambda one: one.at)


def setup(owned: int, hot: int = 0) -> Setup:
    """Return `owned` GPUs in nodes of eight, and a cloud that has `hot` GPUs running empty."""

    def slots(gpus: int) -> Slots:
        return Slots(8000 * gpus, 64 * GIB * gpus, 0, (Gpu("V100", 1000 * gpus, 16 * GIB),))

    pools = Pools(hot=_asks(1), hot_count=hot)
    cloud = Group(
        name="cloud", site="cloud", kind=GroupKind.ELASTIC, provider="cloud", size=Size(max=100_000), pools=pools
    )
    return Setup(
        sites=(Site(name="hall"), Site(name="cloud")),
        groups=(Group(name="own", site="hall"), cloud),
        machines=tuple(
            Machine(id=f"node-{number:03d}", site="hall", group="own", capacity=slots(NODE))
            for number in range(owned // NODE)
        ),
        shapes={
            "cloud": tuple(
                Shape(provider="cloud", name=f"gpu-{gpus}", zone="a", slots=slots(gpus), price=PRICE * gpus,
                      start_s=baselines.BOOT_S)
                for gpus in SIZES
            )
        },
    )  # fmt: skip


def ours(work: Sequence[Work], point: Point, until: float) -> Result:
    """Replay through the product; time in the queue after a move counts as wait too."""
    chance = Random(point.seed)
    jobs = [
        Job(
            id=f"j-{number:06d}",
            at=one.at,
            duration_s=one.duration_s,
            request=_asks(one.gpus),
            nodes=one.nodes,
            checkpoint=Checkpoint() if chance.random() < point.part else None,
        )
        for number, one in enumerate(work)
    ]
    home = Home()
    outcome = simulate(
        jobs,
        setup(point.owned, point.hot),
        rules=Rules(patience_s=point.patience_s),
        options=Options(idle_s=0.0),
        home=home.bring if point.home else None,
        way=home.make_way if point.home else None,
    )
    return Result(
        paid=tuple((m.shape.slots.gpu_milli // 1000, m.launched_at, min(m.ended_at, until)) for m in outcome.machines),
        waits=tuple(
            (run.at, run.waited_s + run.stalled_s if run.started_at is not None else until - run.at)
            for run in outcome.runs
        ),
    )


def _asks(gpus: int) -> Request:
    return Request(1000 * gpus, 4 * GIB * gpus, 0, GpuRequest(1000 * gpus))


Measured = tuple[float, float, float, float]
"""Cost over the fluid bound, p95, p99 and mean wait (seconds), of the later weeks."""


def _measure(result: Result, within: Span, bound: float) -> Measured:
    p95, p99 = result.wait(0.95, within), result.wait(0.99, within)
    return result.gpu_hours(within) / bound, p95, p99, result.mean_wait(within)


def run_point(point: Point) -> Measured:
    """Replay one point of ours."""
    until, later = point.case.later[1], point.case.later
    work = read(point.case.cluster, until)
    return _measure(ours(work, point, until), later, fluid(work, point.owned, later))


def run_baselines(case: Case, owned: int) -> dict[str, Measured]:
    """Replay all baselines."""
    until = case.later[1]
    bound = fluid(read(case.cluster, until), owned, case.later)
    return {
        name: _measure(kind(read(case.cluster, until), owned, until).run(), case.later, bound)
        for name, kind in BASELINES.items()
    }


def run_threshold(case: Case, owned: int, high: float) -> Measured:
    """Replay threshold scaling at one setting."""
    until = case.later[1]
    bound = fluid(read(case.cluster, until), owned, case.later)
    result = Threshold(read(case.cluster, until), owned, until, high=high, low=high - 0.2).run()
    return _measure(result, case.later, bound)


def at_wait(curve: Sequence[Measured], wait_s: float) -> float | None:
    """Return what a way costs at a p95 wait, between its settings on a straight line; None below its shortest.

    A setting that costs more than one with no longer wait is left out; beyond the longest wait it costs what it does
    there.
    """
    best: list[tuple[float, float]] = []
    for cost, p95, _, _ in sorted(curve, key=lambda one: (one[1], one[0])):
        if not best or cost < best[-1][1]:
            best.append((p95, cost))
    below = [one for one in best if one[0] <= wait_s]
    if not below:
        return None
    (left, cost), above = below[-1], best[len(below) :]
    if not above:
        return cost
    right, less = above[0]
    return cost + (less - cost) * (wait_s - left) / (right - left)


def points(cases: Sequence[Case], quick: bool) -> list[Point]:
    """Return what of ours is run: every part for every size and seed, and the curve of the middle size."""
    parts = (0.5, 1.0) if quick else CHECKPOINTABLE
    found = []
    for case in cases:
        for owned in case.owned:
            for part in parts:
                often = part == 0.5 and owned == case.owned[1 % len(case.owned)] and not quick
                found += [Point(case, owned, part, seed) for seed in range(1, (SEEDS if often else 1) + 1)]
    for case in cases:
        middle = case.owned[1 % len(case.owned)]
        found += [Point(case, middle, 1.0, hot=hot) for hot in (HOT[1:2] if quick else HOT)]
        if not quick:
            found += [Point(case, middle, 1.0, patience_s=wait) for wait in (120.0, 600.0, 3600.0)]
    return found


def compare(cases: Sequence[Case], quick: bool) -> tuple[list[Row], list[str], dict[str, list[tuple[str, Measured]]]]:
    """Run everything, in as many processes as there are cores; return rows, notes, and the points of the plot."""
    asked = points(cases, quick)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        measured = dict(zip(asked, pool.map(run_point, asked), strict=True))
    found: list[Row] = []
    notes = []
    curves: dict[str, list[tuple[str, Measured]]] = {}
    for case in cases:
        for owned in case.owned:
            theirs = run_baselines(case, owned)
            curve = curves[f"{case.cluster}, {owned} owned GPUs"] = list(theirs.items())
            bars = [run_threshold(case, owned, high) for high in HIGHS]
            curve += [(f"threshold {high:g}", one) for high, one in zip(HIGHS, bars, strict=True)]
            found += _at_equal_wait(case, owned, measured, bars)
            for point, one in measured.items():
                if (point.case, point.owned) == (case, owned) and (point.part in (0.5, 1.0)) and point.seed == 1:
                    curve.append((f"ours, {point.part:.0%}", one))
            for part in sorted({point.part for point in asked}):
                alike = [m for p, m in measured.items() if (p.case, p.owned, p.part, p.hot, p.patience_s)
                         == (case, owned, part, 0, 0.0)]  # fmt: skip
                mid = tuple(median(column) for column in zip(*alike, strict=True))
                name = f"{case.cluster}, {owned} owned GPUs, {part:.0%} checkpointable"
                notes.append(f"{name}: ours {mid[0]:.3f} x fluid, wait p95 {mid[1]:.0f} s, p99 {mid[2]:.0f} s, "
                             f"mean {mid[3]:.0f} s")  # fmt: skip
                for peer, its in theirs.items():
                    equal = mid[1] <= its[1]
                    target = TARGETS.get(part) if peer == "one VM a session" else 1.0 if part else None
                    waits = "" if equal else f" (p95 wait {mid[1]:.0f} s, theirs {its[1]:.0f} s)"
                    found.append(row(f"{name}: cost{waits}", "x fluid bound", mid[0], peer=peer, theirs=its[0],
                                     better="lower", target=target if equal else None, of="ratio"))  # fmt: skip
    return found, notes, curves


def _at_equal_wait(case: Case, owned: int, measured: Mapping[Point, Measured], bars: Sequence[Measured]) -> list[Row]:
    """Return ours at each setting beside what threshold scaling costs at the same p95 wait."""
    found = []
    for point, (cost, p95, _, _) in measured.items():
        if (point.case, point.owned, point.seed, point.patience_s) != (case, owned, 1, 0.0) or point.part < 0.5:
            continue
        hot = f", hot pool of {point.hot}" if point.hot else ""
        name = f"{case.cluster}, {owned} owned GPUs, {point.part:.0%} checkpointable{hot}: cost at p95 {p95:.0f} s"
        theirs = at_wait(bars, p95)
        if theirs is not None:
            found.append(row(name, "x fluid bound", cost, peer="threshold, any setting", theirs=theirs,
                             better="lower", target=1.0, of="ratio"))  # fmt: skip
    return found


COLOURS = {
    "ours, 100%": "#c33", "ours, 50%": "#e80", "one VM a session": "#36c", "Karpenter-like": "#293", "Ray-like": "#849",
    "threshold": "#888",
}  # fmt: skip
"""How each way is drawn; those with settings (`threshold 0.8`) as one line."""
TICKS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def plot(curves: dict[str, list[tuple[str, Measured]]]) -> str:
    """Return an SVG with one panel a setting: cost (log scale) over p95 wait, the settings of one way joined."""
    width, height, rows_of = 340, 250, -(-len(curves) // 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * 3} {height * rows_of + 30}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for number, (title, curve) in enumerate(curves.items()):
        parts.append(f'<g transform="translate({number % 3 * width},{number // 3 * height})">')
        parts.append(f'<text x="44" y="16" font-weight="bold">{title}</text>{_panel(curve, width, height)}</g>')
    for number, (name, colour) in enumerate(COLOURS.items()):
        at = f'y="{height * rows_of + 16}" fill="{colour}"'
        parts.append(f'<text x="{44 + number * 160}" {at}>\u25cf {name}</text>')
    return "".join([*parts, "</svg>\n"])


def _panel(curve: Sequence[tuple[str, Measured]], width: int, height: int) -> str:
    edge, top = 44, 26
    longest = max(10.0, *(wait for _, (_, wait, _, _) in curve)) * 1.05
    dearest = max(1.3, *(cost for _, (cost, _, _, _) in curve)) * 1.05

    def x(wait: float) -> float:
        return edge + wait / longest * (width - edge - 16)

    def y(cost: float) -> float:
        return height - edge - log(max(1.0, cost)) / log(dearest) * (height - edge - top)

    parts = [f'<path d="M{edge},{top}V{height - edge}H{width - 12}" fill="none" stroke="#aaa"/>']
    for tick in (one for one in TICKS if one <= dearest):
        parts.append(f'<text x="{edge - 4}" y="{y(tick) + 3:.0f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<path d="M{edge},{y(tick):.1f}H{width - 12}" stroke="#eee"/>')
    parts += [
        f'<text x="{x(wait):.0f}" y="{height - edge + 14}" text-anchor="middle">{wait:.0f}</text>'
        for wait in (0.0, longest / 3, longest * 2 / 3, longest / 1.05)
    ]
    parts.append(f'<text x="{width // 2}" y="{height - edge + 28}" text-anchor="middle">p95 wait, s</text>')
    for way, colour in COLOURS.items():
        spots = sorted((x(wait), y(cost)) for name, (cost, wait, _, _) in curve if name.startswith(way))
        line = " ".join(f"{left:.1f},{up:.1f}" for left, up in spots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" opacity=".5"/>')
        parts += [f'<circle cx="{left:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>' for left, up in spots]
    return "".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `--quick`, `--json FILE` and `--plot FILE`, run, print; return the exit code."""
    asked = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--plot", type=Path)
    own, rest = parser.parse_known_args(asked)

    def run(quick: bool) -> tuple[list[Row], list[str]]:
        if not TRACE.exists():
            return [], [f"no trace at {TRACE}: nothing measured"]
        found, notes, curves = compare((QUICK,) if quick else CASES, quick)
        if own.plot:
            own.plot.write_text(plot(curves), encoding="utf-8")
        return found, notes

    return rows.main("cost of bursting on real traces; --plot FILE.svg draws cost over wait", run, rest)


if __name__ == "__main__":
    sys.exit(main())
