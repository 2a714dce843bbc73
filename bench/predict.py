"""Whether a hot pool sized by history pays: no hot pool, a fixed one, one by the group's own history, on real arrivals.

Each trace is one elastic group whose sessions take a machine each (1 GPU at 1 USD/h, 180 s to start). A session takes a
ready machine, else waits for one that is starting, else has one launched. A machine that falls free is kept if the
hot pool has room for it, else ended. Running costs the same whoever decides; what is compared is the rest: money for
starting and for standing ready, and the worth of waiting. The fixed size is the best for the early weeks (before
2017-10-02; the first half of openb), all are reported for the later ones.
"""

import csv
import heapq
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from atoll.money import HOUR
from atoll.offer import WAIT_VALUE
from autoscaler.predict import Arrivals, Habits, Ready, ready_slots
from bench.rows import DATA, Row, main, row

PRICE = 1_000_000
START_S = 180.0
CLUSTERS = ("6214e9", "6c71a0", "11cb48", "b436b2")
SIZES = range(6)
WAIT_VALUES = (WAIT_VALUE, 10 * WAIT_VALUE, 100 * WAIT_VALUE)
"""Micro-units a second: our plain value (0.036 USD/h), 0.36 and 3.6 USD/h."""

Level = Callable[[float], Ready]
Job = tuple[float, float]


@dataclass(frozen=True)
class Story:
    """Sessions of one size as (arrival, duration), and the moment from which they are reported."""

    name: str
    jobs: tuple[Job, ...]
    split: float


@dataclass
class Tally:
    """What was spent beside running, from `since` on."""

    since: float
    wait_value: float
    ready_s: float = 0.0
    starting_s: float = 0.0
    waited_s: float = 0.0
    sessions: int = 0

    @property
    def total(self) -> float:
        """USD: standing ready, starting, and the worth of waiting."""
        return (PRICE / HOUR * (self.ready_s + self.starting_s) + self.wait_value * self.waited_s) / 1e6

    @property
    def mean_wait_s(self) -> float:
        """Seconds a session waited."""
        return self.waited_s / max(1, self.sessions)


@dataclass
class Pool:
    """One group's machines that run no session: `ready` since when, `starting` (ready at) for nobody yet."""

    tally: Tally
    ready: list[float] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)

    def settle(self, now: float) -> None:
        """Let machines that have started by now stand ready."""
        while self.starting and self.starting[0] <= now:
            self.ready.append(heapq.heappop(self.starting))

    def adjust(self, now: float, level: Ready) -> None:
        """Launch or end machines so that as many stand ready or start as `level` says."""
        while len(self.ready) + len(self.starting) < level.ahead:
            heapq.heappush(self.starting, now + START_S)
            self._count("starting_s", now, START_S)
        while self.ready and len(self.ready) + len(self.starting) > level.keep:
            self._ended(self.ready.pop(), now)

    def take(self, now: float) -> float:
        """Give a session its machine; return how long it waits for it."""
        waits = 0.0
        if self.ready:
            self._ended(self.ready.pop(), now)
        elif self.starting:
            waits = heapq.heappop(self.starting) - now
        else:
            waits = START_S
            self._count("starting_s", now, START_S)
        self._count("waited_s", now, waits)
        self._count("sessions", now, 1)
        return waits

    def _ended(self, since: float, now: float) -> None:
        begun = max(since, self.tally.since)
        self._count("ready_s", now, max(0.0, now - begun))

    def _count(self, what: str, now: float, amount: float) -> None:
        if now >= self.tally.since:
            setattr(self.tally, what, getattr(self.tally, what) + amount)


def play(story: Story, level: Level, wait_value: float, *, early: bool = False) -> Tally:
    """Run a story under a hot pool's size; `early` tallies the weeks before the split instead of those after."""
    tally = Tally(0.0 if early else story.split, wait_value)
    pool, ends = Pool(tally), list[float]()
    now = tick = story.jobs[0][0]
    for at, duration in story.jobs:
        if early and at >= story.split:
            break
        while (now := min(ends[0] if ends else at, tick, at)) < at:
            pool.settle(now)
            if now == tick:
                tick += START_S
            else:
                pool.ready.append(heapq.heappop(ends))
            pool.adjust(now, level(now))
        pool.settle(at)
        pool.adjust(at, level(at))
        heapq.heappush(ends, at + pool.take(at) + duration)
        pool.adjust(at, level(at))
    pool.adjust(now, Ready())
    return tally


