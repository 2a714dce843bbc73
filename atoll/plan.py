"""A plan: what to do about groups, decided as a value, then stored, shown, and executed unchanged."""

from dataclasses import dataclass
from enum import StrEnum

from atoll.instance import Shape
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
class Plan:
    """All steps and notes of one look at the groups. `generation` rises; an older plan is stale.

    `awaits` pairs a waiting session with the pending or planned instance that is to serve it.
    """

    id: str
    generation: int
    at: float
    steps: tuple[Step, ...] = ()
    notes: tuple[Note, ...] = ()
    awaits: tuple[tuple[str, str], ...] = ()
    version: int = 0
