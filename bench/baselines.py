"""Four ways to burst from owned nodes to a cloud, replayed fast: what the trace benchmark compares with.

All start a session on owned slots where it fits (the tightest fit), pay for a machine from the moment it is ordered,
wait `BOOT_S` for it, and know no run time beforehand. They differ in what they order and when they let go:

- `OneEach`: a machine of its own for each session that does not fit, ended with it.
- `Karpenter`: those that do not fit are collected for ten seconds and packed, the largest first, onto machines of up
  to eight GPUs; what runs there is not moved, and an empty machine is ended at once (`consolidateAfter: 0s`).
- `Ray`: every five seconds the machine that the waiting ones fill best, as often as its upscaling speed allows (at
  most as many more as there are, at least five); a machine is ended after five idle minutes.
- `Threshold`: machines of eight GPUs, so that at most a part `high` (four fifths) of all GPUs is in use; ended when
  empty and less than a part `low` (three fifths) is.

They are our own short models of these systems' documented behaviour, not the systems themselves.
"""

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

BOOT_S = 180.0
NODE = 8
SIZES = (1, 2, 4, 8)

Span = tuple[float, float]


@dataclass(slots=True, eq=False)
class Work:
    """A job of the trace: `gpus` on each of `nodes` members; where it runs, once it does."""

    at: float
    duration_s: float
    gpus: int
    nodes: int = 1
    ordered: bool = False
    owned: tuple[int, ...] = ()
    rented: tuple["Rented", ...] = ()
    started_at: float | None = None


