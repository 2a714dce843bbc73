"""Timelines: what each agent will have free and when, from the expected ends of what runs there."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import inf

from atoll.slots import Gpu, Slots
from atoll.value import value
from federation.routing.capacity import Capacity

OVERDUE_S = 60.0
"""A session that has outrun its estimate is expected to take at least this much longer."""


@value(kw_only=True)
class Running:
    """A session that occupies agents, as the queue pass sees it: `members` are pairs of agent and slots.

    `ends_at` is when it is expected to end, `started_at` since when it has run (Unix seconds, None: unknown);
    `price` is micro-units an hour for all members. `protected` ones are never preempted. One that is `leaving` was
    asked to stop or for a checkpoint already: its `ends_at` is when its grace ends, and it is no one's victim.
    """

    session: str
    members: tuple[tuple[str, Slots], ...]
    project: str = ""
    priority: int = 0
    preemptible: bool = False
    checkpoint: bool = False
    protected: bool = False
    leaving: bool = False
    ends_at: float | None = None
    started_at: float | None = None
    price: int = 0

    def elapsed(self, now: float) -> float:
        """Return how long it has run, 0 where that is unknown."""
        return max(0.0, now - self.started_at) if self.started_at is not None else 0.0

    def end(self, now: float) -> tuple[float, bool]:
        """Return when it is expected to end, and whether that is a guess.

        With no estimate, or past it, half as long again as it has run: run times are heavy-tailed, so what has run
        for long is likely to run for long still.
        """
        if self.ends_at is not None and self.ends_at > now:
            return self.ends_at, False
        return now + max(self.elapsed(now) / 2, OVERDUE_S), True


class Timeline:
    """What one agent has free from now on, in steps; what is free after the last step stays so.

    `guessed_from` is the first end that is a guess: what is free from then on is one too.
    """

    __slots__ = ("_at", "_dips", "_free", "guessed_from")

    def __init__(self, now: float, free: Slots, ends: Iterable[tuple[float, Slots]] = ()) -> None:
        """Begin with `free`, and add the slots of each of `ends` (in order of time) when it comes."""
        self._at = [now]
        self._free = [free]
        self._dips = False
        self.guessed_from = inf
        for at, slots in ends:
            if at > self._at[-1]:
                self._at.append(at)
                self._free.append(self._free[-1] + slots)
            else:
                self._free[-1] += slots

    def least(self, start: float, until: float) -> Slots:
        """Return what is free all the time from `start` to `until`."""
        first = max(0, bisect_right(self._at, start) - 1)
        free = self._free[first]
        if self._dips:
            for later in range(first + 1, bisect_left(self._at, until)):
                free = common(free, self._free[later])
        return free

    def hold(self, slots: Slots, start: float, until: float) -> None:
        """Take `slots` from `start` to `until`."""
        first, last = self._step(start), self._step(until)
        self._dips = self._dips or first > 0
        for at in range(first, last):
            self._free[at] -= slots

    def free(self, slots: Slots, start: float, until: float) -> None:
        """Add `slots` from `start` to `until`: what held them goes earlier than was expected."""
        first, last = self._step(start), self._step(until)
        for at in range(first, last):
            self._free[at] += slots

    def _step(self, at: float) -> int:
        """Return the number of the step that begins at `at`, made where there is none."""
        if at == inf:
            return len(self._at)
        place = bisect_left(self._at, at)
        if place < len(self._at) and self._at[place] == at:
            return place
        if place == 0:
            return 0
        self._at.insert(place, at)
        self._free.insert(place, self._free[place - 1])
        return place


Event = tuple[float, str]
"""A time, and an agent that has more free from then on."""


class Calendar:
    """The timelines of all agents, made when they are asked for, and the times at which slots fall free, in order."""

    def __init__(self, capacity: Capacity, running: Sequence[Running], now: float) -> None:
        self.now = now
        self.leaving_until = now
        self._capacity = capacity
        self._ends: dict[str, list[tuple[float, str, bool, Slots]]] = {}
        self._taken: dict[str, list[tuple[Slots, float]]] = {}
        self._lines: dict[str, Timeline] = {}
        for one in running:
            at, guessed = one.end(now)
            if one.leaving:
                self.leaving_until = max(self.leaving_until, at)
            for agent, slots in one.members:
                self._ends.setdefault(agent, []).append((at, one.session, guessed, slots))
        self.events: list[Event] = sorted({(end[0], agent) for agent, ends in self._ends.items() for end in ends})

    def of(self, agent: str) -> Timeline:
        """Return the timeline of an agent that the index has."""
        line = self._lines.get(agent)
        if line is None:
            line = self._lines[agent] = self._draw(agent)
        return line

    def since(self, at: float) -> Iterator[Event]:
        """Yield the times from `at` on at which agents have more free; nothing must be noted meanwhile."""
        return islice(self.events, bisect_left(self.events, (at, "")), None)

    def take(self, agent: str, slots: Slots, until: float) -> None:
        """Note a session that is placed now, and expected to end at `until`."""
        if (line := self._lines.get(agent)) is not None:
            line.hold(slots, self.now, until)
        else:
            self._taken.setdefault(agent, []).append((slots, until))
        self._note(until, agent)

    def hold(self, agent: str, slots: Slots, start: float, until: float) -> None:
        """Note slots that are kept for a session from `start` to `until`."""
        self.of(agent).hold(slots, start, until)
        self._note(until, agent)

    def free(self, agent: str, slots: Slots, start: float, until: float) -> None:
        """Note slots that are free from `start` on rather than from `until`."""
        self.of(agent).free(slots, start, until)
        self._note(start, agent)

    def _note(self, at: float, agent: str) -> None:
        event = (at, agent)
        place = bisect_left(self.events, event)
        if place == len(self.events) or self.events[place] != event:
            self.events.insert(place, event)

    def _draw(self, agent: str) -> Timeline:
        seat = self._capacity.seat(agent)
        ends = sorted(self._ends.get(agent, ()), key=lambda end: end[:2])
        line = Timeline(self.now, seat.free if seat else Slots(), ((at, slots) for at, _, _, slots in ends))
        line.guessed_from = min((at for at, _, guessed, _ in ends if guessed), default=inf)
        for slots, until in self._taken.pop(agent, ()):
            line.hold(slots, self.now, until)
        return line


def common(one: Slots, other: Slots) -> Slots:
    """Return the least of each kind of two amounts."""
    if not one.gpu and not other.gpu:
        gpus: tuple[Gpu, ...] = ()
    else:
        have = {gpu.model: gpu.milli for gpu in other.gpu}
        gpus = tuple(Gpu(gpu.model, min(gpu.milli, have.get(gpu.model, 0)), gpu.memory) for gpu in one.gpu)
    return Slots(min(one.cpu, other.cpu), min(one.memory, other.memory), min(one.disk, other.disk), gpus)
