"""What is moved about in a replay: tasks, the places they run on, and the launched machines behind some of these."""

import math
from dataclasses import dataclass, field, replace

from atoll import money
from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.slots import Request, Slots
from atoll.states import AgentState
from autoscaler.spot import Pace
from autoscaler.view import AgentView, RunningView
from federation.control.deadlines import NOTICED_S
from federation.routing.timeline import Running
from federation.simulate.model import Job, Options


@dataclass(slots=True, eq=False)
class Task:
    """A job under way. `left_s` is the work it still has to do at the beginning of its current attempt."""

    job: Job
    demand: Demand
    left_s: float
    attempt: int = 0
    members: tuple["Member", ...] = ()
    target: tuple["Member", ...] = ()
    leaving: bool = False
    began: float = 0.0
    queued_at: float = 0.0
    first_start: float | None = None
    stalled_s: float = 0.0
    lost_s: float = 0.0
    interruptions: int = 0
    moves: int = 0
    moved_at: float | None = None
    ended_at: float | None = None
    spent: int = 0
    sites: list[str] = field(default_factory=list)
    reason: str = ""

    known: Running | None = None

    @property
    def price(self) -> int:
        """What its members' slots cost an hour, in micro-units."""
        return sum(member.price for member in self.members)

    @property
    def waits(self) -> bool:
        """Whether it waits to be started: it neither runs, nor has ended, nor was given up."""
        return not self.members and self.ended_at is None and not self.reason

    def protected(self, now: float) -> bool:
        """Say whether what runs must not be disturbed: its job says so, or it has run for long enough."""
        after = self.job.protect_after_s
        return self.job.protect or (after is not None and now - self.began >= after)

    def running(self, now: float) -> Running:
        """Return it as the queue pass sees what runs; mostly the same value until it goes elsewhere."""
        if self.known is None or self.known.protected is not self.protected(now):
            expected = self.demand.expected_s - (self.job.duration_s - self.left_s)
            self.known = Running(
                session=self.job.id,
                members=tuple((member.place.id, member.slots) for member in (*self.members, *self.target)),
                project=self.job.project,
                priority=self.job.priority,
                preemptible=self.job.preemptible,
                checkpoint=self.job.checkpoint is not None,
                protected=self.protected(now),
                leaving=bool(self.target) or self.leaving,
                ends_at=self.began + expected if expected > 0 else None,
                started_at=self.began,
                price=self.price,
            )
        return self.known

    def view(self, now: float, start_s: float) -> RunningView:
        """Return it as the planner sees what may be moved; another machine for it takes `start_s` to start."""
        ran = now - self.began
        expected = self.demand.expected_s - (self.job.duration_s - self.left_s)
        since = now - max(self.began, self.moved_at or self.began)
        return RunningView(
            session=self.job.id,
            attempt=self.attempt,
            demand=self.demand,
            ran_s=since,
            left_s=max(expected - ran, ran / 2),
            checkpoint=self.job.checkpoint,
            protected=self.protected(now),
            moving=bool(self.target) or self.leaving,
            pace=self.pace(now, start_s),
        )

    def pace(self, now: float, start_s: float) -> Pace | None:
        """Return how far one with a deadline has come, as `federation.control.deadlines.pace` does; None for others."""
        job = self.job
        if job.deadline_s is None:
            return None
        ran = max(0.0, now - self.began) if self.members else 0.0
        left_s = max(0.0, self.demand.expected_s - (job.duration_s - self.left_s) - ran)
        return Pace(
            since=job.at,
            due_at=job.at + job.deadline_s,
            work_s=self.demand.expected_s,
            left_s=left_s,
            changeover_s=start_s + NOTICED_S,
            rework_s=job.checkpoint.lost if job.checkpoint else left_s,
            movable=job.checkpoint is not None and job.nodes == 1,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One member of a task: the place it is on, the slots it holds there, and their price an hour."""

    place: "Place"
    slots: Slots
    price: int


@dataclass(slots=True, eq=False)
class Place:
    """An agent. `holding` has what each session (by id) holds of it; `machine` is the launch behind it, if any."""

    id: str
    site: str
    group: str
    capacity: Slots
    price: int
    shape: Shape
    machine: "Launched | None" = None
    driver: tuple[int, ...] = ()
    free: Slots = Slots()
    holding: dict[str, Slots] = field(default_factory=dict)
    state: AgentState = AgentState.READY
    epoch: int = 1
    cordon_epoch: int = 0
    acknowledged_epoch: int = 0
    idle_since: float = 0.0
    tasks: dict[str, Task] = field(default_factory=dict)
    seen: AgentView | None = None


@dataclass(slots=True, eq=False)
class Launched:
    """A launched machine: `since` is when it began to cost, `paid` what its earlier times came to.

    One that is `refused` will never be there, which is not yet known.
    """

    id: str
    group: Group
    shape: Shape
    launched_at: float
    since: float
    joined_at: float | None = None
    place: Place | None = None
    stopped: bool = False
    refused: bool = False
    paid: int = 0
    starts: int = 0


def task_of(job: Job, options: Options, requests: dict[Request, Request]) -> Task:
    """Return a job as it comes in; `requests` keeps one object for equal ones: indexes look them up by the million."""
    known = replace(job, expected_s=job.duration_s) if options.clairvoyant else job
    demand = demand_of(known, options.expected_s)
    shared = requests.setdefault(job.request, job.request)
    return Task(job=job, left_s=job.duration_s, demand=replace(demand, request=shared))


def demand_of(job: Job, expected_s: float) -> Demand:
    """Return a job as the router sees it; `expected_s` is the run time of one that says nothing itself."""
    return Demand(
        session=job.id,
        request=job.request,
        nodes=job.nodes,
        sites=job.sites,
        groups=job.groups,
        max_price=job.max_price,
        spot=job.spot,
        expected_s=expected_s if job.expected_s is None else job.expected_s,
        priority=job.priority,
        protect=job.protect,
        queued_at=job.at,
        project=job.project,
        labels=job.labels,
        near=job.near,
        data=job.data,
        together=job.together,
        spread=job.spread,
        max_total=job.max_total,
        start_by=None if job.max_wait_s is None else job.at + job.max_wait_s,
        due_at=None if job.deadline_s is None else job.at + job.deadline_s,
        preemptible=job.preemptible,
        checkpoint=job.checkpoint is not None,
        type=job.type,
        owner=job.owner,
        tags=job.tags,
    )


def billed(shape: Shape, seconds: float) -> int:
    """Return what a machine costs that was there for this long: by the periods begun, in micro-units."""
    period = max(shape.billing_s, 1e-9)
    return money.cost(shape.price or 0, math.ceil(max(0.0, seconds) / period - 1e-9) * period)
