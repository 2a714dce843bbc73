"""What a planner sees of a group: agents, instances in the making, stopped ones, shapes; values made by control."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.session import Checkpoint
from atoll.slots import Slots
from atoll.states import AgentState, Reason
from autoscaler.limits import Ceiling
from autoscaler.predict import Ready
from autoscaler.spot import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningView:
    """A session that occupies an agent, as far as moving it goes: `demand` says where else it might run.

    `attempt` is the one that is seen. `ran_s` is for how long it has run there, `left_s` for how long it is expected
    to go on. It may be moved only with a `checkpoint`, and neither while `protected` nor while it is `moving` already.
    `pace` is that of one with a deadline.
    """

    session: str
    attempt: int
    demand: Demand
    ran_s: float = 0.0
    left_s: float = 0.0
    checkpoint: Checkpoint | None = None
    protected: bool = False
    moving: bool = False
    pace: Pace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """One agent of the group, whatever its state, until its instance is gone.

    `sessions` are the ids of all that occupy it and `protected` says whether one of them must not be
    disturbed: `protected_why` is PROTECTED where its user said so, LONG_RUNNING where it has run for long enough.
    `running` tells more of those that might be moved. `idle_s` is for how long it has been empty (0 when busy),
    `paid_s` for how long the machine is still paid for. `notice` is set once its cloud announced that it takes the
    machine back. `by_user` marks a drain that a person asked for: a plan never undoes it. `drain_left_s` are the
    seconds until a drain's deadline (None: it has none). `shape.price` is the machine's price; for a fixed group
    any priced shape will do.
    """

    id: str
    instance: str
    shape: Shape
    capacity: Slots
    free: Slots
    sessions: tuple[str, ...] = ()
    protected: bool = False
    protected_why: Reason = Reason.PROTECTED
    running: tuple[RunningView, ...] = ()
    idle_s: float = 0.0
    paid_s: float = 0.0
    state: AgentState = AgentState.READY
    connected: bool = True
    epoch: int = 0
    cordon_epoch: int = 0
    acknowledged_epoch: int = 0
    notice: bool = False
    by_user: bool = False
    drain_left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingView:
    """An instance that is intended, being created or booting; `sessions` are those that await it (may be empty)."""

    instance: str
    shape: Shape
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdView:
    """A stopped instance that can be started again."""

    instance: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """One group as it is now.

    `pending` is in the order of its launches. `ending` counts instances on their way out: they count
    against `size.max` until seen gone; `stopping` are those of them that will be cold. `blocked` maps a
    shape's key to why it is not asked for now; `limits` are those of its provider's account, which groups of one
    provider share. `since_growth_s` is the time since the group last grew or took a draining agent back,
    `settled` False within the quiet time after a restart, when nothing may be ended (I12). `hot` is the hot pool's
    size by the time of day (None: the same all day), `predicted` what the group's own history adds to it. A fixed
    group only lends its free agents to gangs.
    """

    group: Group
    agents: tuple[AgentView, ...] = ()
    pending: tuple[PendingView, ...] = ()
    cold: tuple[ColdView, ...] = ()
    ending: int = 0
    stopping: int = 0
    shapes: tuple[Shape, ...] = ()
    blocked: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[Ceiling, ...] = ()
    since_growth_s: float = 1e9
    settled: bool = True
    hot: int | None = None
    predicted: Ready = field(default_factory=Ready)

    @property
    def hot_count(self) -> int:
        """How often a session of the hot pool's size must be able to start at once, by the group's own word."""
        return self.group.pools.hot_count if self.hot is None else self.hot
