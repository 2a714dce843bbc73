"""Spending: what sessions and machines have cost in a period, what they are committed to, and what a budget admits.

`spent` is money gone; `committed` is what runs will cost yet, sessions until their expected end, machines until they
are released when idle. Their sum stays the same while everything goes as expected, so that what is admitted within a
limit stays within it. Plain functions of rows and of a time: no clock, no store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from atoll import money
from atoll.budget import Budget, Do, Period
from atoll.instance import Instance, Shape
from atoll.money import cost
from atoll.session import Member, Session
from atoll.states import PLACED, InstanceState, Reason, SessionState
from federation.control.hours import check_zone
from federation.control.rulings import Held
from federation.control.stretches import all_of, since

_S, _I = SessionState, InstanceState
PENDING = (_I.INTENDED, _I.CREATING, _I.BOOTING, _I.STARTING)
ENDING = (_I.STOPPING, _I.STOPPED, _I.ENDING)


@dataclass(frozen=True, slots=True)
class Window:
    """One period of a budget, in Unix seconds; `end` None: it has none."""

    start: float
    end: float | None = None


def window(budget: Budget, now: float) -> Window:
    """Return the period of a budget that `now` is in; weeks begin on Monday."""
    if budget.period is Period.TOTAL:
        return Window(0.0)
    zone = check_zone(budget.zone)
    day = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if budget.period is Period.DAY:
        start, end = day, day + timedelta(days=1)
    elif budget.period is Period.WEEK:
        start = day - timedelta(days=day.weekday())
        end = start + timedelta(days=7)
    else:
        start = day.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    return Window(start.replace(tzinfo=zone).timestamp(), end.replace(tzinfo=zone).timestamp())


def spent(row: Session, moment: float, now: float) -> int:
    """Return what a session has cost from `moment` to `now`, in micro-units."""
    return sum(since(each, moment) for each in all_of(row, now))


def left_s(row: Session) -> float:
    """Return how long a session is expected to run from its next or present start, what was kept of earlier ones off.

    Seconds.
    """
    return max(0.0, row.spec.lifetime.expected - row.ran_s)


def commitment(row: Session, now: float, machines: Mapping[str, Instance]) -> int:
    """Return what a session will cost yet when it ends as expected: placed, or waiting for its machine."""
    if row.state in PLACED:
        return sum(_rest(member, left_s(row), now) for member in row.members if member.ended_at is None)
    machine = machines.get(row.instance) if row.state is _S.PROVISIONING else None
    return need_on(row, machine.shape) if machine else 0


def need(members: Iterable[Member], expected_s: float) -> int:
    """Return what members that start now will cost."""
    return sum(cost(member.price, expected_s) for member in members)


def need_on(row: Session, shape: Shape) -> int:
    """Return what a session will cost when all its members run on machines of a shape."""
    taken = shape.slots.take(row.spec.resources)
    share = taken.share_of(shape.slots) if taken else 1.0
    return row.spec.nodes * cost(round(share * (shape.price or 0)), left_s(row))


def machine_spent(row: Instance, since: float, now: float) -> int:
    """Return what a machine has cost from `since` to `now`: its price since the cloud confirmed it."""
    if row.booted_at is None:
        return 0
    return cost(row.shape.price or 0, (row.ended_at or now) - max(row.booted_at, since))


def machine_commitment(row: Instance, release: float, now: float) -> int:
    """Return what a machine will cost from `now` until it is released."""
    if row.state in ENDING or row.state is _I.GONE:
        return 0
    began = now if row.booted_at is None else row.booted_at
    price = row.shape.price or 0
    return max(0, cost(price, release - began) - cost(price, now - began))


def _rest(member: Member, expected_s: float, now: float) -> int:
    gone = 0.0 if member.started_at is None else now - member.started_at
    return max(0, cost(member.price, expected_s) - cost(member.price, gone))


@dataclass(slots=True)
class Account:
    """One budget at one moment; `committed` grows by what is admitted meanwhile."""

    budget: Budget
    window: Window
    spent: int
    committed: int

    @property
    def total(self) -> int:
        """Spent and committed."""
        return self.spent + self.committed

    @property
    def reached(self) -> Do | None:
        """The hardest stage that is reached."""
        return self.budget.reached(self.spent, self.committed)

    def has_room(self, amount: int, *, paid: bool, without: int = 0) -> bool:
        """Say whether `amount` more keeps within the limit, `without` what is counted for the same already.

        What costs nothing is not limited.
        """
        limit = self.budget.limit(paid=paid)
        return limit is None or amount <= 0 or self.total - without + amount <= limit

    def held(self, amount: int | None = None, *, paid: bool = False) -> Held:
        """Return why something that costs `amount` may not be."""
        budget = self.budget
        limit = budget.limit(paid=paid) or 0
        what = "on paid machines" if paid else "that costs money"
        asks = "" if amount is None else f"; this needs about {money.text(amount)}"
        until = "" if self.window.end is None else f" until {_date(self.window.end, budget.zone)}"
        return Held(
            reason=Reason.BUDGET,
            message=f"budget {budget.name} has no room for more {what}",
            hint=f"{money.text(max(0, limit - self.total))} of {money.text(budget.amount)} are left{until}{asks}; "
            f"raise the budget to go on sooner",
        )


@dataclass(slots=True)
class Machine:
    """A cloud's machine, until when it is kept, and for how long it is when idle."""

    row: Instance
    release: float
    idle_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a session lately was too dear for: what it needs of its project's budgets, and of the installation's."""

    amount: int
    machine: int
    paid: bool
    at: float


_ANY = Refusal(1, 1, False, 0.0)


@dataclass(slots=True)
class Accounts:
    """All budgets at one moment, and what is admitted in the commit that they were opened for.

    `machines` are the live cloud machines by their agents, `sessions` the live sessions, `instances` the live machines
    by id. `refused` are sessions that were lately too dear.
    """

    now: float = 0.0
    accounts: Sequence[Account] = ()
    sessions: Mapping[str, Session] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    _by_project: dict[str, list[Account]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for account in self.accounts:
            self._by_project.setdefault(account.budget.project, []).append(account)

    def before(self, row: Session) -> Held | None:
        """Return why a waiting session need not be routed: its project may spend no more, or not what it needs."""
        refusal = self.refused.get(row.id, _ANY)
        return self._short(row, 1 if refusal.paid else refusal.amount, paid=False)

    def owned_only(self, row: Session) -> Held | None:
        """Return why a waiting session may run on own machines only, None where it is free to run anywhere."""
        refusal = self.refused.get(row.id, _ANY)
        if held := self._short(row, refusal.amount if refusal.paid else 1, paid=True):
            return held
        if row.state is _S.PROVISIONING and row.instance in self.instances:
            return None
        amount = refusal.machine if refusal.paid else 1
        over = (each for each in self._of("") if not each.has_room(amount, paid=True))
        return next((each.held(amount if amount > 1 else None, paid=True) for each in over), None)

    def start(self, row: Session, members: Sequence[Member]) -> Held | None:
        """Admit the start of a session, and count it; return why not otherwise."""
        expected = left_s(row)
        amount, own = need(members, expected), commitment(row, self.now, self.instances)
        on = {member.agent for member in members if member.agent in self.machines}
        if held := self._short(row, amount, paid=bool(on)):
            self.refused[row.id] = Refusal(amount, 1, bool(on), self.now)
            return held
        longer = {agent: self._longer(self.machines[agent], expected) for agent in sorted(on)}
        extra = sum(amount for amount, _ in longer.values())
        for account in self._of(""):
            if not account.has_room(extra, paid=True):
                self.refused[row.id] = Refusal(amount, extra, True, self.now)
                return account.held(extra, paid=True)
        for account in self._of(row.project):
            account.committed += amount - own
        for account in self._of(""):
            account.committed += extra
        for agent, (_, release) in longer.items():
            self.machines[agent].release = release
        self.refused.pop(row.id, None)
        return None

    def launch(self, shape: Shape, sessions: Iterable[str], idle_s: float) -> Held | None:
        """Admit a machine, and count it, for these sessions (none: for a pool); return why not otherwise."""
        return self.machine([row for key in sessions if (row := self.sessions.get(key)) is not None], shape, idle_s)

    def machine(self, rows: Sequence[Session], shape: Shape, idle_s: float) -> Held | None:
        """Admit a machine for sessions as they are in these rows."""
        longest = max((left_s(row) for row in rows), default=0.0)
        amount = cost(shape.price or 0, shape.start_s + longest + idle_s)
        for account in self._of(""):
            if not account.has_room(amount, paid=True):
                for row in rows:
                    self.refused[row.id] = Refusal(need_on(row, shape), amount, True, self.now)
                return account.held(amount, paid=True)
        added: list[tuple[Account, int]] = []
        for row in rows:
            wanted, own = need_on(row, shape), commitment(row, self.now, self.instances)
            if held := self._short(row, wanted, paid=True):
                for account, more in added:
                    account.committed -= more
                self.refused[row.id] = Refusal(wanted, amount, True, self.now)
                return held
            for account in self._of(row.project):
                account.committed += wanted - own
                added.append((account, wanted - own))
        for account in self._of(""):
            account.committed += amount
        return None

    def move(self, row: Session, to: Sequence[Member], *, machines: bool) -> Held | None:
        """Admit a move, and count what it costs more than to stay; return why not otherwise. One that saves may be.

        `machines`: the installation pays for what the machines that it goes to are kept longer. Where others are
        released for it, that is not to be asked.
        """
        on = {member.agent for member in to if member.agent in self.machines}
        own = commitment(row, self.now, self.instances)
        rest = left_s(row) - (self.now - row.started_at if row.started_at is not None else 0.0)
        amount = need(to, rest)
        newly_paid = bool(on) and not any(member.agent in self.machines for member in row.members)
        if (amount > own or newly_paid) and (held := self._short(row, max(amount, 1), paid=bool(on))):
            return held
        longer = {agent: self._longer(self.machines[agent], rest) for agent in sorted(on)} if machines else {}
        extra = sum(more for more, _ in longer.values())
        for account in self._of(""):
            if not account.has_room(extra, paid=True):
                return account.held(extra, paid=True)
        for account in self._of(row.project):
            account.committed += amount - own
        for account in self._of(""):
            account.committed += extra
        for agent, (_, release) in longer.items():
            self.machines[agent].release = release
        return None

    def _of(self, project: str) -> Sequence[Account]:
        return self._by_project.get(project, ())

    def _short(self, row: Session, amount: int, *, paid: bool) -> Held | None:
        if not row.project or not self._of(row.project):
            return None
        own = commitment(row, self.now, self.instances)
        over = (each for each in self._of(row.project) if not each.has_room(amount, paid=paid, without=own))
        return next((account.held(amount if amount > 1 else None, paid=paid) for account in over), None)

    def _longer(self, machine: Machine, expected_s: float) -> tuple[int, float]:
        """Return what a session adds to a machine's commitment, and until when it is kept then."""
        release = max(machine.release, self.now + expected_s + machine.idle_s)
        row = machine.row
        more = machine_commitment(row, release, self.now) - machine_commitment(row, machine.release, self.now)
        return more, release


def _date(moment: float, zone: str) -> str:
    return datetime.fromtimestamp(moment, check_zone(zone)).strftime("%Y-%m-%d %H:%M ") + zone