class Predicted:
    """The hot pool's size by the arrivals seen so far, looked up once a stretch."""

    def __init__(self, story: Story, wait_value: float) -> None:
        self._habits = Habits(step_s=START_S)
        self._arrivals = Arrivals(self._habits)
        self._jobs = story.jobs
        self._next = 0
        self._wait_value = wait_value
        self._stretch, self._level = -1, Ready()

    def __call__(self, now: float) -> Ready:
        """Return the size at `now`, from arrivals before this stretch."""
        stretch = int(now // self._habits.step_s)
        if stretch != self._stretch:
            while self._next < len(self._jobs) and self._jobs[self._next][0] < stretch * self._habits.step_s:
                self._arrivals.note(self._jobs[self._next][0])
                self._next += 1
            samples = self._arrivals.samples(now, START_S)
            self._stretch, self._level = stretch, ready_slots(samples, PRICE, wait_value=self._wait_value)
        return self._level


def stories() -> list[Story]:
    """Return the sessions of one GPU of the largest Philly clusters, and of openb."""
    found: dict[str, list[Job]] = {name: [] for name in CLUSTERS}
    philly, openb = DATA / "traces" / "philly.csv", DATA / "traces" / "openb_pods_gpuspec33.csv"
    if not philly.exists() or not openb.exists():
        return []
    with philly.open(newline="", encoding="utf-8") as lines:
        for line in csv.DictReader(lines):
            if line["cluster"] in found and line["gpus"] == "1":
                at = datetime.fromisoformat(line["submitted_at"]).replace(tzinfo=UTC).timestamp()
                found[line["cluster"]].append((at, float(line["duration_s"])))
    split = datetime(2017, 10, 2, tzinfo=UTC).timestamp()
    result = [Story(f"Philly {name}", tuple(sorted(jobs)), split) for name, jobs in found.items()]
    with openb.open(newline="", encoding="utf-8") as lines:
        pods = sorted(
            (float(pod["creation_time"]), float(pod["deletion_time"]) - float(pod["creation_time"]))
            for pod in csv.DictReader(lines)
            if pod["num_gpu"] == "1"
        )
    return [*result, Story("openb", tuple(pods), pods[len(pods) // 2][0])]


def compare(story: Story, wait_value: float) -> list[Row]:
    """Play one story with no hot pool, the best fixed one, and the predicted one."""
    best = min(SIZES, key=lambda size: (play(story, lambda _: Ready(size, size), wait_value, early=True).total, size))
    none = play(story, lambda _: Ready(), wait_value)
    fixed = play(story, lambda _: Ready(best, best), wait_value)
    ours = play(story, Predicted(story, wait_value), wait_value)
    name = f"{story.name}, waiting at {wait_value * HOUR / 1e6:g} USD/h"
    return [
        row(f"{name}: cost beside running", "USD", ours.total, peer="no hot pool", theirs=none.total, better="lower",
            target=1.0, of="ratio"),
        row(f"{name}: cost beside running", "USD", ours.total, peer=f"fixed hot pool of {best}", theirs=fixed.total,
            better="lower"),
        row(f"{name}: mean wait", "s", ours.mean_wait_s, peer="no hot pool", theirs=none.mean_wait_s, better="lower"),
    ]  # fmt: skip


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Play all stories at all worths of waiting (quick: the largest cluster and openb)."""
    found: Sequence[Story] = stories()
    if not found:
        return [], ["no traces beside the checkout: nothing was measured"]
    chosen = [found[0], found[-1]] if quick else found
    note = "sessions of 1 GPU: " + ", ".join(f"{one.name} {len(one.jobs)}" for one in chosen)
    return [one for story in chosen for value in WAIT_VALUES for one in compare(story, value)], [note]


if __name__ == "__main__":
    sys.exit(main("hot pools: none, fixed, predicted from history", run))
