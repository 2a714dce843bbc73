"""An offer: a priced way to run a session now, and why others were rejected."""

from enum import StrEnum

from atoll import money
from atoll.slots import GIB, Request, Slots
from atoll.states import Reason
from atoll.value import value

WAIT_VALUE = 10
"""What one second of waiting for a start is worth to a session, in micro-units (0.036 units an hour)."""
CHECKPOINT_S = 60.0
"""Work that an interruption costs a session that saves its state on notice: `atoll.session.Checkpoint`'s default."""
DEARER = 0.25
"""How much more than the cheapest places anywhere those of a gang at one site (or else in one region) may cost."""


def expected_cost(price: int, expected_s: float, start_s: float = 0.0, worth: float = WAIT_VALUE) -> int:
    """Return the expected total of an offer in micro-units: the money for start and run, and the worth of the delay.

    `price` (micro-units an hour) is paid while the machine starts too, so a launch beats a running agent
    only when it saves more than the delay costs, and at an equal price the sooner offer wins. `worth` is that of a
    second's delay, in micro-units.
    """
    return money.cost(price, expected_s + start_s) + round(start_s * worth)


@value()
class Cost:
    """What an offer's expected total is made of, in micro-units.

    `run` is the money for start and run, `delay` the worth of waiting for the start, `egress` what bringing the
    data costs, `risk` the work that an interruption is expected to cost, `scarcity` what others would lose for
    want of the slots, `policy` what the installation's policy adds. Only `run` and `egress` are money: the others
    decide between offers, nobody pays them.
    """

    run: int = 0
    delay: int = 0
    egress: int = 0
    risk: int = 0
    scarcity: int = 0
    policy: int = 0

    @property
    def total(self) -> int:
        """What offers are ranked by."""
        return self.run + self.delay + self.egress + self.risk + self.scarcity + self.policy

    @property
    def money(self) -> int:
        """What is paid: the part that `max_total` and budgets count."""
        return self.run + self.egress


class OfferKind(StrEnum):
    """What taking the offer means."""

    AGENT = "agent"  # free slots on a connected agent
    PENDING = "pending"  # room on an instance that is being made already
    COLD = "cold"  # start a stopped instance
    LAUNCH = "launch"  # make a new instance
    WAIT = "wait"  # slots of an agent that are expected to fall free


_MADE = (OfferKind.PENDING, OfferKind.COLD, OfferKind.LAUNCH)


@value(kw_only=True)
class Demand:
    """A waiting session as the router and the autoscaler see it: sizes, limits and times, nothing else.

    `queued_at`, `start_by` (it expires when not started then; None: never) and `due_at` (when it should have ended;
    None: whenever) are Unix seconds; `data` are bytes at site `near`. `spot` and `on_demand` say which ways of paying
    for machines will do (own ones always do). `type`, `owner` and `tags` (the session's own labels, as `key=value`)
    matter to policies only.
    """

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
    project: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    near: str = ""
    data: int = 0
    together: bool = False
    spread: bool = False
    max_total: int | None = None
    start_by: float | None = None
    due_at: float | None = None
    preemptible: bool = False
    checkpoint: bool = False
    type: str = "batch"
    owner: str = ""
    tags: tuple[str, ...] = ()
    on_demand: bool = True


def egress_cost(demand: Demand, per_gib: int) -> int:
    """Return a member's part of bringing the data to another site, at micro-units a GiB that leaves where it is."""
    return -(-demand.data * per_gib // (GIB * demand.nodes))


def lost_s(demand: Demand, rework_s: float) -> float:
    """Return the work an interruption costs: half the run, its mean, and at most `rework_s` or a checkpoint's."""
    return min(demand.expected_s / 2, CHECKPOINT_S if demand.checkpoint else rework_s)


def interruption_cost(
    price: int, rate: float, expected_s: float, lost: float, start_s: float, worth: float = WAIT_VALUE
) -> int:
    """Return what interruptions, `rate` of them an hour, are expected to cost in micro-units.

    Each costs `lost` seconds of work, paid for again at `price` an hour and waited for again, and one more start.
    """
    each = money.cost(price, lost) + worth * (lost + start_s)
    return round(rate * expected_s / money.HOUR * each)


@value(kw_only=True)
class Offer:
    """A way to run one member.

    `target` is an agent id, an instance id, or a shape key; `price` is micro-units an hour for the
    member's share of the machine, `cost` the expected total in micro-units for `expected_s`, start
    delay included: offers are ranked by it, and `parts` says what it is made of. Of slots that are expected to
    fall free, `start_s` is when.
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
    parts: Cost = Cost()


@value(kw_only=True)
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


@value(kw_only=True)
class Decision:
    """What was decided for a session, with everything that `atoll why` shows.

    On `place`, `taken` has one offer a member in rank order. `ranked` are the best alternatives and
    `rejected` the reasons against the others (both cut to a few dozen; `considered` counts all). `preempts`
    are the sessions that make room for a waiting one.
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
    preempts: tuple[str, ...] = ()
    on_demand_price: int | None = None

    @property
    def for_planner(self) -> bool:
        """Whether a machine may be launched for it: not when it chose to wait, or others make way for it."""
        if self.outcome is Outcome.LAUNCH:
            return True
        chose = any(offer.kind in _MADE for offer in self.ranked)
        return self.outcome is Outcome.WAIT and not self.preempts and not chose