@dataclass(slots=True, eq=False)
class Rented:
    """A cloud machine; paid for from `since` until it is ended."""

    number: int
    gpus: int
    since: float
    free: int
    ready: bool = False
    busy: int = 0
    idle_since: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a replay came to: `paid` has GPUs, begin and end of each machine, `waits` time of submission and wait."""

    paid: tuple[tuple[int, float, float], ...]
    waits: tuple[tuple[float, float], ...]

    def gpu_hours(self, within: Span) -> float:
        """Return the GPU hours paid for in a span of time."""
        return sum(gpus * overlap((since, until), within) for gpus, since, until in self.paid) / 3600

    def wait(self, part: float, within: Span) -> float:
        """Return the wait that `part` of those submitted in a span did not exceed (nearest rank)."""
        waits = sorted(wait for at, wait in self.waits if within[0] <= at < within[1])
        return waits[min(len(waits) - 1, max(0, math.ceil(part * len(waits)) - 1))] if waits else 0.0

    def mean_wait(self, within: Span) -> float:
        """Return the mean wait of those submitted in a span."""
        waits = [wait for at, wait in self.waits if within[0] <= at < within[1]]
        return sum(waits) / len(waits) if waits else 0.0


def overlap(one: Span, other: Span) -> float:
    """Return how long two spans of time have in common."""
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def fluid(work: Sequence[Work], owned: int, within: Span) -> float:
    """Return the GPU hours over `owned` GPUs that a start of everything at once, in any parts, would pay for."""
    events = sorted(
        event
        for one in work
        for event in ((one.at, one.gpus * one.nodes), (one.at + one.duration_s, -one.gpus * one.nodes))
    )
    running, last, sum_ = 0, within[0], 0.0
    for at, change in events:
        sum_ += max(0, running - owned) * overlap((last, at), within)
        running += change
        last = at
    return sum_ / 3600


@dataclass(slots=True)
class Baseline(ABC):
    """A replay on `owned` GPUs in nodes of eight, until `until`; subclasses say what is ordered and let go."""

    work: Sequence[Work]
    owned: int
    until: float
    now: float = 0.0
    waiting: list[Work] = field(default_factory=list)
    machines: dict[int, Rented] = field(default_factory=dict)
    nodes: list[int] = field(default_factory=list)
    _events: list[tuple[float, int, object]] = field(default_factory=list)
    _count: int = 0
    _paid: list[tuple[int, float, float]] = field(default_factory=list)
    _waits: list[tuple[float, float]] = field(default_factory=list)

    @abstractmethod
    def decide(self) -> None:
        """Place, order and end machines, as things are now."""

    def run(self) -> Result:
        """Replay everything."""
        self.nodes = [NODE] * (self.owned // NODE)
        for one in sorted(self.work, key=lambda one: one.at):
            self._push(one.at, one)
        while self._events and self._events[0][0] < self.until:
            self.now, _, what = heapq.heappop(self._events)
            self._happen(what)
            if not self._events or self._events[0][0] > self.now:
                self.decide()
        for machine in list(self.machines.values()):
            self._paid.append((machine.gpus, machine.since, self.until))
        self._waits += [(one.at, self.until - one.at) for one in self.waiting]
        return Result(tuple(self._paid), tuple(self._waits))

    def look_at(self, when: float) -> None:
        """Decide again then."""
        self._push(when, None)

    def order(self, gpus: int) -> Rented:
        """Order a machine."""
        self._count += 1
        machine = self.machines[self._count] = Rented(self._count, gpus, self.now, gpus)
        self._push(self.now + BOOT_S, machine)
        return machine

    def end(self, machine: Rented) -> None:
        """End a machine."""
        del self.machines[machine.number]
        self._paid.append((machine.gpus, machine.since, self.now))

    def start_owned(self, one: Work) -> bool:
        """Start a session on owned nodes, the tightest fits, if it fits."""
        fits = sorted((free, node) for node, free in enumerate(self.nodes) if free >= one.gpus)[: one.nodes]
        if len(fits) < one.nodes:
            return False
        one.owned = tuple(node for _, node in fits)
        for node in one.owned:
            self.nodes[node] -= one.gpus
        self._begin(one)
        return True

    def start_rented(self, one: Work, machines: Sequence[Rented] = ()) -> bool:
        """Start a session on these machines, or on the tightest fits of those that are there, if it fits."""
        if not machines:
            able = [m for m in self.machines.values() if m.ready and m.free >= one.gpus]
            machines = sorted(able, key=lambda m: (m.free, m.number))[: one.nodes]
        if len(machines) < one.nodes:
            return False
        one.rented = tuple(machines)
        for machine in machines:
            machine.free -= one.gpus
            machine.busy += 1
        self._begin(one)
        return True

    def place(self) -> None:
        """Start what fits anywhere, in the order of arrival."""
        self.waiting = [one for one in self.waiting if not (self.start_owned(one) or self.start_rented(one))]

    def end_idle(self, idle_s: float = 0.0) -> None:
        """End machines that were empty for this long."""
        for machine in [m for m in self.machines.values() if m.ready and not m.busy]:
            if self.now >= machine.idle_since + idle_s:
                self.end(machine)
            else:
                self.look_at(machine.idle_since + idle_s)

    def _push(self, at: float, what: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, what))

    def _begin(self, one: Work) -> None:
        one.started_at = self.now
        self._waits.append((one.at, self.now - one.at))
        self._push(self.now + one.duration_s, one)

    def _happen(self, what: object) -> None:
        if isinstance(what, Rented):
            what.ready, what.idle_since = True, self.now
        elif isinstance(what, Work) and what.started_at is None:
            self.waiting.append(what)
        elif isinstance(what, Work):
            for node in what.owned:
                self.nodes[node] += what.gpus
            for machine in what.rented:
                machine.free += what.gpus
                machine.busy -= 1
                machine.idle_since = self.now


class OneEach(Baseline):
    """A machine of its own for each session that does not fit."""

    def decide(self) -> None:
        """Order for each, and let each have its own."""
        left = []
        for one in self.waiting:
            if not one.rented:
                if self.start_owned(one):
                    continue
                one.rented = tuple(self.order(one.gpus) for _ in range(one.nodes))
            elif all(machine.ready for machine in one.rented) and self.start_rented(one, one.rented):
                continue
            left.append(one)
        self.waiting = left
        self.end_idle()


class Karpenter(Baseline):
    """Waiting sessions packed onto large machines."""

    def decide(self) -> None:
        """Pack what has waited for a batch."""
        self.place()
        new = [one for one in self.waiting if not one.ordered]
        if new and self.now >= new[0].at + 10.0:
            self._pack()
        elif new:
            self.look_at(new[0].at + 10.0)
        self.end_idle()

    def _pack(self) -> None:
        booting = [machine.gpus for machine in self.machines.values() if not machine.ready]
        free = list(booting)
        for one in sorted(self.waiting, key=lambda one: -one.gpus):
            one.ordered = True
            for _ in range(one.nodes):
                fits = [(left, number) for number, left in enumerate(free) if left >= one.gpus]
                if fits:
                    free[min(fits)[1]] -= one.gpus
                else:
                    free.append(NODE - one.gpus)
        for left in free[len(booting) :]:
            self.order(next(size for size in SIZES if size >= NODE - left))


class Ray(Baseline):
    """The machines that the waiting sessions fill best, kept for five idle minutes."""

    def decide(self) -> None:
        """Scale every five seconds."""
        self.place()
        if self.waiting:
            if self.now % 5.0 == 0.0:
                self._scale()
            self.look_at(math.floor(self.now / 5.0) * 5.0 + 5.0)
        self.end_idle(300.0)

    def _scale(self) -> None:
        free = [machine.gpus for machine in self.machines.values() if not machine.ready]
        rest = []
        for gpus in sorted((one.gpus for one in self.waiting for _ in range(one.nodes)), reverse=True):
            fits = [(left, number) for number, left in enumerate(free) if left >= gpus]
            if fits:
                free[min(fits)[1]] -= gpus
            else:
                rest.append(gpus)
        booting = sum(not machine.ready for machine in self.machines.values())
        for _ in range(max(5, len(self.machines)) - booting):
            if not rest:
                break
            size, took = max(
                ((size, _filled(size, rest)) for size in SIZES), key=lambda pair: _score(pair[0], pair[1], rest)
            )
            self.order(size)
            rest = [gpus for number, gpus in enumerate(rest) if number not in took]


@dataclass(slots=True)
class Threshold(Baseline):
    """Large machines, so that some share of all GPUs stays free."""

    high: float = 0.8
    low: float = 0.6

    def decide(self) -> None:
        """Keep the use between two thresholds."""
        self.place()
        there = self.owned + sum(machine.gpus for machine in self.machines.values())
        used = self.owned - sum(self.nodes) + sum(machine.gpus - machine.free for machine in self.machines.values())
        used += sum(one.gpus * one.nodes for one in self.waiting)
        while used > self.high * there:
            there += self.order(NODE).gpus
        if self.waiting and all(machine.ready for machine in self.machines.values()):
            there += self.order(NODE).gpus
        for machine in sorted(self.machines.values(), key=lambda machine: -machine.number):
            idle = machine.ready and not machine.busy
            if idle and used < self.low * there and used <= self.high * (there - machine.gpus):
                self.end(machine)
                there -= machine.gpus


def _filled(size: int, rest: Sequence[int]) -> frozenset[int]:
    taken = set()
    for number, gpus in enumerate(rest):
        if gpus <= size:
            size -= gpus
            taken.add(number)
    return frozenset(taken)


def _score(size: int, took: frozenset[int], rest: Sequence[int]) -> tuple[float, int]:
    return sum(rest[number] for number in took) / size, len(took)


BASELINES: dict[str, type[Baseline]] = {
    "one VM a session": OneEach,
    "Karpenter-like": Karpenter,
    "Ray-like": Ray,
    "threshold": Threshold,
}
