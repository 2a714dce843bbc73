"""The forms of a simulation: jobs and machines in, an outcome out. Money in micro-units, times in seconds."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.group import Group
from atoll.hours import Hours
from atoll.instance import Shape
from atoll.session import Checkpoint
from atoll.site import Site
from atoll.slots import Request, Slots
from autoscaler.limits import Ceiling


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A session as it was submitted: what it asked for, when (`at`, Unix seconds), and how long it ran undisturbed.

    The router does not see `duration_s`, only `expected_s` (None: what the options say). `checkpoint` opts in to
    being moved and bounds what an interruption costs. `deadline_s` and `max_wait_s` count from `at`. It is protected
    where `protect` says so, and once it has run for `protect_after_s`. `type`, `owner` and `tags` (as in `Demand`)
    matter to policies only.
    """

    id: str
    at: float
    duration_s: float
    request: Request
    nodes: int = 1
    project: str = ""
    expected_s: float | None = None
    checkpoint: Checkpoint | None = None
    spot: bool = True
    priority: int = 0
    preemptible: bool = False
    protect: bool = False
    protect_after_s: float | None = None
    sites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    near: str = ""
    data: int = 0
    together: bool = False
    spread: bool = False
    max_price: int | None = None
    max_total: int | None = None
    max_wait_s: float | None = None
    deadline_s: float | None = None
    type: str = "batch"
    owner: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine of a fixed group: there from beginning to end, at its site's price.

    `driver` is its GPU driver's version as numbers (empty: as its group says).
    """

    id: str
    site: str
    group: str
    capacity: Slots
    driver: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """That a cloud has no capacity for a shape: at these `hours`, and at others for this `part` of launches (0..1)."""

    part: float = 0.0
    hours: tuple[Hours, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What there is to run on. `shapes` and `limits` (of the account) are by provider, as elastic groups name it.

    `lacks` are by provider and shape key.
    """

    sites: tuple[Site, ...]
    groups: tuple[Group, ...]
    machines: tuple[Machine, ...] = ()
    shapes: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)
    limits: Mapping[str, tuple[Ceiling, ...]] = field(default_factory=dict)
    lacks: Mapping[tuple[str, str], Lack] = field(default_factory=dict)

    def gpus(self) -> bool:
        """Say whether anything here has GPUs: then use is counted in GPUs, else in cores."""
        fixed = any(machine.capacity.gpu for machine in self.machines)
        return fixed or any(shape.slots.gpu for shapes in self.shapes.values() for shape in shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a trace is replayed.

    A round of decisions follows an event at once, but at most one is made in `tick_s`, and at least one in `look_s`
    while time alone could change something (idle machines, waiting sessions, pools by the hour). `expected_s` is
    what the router is told of a job that says nothing itself; with `clairvoyant` it is told the truth. `queue` False
    leaves out reservations, fair share and preemption: plain placement in list order. Machines of
    spot shapes are taken away by chance, drawn from `seed`, where `interruptions` is set. Asked to move, a session
    holds both places for `move_s`; told to take no more, an agent answers within `drain_s`. `idle_s` replaces what
    elastic groups say, where given. That a launch is refused is known after `refuse_s`; its shape is then left alone
    for a random time up to `backoff_s`, doubling up to `backoff_max_s`, as the control plane does. After `until` (Unix
    seconds) nothing more is submitted; `max_rounds` is a bound against a run without end.
    """

    tick_s: float = 1.0
    look_s: float = 60.0
    expected_s: float = 600.0
    clairvoyant: bool = False
    queue: bool = True
    interruptions: bool = True
    move_s: float = 0.0
    drain_s: float = 2.0
    refuse_s: float = 2.0
    backoff_s: float = 20.0
    backoff_max_s: float = 300.0
    idle_s: float | None = None
    seed: int = 1
    until: float | None = None
    max_rounds: int = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of one job: None where it never started or did not end. `sites` are those it ran at, in order.

    `waited_s` is from submission to the first start; `stalled_s` all time after that in which it did no work, in the
    queue or on its way; `lost_s` the work done twice, over interruptions and moves. `spent` is its share of the
    machines it ran on, idle parts left out.
    """

    job: str
    at: float
    started_at: float | None = None
    ended_at: float | None = None
    waited_s: float = 0.0
    stalled_s: float = 0.0
    lost_s: float = 0.0
    interruptions: int = 0
    moves: int = 0
    spent: int = 0
    sites: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteUse:
    """A site over the whole time: `cost`, and seconds of capacity and of use, in GPUs or cores (`Outcome.unit`).

    `machines` counts those there were in all, launched or fixed; `starts` the sessions placed there, moves included.
    """

    site: str
    owned: int = 0
    cloud: int = 0
    capacity_s: float = 0.0
    used_s: float = 0.0
    machines: int = 0
    starts: int = 0

    @property
    def cost(self) -> int:
        """All that the site cost."""
        return self.owned + self.cloud


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One site's capacity and use in GPUs or cores: at `times[n]` they became `capacity[n]` and `used[n]`."""

    site: str
    times: tuple[float, ...] = ()
    capacity: tuple[float, ...] = ()
    used: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUse:
    """One launched machine, paid for from `launched_at` to `ended_at`."""

    id: str
    group: str
    site: str
    shape: Shape
    launched_at: float
    joined_at: float | None
    ended_at: float
    cost: int
    reclaimed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a replay came to. `runs` are in the order of submission.

    `began` and `submitted` are the first and the last submission, `ended` is when the last job had ended and the last
    launched machine was gone; own machines are counted for that time. `owned` is what they cost, `cloud` what
    launched machines did: `sites` has both by site. `waits` are those of jobs that started, ascending; `refused` counts
    launches for which there was no capacity.
    """

    began: float
    submitted: float
    ended: float
    runs: tuple[Run, ...]
    sites: tuple[SiteUse, ...]
    series: tuple[Series, ...]
    machines: tuple[MachineUse, ...]
    waits: tuple[float, ...]
    unit: str
    rounds: int
    plans: int
    refused: int = 0
    seconds: float = 0.0

    @property
    def cloud(self) -> int:
        """What launched machines cost."""
        return sum(site.cloud for site in self.sites)

    @property
    def owned(self) -> int:
        """What own machines cost, used or not."""
        return sum(site.owned for site in self.sites)

    @property
    def cost(self) -> int:
        """All of it."""
        return self.cloud + self.owned

    @property
    def moves(self) -> int:
        """How often a session was moved."""
        return sum(run.moves for run in self.runs)

    @property
    def interruptions(self) -> int:
        """How often a machine went away under a session."""
        return sum(run.interruptions for run in self.runs)

    @property
    def lost_s(self) -> float:
        """Seconds of sessions' work done twice."""
        return sum(run.lost_s for run in self.runs)

    @property
    def unplaced(self) -> int:
        """How many jobs never started."""
        return sum(run.started_at is None for run in self.runs)

    def wait(self, part: float) -> float:
        """Return the wait that `part` (0.95: p95) of the started jobs did not exceed: nearest rank, 0 for none."""
        if not self.waits:
            return 0.0
        rank = max(1, -(-len(self.waits) * round(part * 10_000) // 10_000))
        return self.waits[min(rank, len(self.waits)) - 1]

    def use(self, site: str) -> float:
        """Return the part of a site's capacity that was in use while jobs came, 0..1."""
        series = next(each for each in self.series if each.site == site)
        there = used = 0.0
        for n, at in enumerate(series.times):
            until = series.times[n + 1] if n + 1 < len(series.times) else self.ended
            span = min(until, self.submitted) - at
            if span > 0:
                there += series.capacity[n] * span
                used += series.used[n] * span
        return used / there if there else 0.0

    def late(self, max_wait_s: float) -> int:
        """Return how many jobs waited longer than this, those that never started included."""
        return len(self.waits) - bisect_right(self.waits, max_wait_s) + self.unplaced
