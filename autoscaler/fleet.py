"""The fleet while a plan is made: every machine there is or is to be, what is left of it, and room to grow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.slots import Slots
from atoll.states import AgentState, Reason
from autoscaler.cover import Cover, Offering, Rates
from autoscaler.demand import PLAIN, Terms, may_use
from autoscaler.limits import Limits
from autoscaler.packing import offerings
from autoscaler.view import AgentView, GroupView


class Standing(Enum):
    """How a machine comes to serve: each but the first is a step of the plan, once it is used."""

    READY = "ready"
    PENDING = "pending"
    DRAINING = "draining"
    COLD = "cold"
    NEW = "new"


@dataclass(slots=True, eq=False)
class Machine:
    """A machine in the plan: `free` goes down as sessions are put on it; `reason` says why a new one is wanted."""

    standing: Standing
    group: Group
    shape: Shape
    free: Slots
    instance: str = ""
    agent: AgentView | None = None
    sessions: list[str] = field(default_factory=list)
    wanted: bool = False
    reason: Reason = Reason.DEMAND

    def put(self, demand: Demand) -> bool:
        """Put one member on it; False (and nothing changed) when it does not fit."""
        taken = self.free.take(demand.request)
        if taken is None:
            return False
        self.free = self.free - taken
        self.sessions.append(demand.session)
        self.wanted = True
        return True


class Fleet:
    """All machines of all groups, in the groups' order, and what each group may still launch."""

    def __init__(self, views: Sequence[GroupView], expected_s: float, terms: Terms = PLAIN) -> None:
        self.views = views
        self.expected_s = expected_s
        self.terms = terms
        self.packed: Cover | None = None
        self.rates: dict[Offering, Rates] = {}
        """What was packed last, and the offerings' rates that its bound was found with."""
        self.bound = 0
        """A tighter bound on the price of what was packed, where there was time for one."""
        self.method = "in order"
        """How launches for demand were found."""
        self.room = {view.group.name: room(view) for view in views}
        self.limits = Limits.of(view.limits for view in views)
        self.machines = [machine for view in views for machine in _machines(view)]
        self.able: list[Offering] = [
            offering
            for view in views
            if view.group.kind is GroupKind.ELASTIC
            for offering in offerings(view.group, view.shapes, self._unavailable(view), expected_s, terms)
        ]

    def standing(self, *standings: Standing, group: str = "") -> Iterator[Machine]:
        """Yield machines by standing (in the order given), of one group or of all."""
        for standing in standings:
            for machine in self.machines:
                if machine.standing is standing and (not group or machine.group.name == group):
                    yield machine

    def allows(self, demand: Demand, group: Group, shape: Shape) -> bool:
        """Say whether a demand's limits and size allow a member on this shape in this group."""
        return may_use(demand, group, shape, self.terms)

    def may_start(self, machine: Machine) -> bool:
        """Say whether using this machine keeps its group within bounds: a cold one needs room."""
        return machine.standing is not Standing.COLD or machine.wanted or self.room[machine.group.name] > 0

    def use(self, machine: Machine, demand: Demand) -> bool:
        """Put a member on a machine, and count a cold one that this starts."""
        starts = machine.standing is Standing.COLD and not machine.wanted
        if not self.may_start(machine) or not machine.put(demand):
            return False
        if starts:
            self.room[machine.group.name] -= 1
        return True

    def launch(self, group: Group, shape: Shape, reason: Reason) -> Machine:
        """Add a machine to be made; the caller saw to it that there is room, and that the account allows it."""
        self.room[group.name] -= 1
        self.limits.take(group.provider, shape)
        return self.add(group, shape, reason)

    def add(self, group: Group, shape: Shape, reason: Reason) -> Machine:
        """Add a machine to be made whose room was counted already."""
        machine = Machine(Standing.NEW, group, shape, shape.slots, wanted=True, reason=reason)
        self.machines.append(machine)
        return machine

    def open_offerings(self) -> list[Offering]:
        """Return what may be launched now: offerings of groups with room, within the account's limits."""
        return [
            offering
            for offering in self.able
            if self.room[offering.group.name] > 0 and self.limits.count(offering.group.provider, offering.shape) > 0
        ]

    def _unavailable(self, view: GroupView) -> list[str]:
        """Return shapes that must not stand in the way of others: what cannot be had dominates nothing."""
        short = [shape.key for shape in view.shapes if self.limits.short(view.group.provider, shape)]
        return [*view.blocked, *short]


def room(view: GroupView) -> int:
    """Return how many machines a group may still get: everything counts until it is seen gone."""
    if view.group.kind is not GroupKind.ELASTIC:
        return 0
    there = len(view.agents) + len(view.pending) + view.ending
    return max(0, view.group.size.max - there)


def _machines(view: GroupView) -> Iterator[Machine]:
    for agent in view.agents:
        if agent.notice or not agent.connected:
            continue
        if agent.state is AgentState.READY:
            yield Machine(Standing.READY, view.group, agent.shape, agent.free, agent.instance, agent)
        elif agent.state is AgentState.DRAINING and not agent.by_user:
            yield Machine(Standing.DRAINING, view.group, agent.shape, agent.free, agent.instance, agent)
    for pending in view.pending:
        yield Machine(Standing.PENDING, view.group, pending.shape, pending.shape.slots, pending.instance)
    for cold in view.cold:
        yield Machine(Standing.COLD, view.group, cold.shape, cold.shape.slots, cold.instance)
