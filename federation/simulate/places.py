"""What is moved about in a replay: tasks, the places they run on, and the launched machines behind some of these."""

import math
from dataclasses import dataclass, field, replace

from atoll import money
from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.slots import Request, Slots
from atoll.states import AgentState
from autoscaler.view import AgentView, RunningView
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

    def running(self) -> Running:
        """Return it as the queue pass sees what runs; the same value until it goes elsewhere."""
        if self.known is None:
            expected = self.demand.expected_s - (self.job.duration_s - self.left_s)
            self.known = Running(
                session=self.job.id,
                members=tuple((member.place.id, member.slots) for member in (*self.members, *self.target)),
                project=self.job.project,
                priority=self.job.priority,
                preemptible=self.job.preemptible,
                checkpoint=self.job.checkpoint is not None,
                protected=self.job.protect,
                leaving=bool(self.target) or self.leaving,
                ends_at=self.began + expected if expected > 0 else None,
                started_at=self.began,
                price=self.price,
            )
        return self.known

    def view(self, now: float) -> RunningView:
        """Return it as the planner sees what may be moved; what is left is not below a tenth of what it ran."""
        ran = now - self.began
        expected = self.demand.expected_s - (self.job.duration_s - self.left_s)
        since = now - max(self.began, self.moved_at or self.began)
        return RunningView(
            session=self.job.id,
            attempt=self.attempt,
            demand=self.demand,
            ran_s=since,
            left_s=max(expected - ran, ran / 10),
            checkpoint=self.job.checkpoint,
            protected=self.job.protect,
            moving=bool(self.target) or self.leaving,
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
    """A launched machine: `since` is when it began to cost, `paid` what its earlier times came to."""

    id: str
    group: Group
    shape: Shape
    launched_at: float
    since: float
    joined_at: float | None = None
    place: Place | None = None
    stopped: bool = False
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
