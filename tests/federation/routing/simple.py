"""The queue pass written directly, and a small cluster in virtual time that is run by the real one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from atoll import money
from atoll.offer import Decision, Demand, Offer, OfferKind, Outcome
from atoll.slots import Slots, total
from federation.routing.capacity import Capacity, Launchable, Seat
from federation.routing.rules import PLAIN, Rules
from federation.routing.schedule import schedule
from federation.routing.timeline import Running


def index(*seats: Seat, launch: Iterable[Launchable] = (), regions: dict[str, str] | None = None) -> Capacity:
    capacity = Capacity()
    for site, region in (regions or {}).items():
        capacity.set_site(site, region=region)
    for one in seats:
        capacity.put_seat(one)
    found = list(launch)
    for group in sorted({one.group for one in found}):
        capacity.set_launchables(group, [one for one in found if one.group == group])
    return capacity


@dataclass
class Book:
    """Who holds how many cores (milli) of which agent from when until when: looked through as it is written."""

    capacity: dict[str, int]
    held: list[tuple[str, int, float, float]] = field(default_factory=list)

    def free(self, agent: str, at: float) -> int:
        return self.capacity[agent] - sum(cpu for on, cpu, start, end in self.held if on == agent and start <= at < end)

    def fits(self, agent: str, cpu: int, start: float, lasts: float) -> bool:
        times = [start, *(begin for on, _, begin, _ in self.held if on == agent and start < begin < start + lasts)]
        return all(self.free(agent, at) >= cpu for at in times)

    def ways(self, seats: Sequence[Seat], demand: Demand, now: float, wait_value: int) -> list[tuple[int, float]]:
        """Cost and start of every way to run a session here, for all times at which anything ends."""
        cpu, lasts = demand.request.cpu, demand.expected_s
        ways = []
        for seat in seats:
            price = round(cpu / seat.capacity.cpu * seat.price) if cpu <= seat.capacity.cpu else 0
            for at in {now, *(end for on, _, _, end in self.held if on == seat.agent and end > now)}:
                if self.fits(seat.agent, cpu, at, lasts):
                    ways.append((money.cost(price, lasts) + round((at - now) * wait_value), at))
        return ways


def order(demands: Sequence[Demand], shares: dict[str, float], whole: Slots) -> Callable[[dict[str, Slots]], Demand]:
    """Return the rule for who is next, given what each project holds."""

    def first(held: dict[str, Slots]) -> Demand:
        def key(one: Demand) -> tuple[float, float, float, str]:
            got = held.get(one.project, Slots())
            share = max(got.cpu / whole.cpu, got.memory / whole.memory) / shares.get(one.project, 1.0)
            return (-one.priority, share, one.queued_at, one.session)

        return min(demands, key=key)

    return first


@dataclass(frozen=True)
class Job:
    """A session that arrives `at` a time and runs for exactly `demand.expected_s`, unless it `really` takes longer."""

    at: float
    demand: Demand
    really: float | None = None


@dataclass
class Cluster:
    """Agents in virtual time: at every arrival and end the real queue pass decides, and placements are carried out."""

    seats: Sequence[Seat]
    rules: Rules = PLAIN
    now: float = 0.0
    running: list[tuple[float, Running, Demand]] = field(default_factory=list)
    waiting: list[Demand] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    headed: dict[str, list[float]] = field(default_factory=dict)
    """What was promised to each session while it was the first in the queue."""

    def run(self, jobs: Sequence[Job], *, until: float = 1e9) -> None:
        coming = sorted(jobs, key=lambda job: (job.at, job.demand.session))
        really = {job.demand.session: job.really or job.demand.expected_s for job in jobs}
        while (coming or self.running) and self.now < until:
            self.now = min([job.at for job in coming[:1]] + [end for end, _, _ in self.running])
            self.running = [one for one in self.running if one[0] > self.now]
            while coming and coming[0].at <= self.now:
                job = coming.pop(0)
                self.waiting.append(replace(job.demand, queued_at=job.at))
            self._decide(really)

    def free(self, seat: Seat) -> Slots:
        return seat.capacity - total(
            slots for _, one, _ in self.running for agent, slots in one.members if agent == seat.agent
        )

    def _decide(self, really: dict[str, float]) -> None:
        capacity = index(*(replace(seat, free=self.free(seat)) for seat in self.seats))
        decisions = schedule(
            self.waiting, capacity, now=self.now, rules=self.rules, running=[one for _, one, _ in self.running]
        )
        head = min(self.waiting, key=lambda one: (one.queued_at, one.session), default=None)
        for demand, decision in list(zip(self.waiting, decisions, strict=True)):
            if decision.outcome is Outcome.PLACE:
                self._start(demand, decision.taken, really[demand.session])
            elif demand is head:
                self.headed.setdefault(demand.session, []).append(self.now + waits(decision)[0].start_s)
        for seat in self.seats:
            assert self.free(seat).covers(Slots()), "overcommitted"

    def _start(self, demand: Demand, offers: Sequence[Offer], lasts: float) -> None:
        self.waiting.remove(demand)
        self.started[demand.session] = self.now
        one = Running(
            session=demand.session,
            project=demand.project,
            members=tuple((offer.target, offer.slots) for offer in offers),
            priority=demand.priority,
            ends_at=self.now + demand.expected_s,
            started_at=self.now,
        )
        self.running.append((self.now + lasts, one, demand))


def waits(decision: Decision) -> list[Offer]:
    """The slots that a decision says will fall free for the session."""
    return [offer for offer in decision.ranked if offer.kind is OfferKind.WAIT]
