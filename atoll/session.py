"""A session: a unit of user work, on one agent or on a gang of several."""

from dataclasses import dataclass, field
from enum import StrEnum

from atoll.slots import Request, Slots
from atoll.states import Reason, SessionState


class SessionType(StrEnum):
    """What a session is for: a batch ends by itself, a service is meant to stay, interactive has a person."""

    BATCH = "batch"
    INTERACTIVE = "interactive"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a session may run: `sites` and `groups` it is limited to (empty: any), `labels` the place must have.

    `near` names the site where its data is; `data` bytes of it are brought to wherever the session runs, at that
    site's price for what leaves it. Members of a gang are put at one site where one has room, else at sites of one
    region; `together` makes one site a condition, `spread` asks for as many sites as there are instead.
    """

    sites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    near: str = ""
    data: int = 0
    together: bool = False
    spread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLimits:
    """What a session may cost: `max_price` in micro-units an hour for a member's slots, `max_total` in micro-units.

    `max_total` bounds the expected total of all members, from the expected run time; `spot` False refuses spot.
    """

    max_price: int | None = None
    max_total: int | None = None
    spot: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long: `max` seconds of running, `protect` against scale-in, `grace` seconds between TERM and KILL.

    `expected` (seconds) is the user's estimate: the router weighs price against start delay with it. A session
    that has run for `protect_after` seconds is protected from then on. Running counts on over moves (`Session.ran_s`);
    an attempt whose work was lost counts no more. It should have ended `deadline` seconds
    after it was submitted; it expires when nothing could start it within `max_wait`.
    """

    max: float | None = None
    protect: bool = False
    protect_after: float | None = None
    grace: float = 10.0
    expected: float = 600.0
    max_wait: float | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """That a session can save its state and go on elsewhere: whoever gives this opts in to being moved.

    It is told by `signal`, saves its state where it will find it again (its own shared storage), and exits with
    `exit_code` within `grace` seconds; it is then started anew, with `ATOLL_RESUMED=1`, and takes up what it saved.
    One that does not exit in time is left running where it is. `lost` is the work (seconds) that a move costs it,
    by the user's estimate; it is moved at most once in `every` seconds of running. 85 is HTCondor's convention.
    """

    signal: str = "USR1"
    exit_code: int = 85
    grace: float = 60.0
    lost: float = 60.0
    every: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When the machine goes away under a session: how often it is queued again.

    `lost` opts in to starting anew when an agent has been silent for `lease` seconds; the agent stops
    the session itself before that, by its own clock (I8). Without it a session waits for its agent.
    """

    max: int = 3
    lost: bool = False
    lease: float = 600.0


class AppAccess(StrEnum):
    """Whom an app of a session lets in besides its owner and administrators."""

    OWNER = "owner"  # nobody else
    PROJECT = "project"  # members of the session's project: API tokens with its role
    PUBLIC = "public"  # anyone who has its address, where the installation allows that


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRule:
    """How an app is shown: to whom, and whether it is given its whole path where apps have no host name of their own.

    `prefix` False: the app sees `/x` for `/apps/<session>/<app>/x`.
    """

    access: AppAccess = AppAccess.OWNER
    prefix: bool = False


_USUAL = AppRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """What a user asks for. `resources` are for each of `nodes` members; all start or none does.

    `apps` maps an app's name to the port it listens on (0: the agent picks a free one); the process finds
    it in `ATOLL_APP_<NAME>_PORT`. `app_rules` has those that are not shown as is usual. `stdin` is given to rank 0.
    A `preemptible` session may be put back into the queue for one of higher priority. A `blind` one is entered by
    streams alone that are encrypted from the user's machine to the agent.
    """

    command: tuple[str, ...]
    name: str = ""
    type: SessionType = SessionType.BATCH
    runtime: str = "process"
    workdir: str = ""
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = ""
    resources: Request = Request()
    nodes: int = 1
    placement: Placement = Placement()
    cost: CostLimits = CostLimits()
    lifetime: Lifetime = Lifetime()
    retry: Retry = Retry()
    apps: dict[str, int] = field(default_factory=dict)
    app_rules: dict[str, AppRule] = field(default_factory=dict)
    priority: int = 0
    preemptible: bool = False
    blind: bool = False
    checkpoint: Checkpoint | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self, app: str) -> AppRule:
        """Return how an app is shown."""
        return self.app_rules.get(app, _USUAL)


class MemberState(StrEnum):
    """One member's process, as its agent last reported it."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of the current attempt: the agent it is on and the slots it holds there until it exited.

    `site` and `group` are the agent's (empty: the session's, which are its first member's). `out` and `err` are the
    final sizes of its output once exited: logs are complete when as much is stored.
    `saved` says that it exited because it was asked for a checkpoint, and that it has taken one.
    """

    rank: int
    agent: str
    slots: Slots
    price: int = 0
    site: str = ""
    group: str = ""
    state: MemberState = MemberState.STARTING
    exit_code: int | None = None
    reason: Reason = Reason.NONE
    limits: str = ""
    apps: dict[str, int] = field(default_factory=dict)
    out: int = 0
    err: int = 0
    saved: bool = False
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What an attempt cost at one place, from `started_at` to `ended_at` (Unix seconds), in micro-units.

    `price` is all its members' there, in micro-units an hour. `on_demand_cost` is what it would have cost at the
    cheapest on-demand offer's price, 0 where its work was lost. Of many stretches the oldest are kept as one for each
    place, without `agents` where those were several.
    """

    site: str
    group: str
    agents: tuple[str, ...] = ()
    price: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    cost: int = 0
    on_demand_cost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A move that is under way: the session was asked for a checkpoint, and `to` holds the slots it will resume on.

    Empty `to`: it goes back to the queue. `until` is when its grace ends (Unix seconds): a session that still runs
    then stays where it is, and what was held for it is free again. `saving` and `lost` (micro-units) are what was
    expected of the move.
    """

    reason: Reason
    message: str
    to: tuple[Member, ...] = ()
    site: str = ""
    group: str = ""
    asked_at: float = 0.0
    until: float = 0.0
    saving: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session as stored and as shown.

    `reason`, `message` and `hint` say why it is in `state`. `attempt` counts placements; `members` are
    the current attempt's. `instance` is the launch it waits for. `cost` (micro-units) is settled up to
    the last ended attempt, and is the sum of `stretches`, which say where it arose; while it runs, `price` (micro-units
    an hour) accrues since `started_at`.
    `on_demand_price` is the cheapest on-demand offer's price when it was placed. `stopping_as` is the
    end a session in `stopping` goes to. `moving` is set while it takes a checkpoint to go elsewhere; `moves`
    counts how often it went, `moved_at` is when a move last ended, well or not. `ran_s` is how long earlier
    attempts ran whose work was kept. `approved_by` is who approved it where its policy asks. `earlier` are the agents
    of the newest runs of earlier attempts, by `attempt.rank`: their output may still come.
    """

    id: str
    name: str
    project: str
    owner: str
    spec: SessionSpec
    state: SessionState = SessionState.QUEUED
    reason: Reason = Reason.SUBMITTED
    message: str = ""
    hint: str = ""
    attempt: int = 0
    members: tuple[Member, ...] = ()
    site: str = ""
    group: str = ""
    instance: str = ""
    stopping_as: SessionState | None = None
    exit_code: int | None = None
    interruptions: int = 0
    moving: Moving | None = None
    moves: int = 0
    moved_at: float | None = None
    ran_s: float = 0.0
    earlier: dict[str, str] = field(default_factory=dict)
    approved_by: str = ""
    cost: int = 0
    price: int = 0
    on_demand_price: int | None = None
    on_demand_cost: int = 0
    stretches: tuple[Stretch, ...] = ()
    created_at: float = 0.0
    queued_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    waited_s: float = 0.0
    version: int = 0
