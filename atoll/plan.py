"""A plan: what to do about groups, decided as a value, then stored, shown, and executed unchanged."""

from dataclasses import dataclass
from enum import StrEnum

from atoll.instance import Shape
from atoll.offer import Offer
from atoll.states import Reason


class Action(StrEnum):
    """What a plan step does."""

    LAUNCH = "launch"
    START = "start"  # a cold instance
    STOP = "stop"  # keep as cold
    DRAIN = "drain"
    UNDRAIN = "undrain"
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, specific enough to leave no choice for execution.

    `instance` is always set; a launch's is new and derived from the plan's id, so that carrying a plan
    out twice makes one intent. `shape` is set for `launch`, `agent` where there is one. `epoch` is the
    agent's epoch that the decision saw: a step whose agent has moved on is stale and does nothing.
    `sessions` are those a launch is for.
    """

    action: Action
    group: str
    reason: Reason
    message: str
    shape: Shape | None = None
    agent: str = ""
    instance: str = ""
    epoch: int = 0
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A decision not to act: why this agent is kept, or this group does not grow."""

    group: str
    reason: Reason
    message: str
    agent: str = ""
    instance: str = ""
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A session that is to take a checkpoint and resume on `to` (one offer a member; empty: in the queue).

    `attempt` is the session's attempt that the decision saw: a move whose session has moved on is stale.
    `saving` and `lost` are the expected saving and the work lost, in micro-units.
    """

    session: str
    attempt: int
    reason: Reason
    message: str
    to: tuple[Offer, ...] = ()
    saving: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a plan's launches cost an hour, and a proven lower bound on any plan for the same sessions.

    Money in micro-units an hour; `method` names how the launches were found, `seconds` is the time it took.
    """

    price: int
    bound: int
    method: str = "greedy"
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """How far the price is over the bound: 0.05 is 5 %."""
        return self.price / self.bound - 1.0 if self.bound > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All steps and notes of one look at the groups. `generation` rises; an older plan is stale.

    `awaits` pairs a waiting session with the pending or planned instance that is to serve it. `quote` judges the
    launches of the plan, where it has any.
    """

    id: str
    generation: int
    at: float
    steps: tuple[Step, ...] = ()
    notes: tuple[Note, ...] = ()
    awaits: tuple[tuple[str, str], ...] = ()
    moves: tuple[Move, ...] = ()
    quote: Quote | None = None
    version: int = 0
