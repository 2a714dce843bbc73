"""State machines: one enum and one transition table per noun, and the one function that moves along them.

A reader sees here every way a session, agent or instance can go. Each move carries a `Reason`, a
stable code that scripts may match on.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from atoll.errors import Conflict


class SessionState(StrEnum):
    """Where a session is in its life. `held`, `lost` and `interrupted` are side states."""

    QUEUED = "queued"  # waits for a place
    PROVISIONING = "provisioning"  # waits for an instance that is being made for it
    STARTING = "starting"  # placed; its agents have been or are being told
    RUNNING = "running"  # every member's process runs
    STOPPING = "stopping"  # told to stop; grace period
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    HELD = "held"  # nothing that exists could run it: needs a person or a change
    LOST = "lost"  # its agent's link is down; still counted as running there
    INTERRUPTED = "interrupted"  # its machine went away; on its way back to the queue


class InstanceState(StrEnum):
    """Where a provider-side machine is in its life."""

    INTENDED = "intended"  # written down before anything is asked of the cloud
    CREATING = "creating"  # the create call may have been made: it may exist
    BOOTING = "booting"  # the cloud confirmed it
    JOINED = "joined"  # its agent has registered
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"  # cold: keeps its disk, costs next to nothing
    STARTING = "starting"  # a cold instance on its way back
    ENDING = "ending"  # termination asked for, not yet seen
    GONE = "gone"  # the cloud was seen to have ended it, or never to have made it


class AgentState(StrEnum):
    """What the control plane has decided about an agent; whether it is connected is a fact apart."""

    READY = "ready"
    DRAINING = "draining"  # takes no new session
    LEFT = "left"  # undone by its owner with `atoll agent leave`
    GONE = "gone"  # its instance ended
    REVOKED = "revoked"  # its certificate is worth nothing; whether its machine runs anything is not known


class Reason(StrEnum):
    """Why something is as it is: stable codes, each used by sessions, agents, instances or plan steps."""

    NONE = ""
    # sessions
    SUBMITTED = "SUBMITTED"
    NO_FREE_SLOTS = "NO_FREE_SLOTS"
    NO_CAPABLE_SITE = "NO_CAPABLE_SITE"
    NO_CAPACITY_NOW = "NO_CAPACITY_NOW"
    PRICE_LIMIT = "PRICE_LIMIT"
    GROUP_FULL = "GROUP_FULL"
    WAITING_FOR_INSTANCE = "WAITING_FOR_INSTANCE"
    PLACED = "PLACED"
    STARTED = "STARTED"
    EXITED = "EXITED"
    START_FAILED = "START_FAILED"
    STOP_REQUESTED = "STOP_REQUESTED"
    MEMBER_FAILED = "MEMBER_FAILED"
    MAX_LIFETIME = "MAX_LIFETIME"
    MAX_WAIT = "MAX_WAIT"
    LINK_DOWN = "LINK_DOWN"
    LINK_BACK = "LINK_BACK"
    RECLAIMED = "RECLAIMED"
    AGENT_GONE = "AGENT_GONE"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    NOT_ADOPTED = "NOT_ADOPTED"
    RETRIES_EXHAUSTED = "RETRIES_EXHAUSTED"
    REQUEUED = "REQUEUED"
    TOTAL_LIMIT = "TOTAL_LIMIT"
    SLOTS_EXPECTED = "SLOTS_EXPECTED"
    RESERVED = "RESERVED"
    OUTSIDE_HOURS = "OUTSIDE_HOURS"
    PREEMPTS = "PREEMPTS"
    PREEMPTED = "PREEMPTED"
    POLICY = "POLICY"
    APPROVAL = "APPROVAL"
    APPROVED = "APPROVED"
    BUDGET = "BUDGET"
    # moves
    HOMECOMING = "HOMECOMING"
    CONSOLIDATION = "CONSOLIDATION"
    SPOT_RETURN = "SPOT_RETURN"
    MOVED = "MOVED"
    NOT_MOVED = "NOT_MOVED"
    # agents and instances
    JOINED = "JOINED"
    LEFT = "LEFT"
    REVOKED = "REVOKED"
    CLONED = "CLONED"
    INTENDED = "INTENDED"
    CREATED = "CREATED"
    CREATE_UNKNOWN = "CREATE_UNKNOWN"
    NO_CAPACITY = "NO_CAPACITY"
    QUOTA = "QUOTA"
    THROTTLED = "THROTTLED"
    AUTH = "AUTH"
    INVALID = "INVALID"
    NOT_JOINED = "NOT_JOINED"
    TERMINATED = "TERMINATED"
    ENDED_BY_CLOUD = "ENDED_BY_CLOUD"
    ORPHAN = "ORPHAN"
    # plan steps and notes
    DEMAND = "DEMAND"
    MIN_SIZE = "MIN_SIZE"
    HOT_POOL = "HOT_POOL"
    COLD_POOL = "COLD_POOL"
    IDLE = "IDLE"
    EMPTY_DRAINED = "EMPTY_DRAINED"
    DEMAND_RETURNED = "DEMAND_RETURNED"
    SPOT_NOTICE = "SPOT_NOTICE"
    USER = "USER"
    BUSY = "BUSY"
    PROTECTED = "PROTECTED"
    NOT_IDLE_LONG_ENOUGH = "NOT_IDLE_LONG_ENOUGH"
    COOLDOWN = "COOLDOWN"
    AWAITING_ACKNOWLEDGEMENT = "AWAITING_ACKNOWLEDGEMENT"
    DISCONNECTED = "DISCONNECTED"
    MAX_SIZE = "MAX_SIZE"
    BACKOFF = "BACKOFF"
    STALE_PRICES = "STALE_PRICES"
    LONG_RUNNING = "LONG_RUNNING"
    PAID_FOR = "PAID_FOR"
    PREDICTED = "PREDICTED"
    SPOT_FALLBACK = "SPOT_FALLBACK"
    WORTH_WAITING = "WORTH_WAITING"
    SETTLING = "SETTLING"
    STEADY = "STEADY"


_S = SessionState
SESSION_MOVES: Mapping[SessionState, frozenset[SessionState]] = {
    _S.QUEUED: frozenset({_S.PROVISIONING, _S.STARTING, _S.HELD, _S.CANCELLED, _S.EXPIRED}),
    _S.PROVISIONING: frozenset({_S.QUEUED, _S.STARTING, _S.HELD, _S.CANCELLED, _S.EXPIRED}),
    _S.HELD: frozenset({_S.QUEUED, _S.PROVISIONING, _S.STARTING, _S.CANCELLED, _S.EXPIRED}),
    _S.STARTING: frozenset({_S.QUEUED, _S.RUNNING, _S.STOPPING, _S.SUCCEEDED, _S.FAILED, _S.LOST, _S.INTERRUPTED}),
    _S.RUNNING: frozenset({_S.QUEUED, _S.STARTING, _S.STOPPING, _S.SUCCEEDED, _S.FAILED, _S.LOST, _S.INTERRUPTED}),
    _S.STOPPING: frozenset(
        {_S.QUEUED, _S.STARTING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.EXPIRED, _S.LOST, _S.INTERRUPTED}
    ),
    _S.LOST: frozenset(
        {
            _S.QUEUED,
            _S.STARTING,
            _S.RUNNING,
            _S.STOPPING,
            _S.SUCCEEDED,
            _S.FAILED,
            _S.CANCELLED,
            _S.EXPIRED,
            _S.INTERRUPTED,
        }
    ),
    _S.INTERRUPTED: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.EXPIRED: frozenset(),
}
"""A placed session ends only through what its agents report, or through an observed end of its machine.

