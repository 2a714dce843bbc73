"""An offer: a priced way to run a session now, and why others were rejected."""

from dataclasses import dataclass
from enum import StrEnum

from atoll import money
from atoll.slots import Request, Slots
from atoll.states import Reason

WAIT_VALUE = 10
"""What one second of waiting for a start is worth to a session, in micro-units (0.036 units an hour)."""


def expected_cost(price: int, expected_s: float, start_s: float = 0.0) -> int:
    """Return the expected total of an offer in micro-units: the money for start and run, and the worth of the delay.

    `price` (micro-units an hour) is paid while the machine starts too, so a launch beats a running agent
    only when it saves more than the delay costs, and at an equal price the sooner offer wins.
    """
    return money.cost(price, expected_s + start_s) + round(start_s * WAIT_VALUE)


class OfferKind(StrEnum):
    """What taking the offer means."""

    AGENT = "agent"  # free slots on a connected agent
    PENDING = "pending"  # room on an instance that is being made already
    COLD = "cold"  # start a stopped instance
    LAUNCH = "launch"  # make a new instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A waiting session as the router and the autoscaler see it: sizes, limits and times, nothing else."""

    session: str
    request: Request
    nodes: int = 1
    sites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    max_price: int | None = None
    spot: bool = True
    expected_s: float = 600.0
    priority: int = 0
    protect: bool = False
    queued_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A way to run one member.

    `target` is an agent id, an instance id, or a shape key; `price` is micro-units an hour for the
    member's share of the machine, `cost` the expected total in micro-units for `expected_s`, start
    delay included: offers are ranked by it.
    """

    kind: OfferKind
    site: str
    group: str
    target: str
    slots: Slots
    price: int
    cost: int
    start_s: float = 0.0
    spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why an agent, group or shape is no offer for a session; `message` has the numbers."""

    site: str
    group: str
    target: str
    reason: Reason
    message: str


class Outcome(StrEnum):
    """What the router decided for a session."""

    PLACE = "place"
    LAUNCH = "launch"  # best served by an instance that does not exist yet
    WAIT = "wait"
    HOLD = "hold"  # nothing that exists or could be launched is capable


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided for a session, with everything that `atoll why` shows.

    On `place`, `taken` has one offer a member in rank order. `ranked` are the best alternatives and
    `rejected` the reasons against the others (both cut to a few dozen; `considered` counts all).
    """

    session: str
    outcome: Outcome
    reason: Reason
    message: str
    hint: str = ""
    taken: tuple[Offer, ...] = ()
    ranked: tuple[Offer, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    considered: int = 0
    on_demand_price: int | None = None
