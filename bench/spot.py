"""Spot and on-demand under a deadline, on recorded availability: what a session costs, and whether it is in time.

A session needs 24 h of work on one machine and takes a checkpoint every 5 min; its deadline is that and some slack. The
traces say, every few minutes, whether the zone's spot machines of that type could be had or kept. A changeover
takes 6 min, which is paid. Spot costs 0.3 of on-demand (V100, us-east-1). Costs are over those of an on-demand run.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

from autoscaler.spot import Pace, Paid, choose
from bench.rows import DATA, Row, main, row

HOUR = 3600.0
WORK_S = 24 * HOUR
CHANGEOVER_S = 360.0
CHECKPOINT_S = 300.0
SPOT_PRICE = 0.3
SLACKS = (0.1, 0.25, 0.5, 1.0)
APART_S = 36 * HOUR
"""Between the starts that are tried on one trace."""

Policy = Callable[[Pace, float, Paid, bool], Paid]


@dataclass(frozen=True)
class Trace:
    """Whether spot could be had, for every `step_s`."""

    name: str
    step_s: float
    has: tuple[bool, ...]


@dataclass(frozen=True)
class Result:
    """What a run cost over an on-demand run, and whether it was late."""

    cost: float
    late: bool


def ours(pace: Pace, now: float, on: Paid, spot: bool) -> Paid:
    """Uniform progress along a line that begins late."""
    return choose(pace, now, on=on, spot=spot)


class Published(Pace):
    """Uniform progress as published: along a line that begins with the session."""

    def ahead(self, now: float, margin_s: float = 0.0) -> bool:
        """Say whether it is as far as the line will be in `margin_s`."""
        share = (now + margin_s - self.since) / (self.due_at - self.since)
        return self.work_s - self.left_s >= self.work_s * min(1.0, share)


def published(pace: Pace, now: float, on: Paid, spot: bool) -> Paid:
    """Uniform progress as published."""
    return choose(Published(**asdict(pace)), now, on=on, spot=spot)


def greedy(pace: Pace, now: float, on: Paid, spot: bool) -> Paid:
    """Spot or nothing until there is only time for on-demand left, then that to the end."""
    if on is Paid.ON_DEMAND or not ((on is Paid.SPOT and spot) or pace.may_risk(now)):
        return Paid.ON_DEMAND
    return Paid.SPOT if spot else Paid.NOT


def fallback_only(_pace: Pace, _now: float, on: Paid, spot: bool) -> Paid:
    """Spot where there is some, else on-demand at once, and to the end: what happens without looking at deadlines."""
    return Paid.ON_DEMAND if on is Paid.ON_DEMAND or not spot else Paid.SPOT


def spot_only(_pace: Pace, _now: float, _on: Paid, spot: bool) -> Paid:
    """Never on-demand."""
    return Paid.SPOT if spot else Paid.NOT


def on_demand(_pace: Pace, _now: float, _on: Paid, _spot: bool) -> Paid:
    """Never spot."""
    return Paid.ON_DEMAND


def play(trace: Trace, first: int, slack: float, policy: Policy) -> Result:
    """Run one session from step `first` of a trace until it is done or the trace ends."""
    step, due = trace.step_s, WORK_S * (1 + slack)
    done = saved = paid = changing = now = 0.0
    on = Paid.NOT
    for has in trace.has[first:]:
        if on is Paid.SPOT and not has:
            done, on = saved, Paid.NOT
        pace = Pace(since=0.0, due_at=due, work_s=WORK_S, left_s=WORK_S - done,
                    changeover_s=CHANGEOVER_S + step, rework_s=CHECKPOINT_S)  # fmt: skip
        to = policy(pace, now, on, has)
        if to is not on:
            saved, changing, on = done, CHANGEOVER_S, to
        if on is not Paid.NOT:
            worked = max(0.0, step - changing)
            changing = max(0.0, changing - step)
            need = WORK_S - done
            spent = step if worked < need else step - worked + need
            paid += spent * (SPOT_PRICE if on is Paid.SPOT else 1.0)
            done += min(worked, need)
            saved = max(saved, done // CHECKPOINT_S * CHECKPOINT_S)
            if done >= WORK_S:
                return Result(paid / (WORK_S + CHANGEOVER_S), now + spent > due)
        now += step
    return Result(paid / (WORK_S + CHANGEOVER_S), True)


def traces() -> list[Trace]:
    """Return the recorded traces that are long enough for a session with the most slack."""
    found = []
    for path in sorted((DATA / "traces" / "spot").rglob("*.json")):
        story = json.loads(path.read_text(encoding="utf-8"))
        step = float(story["metadata"]["gap_seconds"])
        whole = max(story["data"])
        trace = Trace(_name(path), step, tuple(each >= whole > 0 for each in story["data"]))
        if len(trace.has) * step >= WORK_S * (1 + SLACKS[-1]) + APART_S:
            found.append(trace)
    return found


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def starts(trace: Trace) -> list[int]:
    """Return where sessions are started on a trace, such that there is room for the one with the most slack."""
    last = len(trace.has) - int(WORK_S * (1 + SLACKS[-1]) / trace.step_s) - 1
    return list(range(0, last, max(1, int(APART_S / trace.step_s))))


def compare(found: Sequence[Trace], slack: float, most: int) -> list[Row]:
    """Play all policies from all starts; late ones are in per cent of the runs."""
    runs = {
        policy: [play(trace, first, slack, policy) for trace in found for first in starts(trace)[:most]]
        for policy in (ours, greedy, published, fallback_only, on_demand, spot_only)
    }
    median_of = {policy: median(one.cost for one in results) for policy, results in runs.items()}
    mean_of = {policy: fmean(one.cost for one in results) for policy, results in runs.items()}
    late = {policy: 100 * fmean(one.late for one in results) for policy, results in runs.items()}
    name = f"slack {slack:g}, {len(runs[ours])} runs"
    rows = [
        row(f"{name}: {kind} cost over on-demand", "ratio", cost[ours], peer=_words(peer), theirs=cost[peer],
            better="lower", target=1.0 if peer in (greedy, on_demand) else None, of="ratio")
        for kind, cost in (("median", median_of), ("mean", mean_of))
        for peer in (greedy, published, fallback_only, on_demand)
    ]  # fmt: skip
    rows += [
        row(f"{name}: late", "%", late[ours], peer=_words(peer), theirs=late[peer], better="lower",
            target=0.0 if peer is greedy else None)
        for peer in (greedy, spot_only)
    ]  # fmt: skip
    return rows


def _words(policy: Policy) -> str:
    return policy.__name__.replace("_", " ")


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Play all slacks (quick: three starts a trace)."""
    found = traces()
    if not found:
        return [], ["no spot traces beside the checkout: nothing was measured"]
    most = 3 if quick else 1000
    note = f"{len(found)} traces of spot availability (skypilot-org/spot-traces), up to {most} starts each"
    return [one for slack in SLACKS for one in compare(found, slack, most)], [note]


if __name__ == "__main__":
    sys.exit(main("spot and on-demand under a deadline", run))