One that has taken a checkpoint goes straight to `starting` on the slots held for it, or to `queued`.
"""

_I = InstanceState
INSTANCE_MOVES: Mapping[InstanceState, frozenset[InstanceState]] = {
    _I.INTENDED: frozenset({_I.CREATING, _I.ENDING, _I.GONE}),
    _I.CREATING: frozenset({_I.BOOTING, _I.JOINED, _I.ENDING, _I.GONE}),
    _I.BOOTING: frozenset({_I.JOINED, _I.ENDING, _I.GONE}),
    _I.JOINED: frozenset({_I.DRAINING, _I.STOPPING, _I.ENDING, _I.GONE}),
    _I.DRAINING: frozenset({_I.JOINED, _I.STOPPING, _I.ENDING, _I.GONE}),
    _I.STOPPING: frozenset({_I.STOPPED, _I.ENDING, _I.GONE}),
    _I.STOPPED: frozenset({_I.STARTING, _I.ENDING, _I.GONE}),
    _I.STARTING: frozenset({_I.JOINED, _I.ENDING, _I.GONE}),
    _I.ENDING: frozenset({_I.GONE}),
    _I.GONE: frozenset(),
}
"""A row leaves `ending` only on an observed terminal state (I7)."""

_A = AgentState
AGENT_MOVES: Mapping[AgentState, frozenset[AgentState]] = {
    _A.READY: frozenset({_A.DRAINING, _A.LEFT, _A.GONE, _A.REVOKED}),
    _A.DRAINING: frozenset({_A.READY, _A.LEFT, _A.GONE, _A.REVOKED}),
    _A.REVOKED: frozenset({_A.LEFT, _A.GONE}),
    _A.LEFT: frozenset(),
    _A.GONE: frozenset(),
}

WAITING = frozenset({_S.QUEUED, _S.PROVISIONING, _S.HELD})
"""Sessions the router looks at."""
PLACED = frozenset({_S.STARTING, _S.RUNNING, _S.STOPPING, _S.LOST})
"""Sessions that occupy slots of their agents."""
ENDED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.EXPIRED})
"""Sessions that change no more."""
KEPT = (_A.READY, _A.DRAINING)
"""Agents that belong to the installation."""
LIVE = tuple(state for state in InstanceState if state is not _I.GONE)
"""Instances that may exist."""

State = TypeVar("State", SessionState, InstanceState, AgentState)


class IllegalMove(Conflict):
    """A move that the transition table does not hold: a defect, reported with the object's story."""

    code = "ILLEGAL_MOVE"


def check_move(table: Mapping[State, frozenset[State]], now: State, to: State, story: str) -> State:
    """Return `to` when the table allows going there from `now` (staying is allowed), else raise `IllegalMove`."""
    if to != now and to not in table[now]:
        raise IllegalMove(f"{story}: cannot go from {now} to {to}")
    return to
