"""Budgets: how they stand, what they admit in the commit that places or launches, and what their stages bring about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from atoll.budget import Budget, Do
from atoll.errors import NotFound
from atoll.ids import check_name
from atoll.instance import Instance
from atoll.session import Session
from atoll.states import ENDED, PLACED, InstanceState, Reason, SessionState
from atoll.suggest import hint
from federation.control.changes import Change, Changes
from federation.control.hours import check_zone
from federation.control.spending import (
    PENDING,
    Account,
    Accounts,
    Machine,
    Refusal,
    Window,
    commitment,
    left_s,
    machine_commitment,
    machine_spent,
    spent,
    window,
)
from federation.ports import Transaction

REFUSED_S = 600.0
"""How long a session that was too dear is not routed again for the same money, in seconds: prices may fall."""
_PAGE = 1000
_S = SessionState


@dataclass(slots=True)
class _Past:
    """What ended sessions or machines have cost in one period of one budget; `high` is the most it ever stood at."""

    budget: Budget
    window: Window
    amount: int
    high: int = 0


@dataclass(slots=True)
class _Seen:
    """What lived at the last look: what of it lives no more has ended since. `idle` is since when machines are."""

    sessions: set[str] = field(default_factory=set)
    instances: set[str] = field(default_factory=set)
    idle: dict[str, float] = field(default_factory=dict)


class Budgets:
    """Use cases of budgets. Where there are none, nothing is counted and everything admitted.

    What has ended is added up once for a period, and then as it ends: within one control plane, whatever lived at
    the last look and lives no more has ended since.
    """

    def __init__(self, changes: Changes, on_change: Callable[[], None]) -> None:
        self._changes = changes
        self._on_change = on_change
        self._rows: list[Budget] | None = None
        self._past: dict[str, _Past] = {}
        self._seen = _Seen()
        self._refused: dict[str, Refusal] = {}

    async def list(self) -> list[Account]:
        """Return how all budgets stand, by name."""
        return sorted((await self.look()).accounts, key=lambda account: account.budget.name)

    async def get(self, name: str) -> Account:
        """Return how one stands; raise `NotFound` with a near name."""
        found = await self.list()
        for account in found:
            if account.budget.name == name:
                return account
        raise NotFound(
            f"there is no budget {name!r}", hint=hint(name, [a.budget.name for a in found], "see `atoll budget list`")
        )

    async def apply(self, row: Budget, *, by: str) -> bool:
        """Make a budget be as given, and return whether it is new; its stages are looked at anew."""
        check_name(row.name, "budget")
        check_zone(row.zone)
        try:
            async with self._changes.commit("budget.apply") as change:
                have = await change.tx.get(Budget, row.name)
                if have is None:
                    await change.tx.insert(replace(row, created_at=change.now))
                else:
                    await change.tx.update(replace(row, created_at=have.created_at, version=have.version))
                verb = "changed" if have else "created"
                await change.event("budget", row.name, verb, name=row.name, reason=Reason.USER, message=f"by {by}")
        finally:
            self._rows = None
        self._refused.clear()
        self._on_change()
        return have is None

    async def delete(self, name: str, *, by: str) -> None:
        """Remove a budget."""
        await self.get(name)
        try:
            async with self._changes.commit("budget.delete") as change:
                await change.tx.delete(Budget, name)
                await change.event("budget", name, "deleted", name=name, reason=Reason.USER, message=f"by {by}")
        finally:
            self._rows = None
        self._refused.clear()
        self._on_change()

    async def look(self) -> Accounts:
        """Return how budgets stand now, to decide what is worth routing; nothing that is admitted there counts."""
        if self._rows == []:
            return Accounts(now=self._changes.clock.now())
        async with self._changes.commit("budget.look") as change:
            return await self.open(change)

    async def open(self, change: Change) -> Accounts:
        """Return how budgets stand in a commit, before it has written anything; what it admits is counted there."""
        if self._rows is None:
            self._rows = await change.tx.find(Budget)
        if not self._rows:
            self._past.clear()
            self._seen = _Seen()
            return Accounts(now=change.now)
        mirror = self._changes.mirror
        if not mirror.loaded:
            await mirror.load(change.tx)
        await self._follow(change.tx, change.now)
        machines = self._machines(change.now)
        accounts = [self._account(budget, machines, change.now) for budget in self._rows]
        old = [key for key, each in self._refused.items() if change.now - each.at > REFUSED_S]
        for key in old:
            del self._refused[key]
        return Accounts(
            now=change.now,
            accounts=accounts,
            sessions=mirror.sessions,
            instances=mirror.instances,
            machines={machine.row.agent: machine for machine in machines if machine.row.agent},
            refused=self._refused,
        )

    async def round(self) -> None:
        """Carry out the stages that are reached."""
        if self._rows == []:
            return
        stopped = 0
        async with self._changes.commit("budget.stage") as change:
            accounts = await self.open(change)
            try:
                for account in accounts.accounts:
                    budget = await self._enter(change, account)
                    if budget.stage is Do.STOP:
                        stopped += await self._stop(change, budget)
            finally:
                self._rows = None
        if stopped:
            self._on_change()

    # -- counting ---------------------------------------------------------------------------------

    def _account(self, budget: Budget, machines: Sequence[Machine], now: float) -> Account:
        mirror, past = self._changes.mirror, self._past[budget.name]
        gone, coming = past.amount, 0
        if budget.project:
            for row in mirror.sessions.values():
                if row.project == budget.project:
                    gone += spent(row, past.window.start, now)
                    coming += commitment(row, now, mirror.instances)
        else:
            for machine in machines:
                gone += machine_spent(machine.row, past.window.start, now)
                coming += machine_commitment(machine.row, machine.release, now)
        past.high = max(past.high, gone)
        return Account(budget, past.window, past.high, coming)

    def _machines(self, now: float) -> Sequence[Machine]:
        """Return the live cloud machines, each with the time until which it is kept."""
        mirror = self._changes.mirror
        longest: dict[str, float] = {}
        for row in mirror.sessions.values():
            if row.state is _S.PROVISIONING and row.instance:
                longest[row.instance] = max(longest.get(row.instance, 0.0), left_s(row))
        machines = []
        for each in mirror.instances.values():
            group = mirror.groups.get(each.group)
            idle_s = group.scale_down.idle_s if group else 0.0
            machines.append(Machine(each, self._release(each, longest.get(each.id), idle_s, now), idle_s))
        return machines

    def _release(self, row: Instance, awaited: float | None, idle_s: float, now: float) -> float:
        if row.state in PENDING:
            began = now if row.booted_at is None else row.booted_at
            return max(now, began + row.shape.start_s) + (awaited or 0.0) + idle_s
        runs = self._changes.mirror.on_agent(row.agent) if row.agent else []
        ends = [(each.started_at or now) + left_s(each) for each in runs]
        if awaited is not None:
            ends.append(now + awaited)
        if ends:
            self._seen.idle.pop(row.id, None)
            return max(now, *ends) + idle_s
        return max(now, self._seen.idle.setdefault(row.id, now) + idle_s)

    async def _follow(self, tx: Transaction, now: float) -> None:
        """Bring what has ended up to date; a new period, a new or a changed budget is added up from all rows."""
        mirror, seen = self._changes.mirror, self._seen
        ended = [row for key in seen.sessions - mirror.sessions.keys() if (row := await tx.get(Session, key))]
        gone = [one for key in seen.instances - mirror.instances.keys() if (one := await tx.get(Instance, key))]
        for row in ended:
            self._note_idle(row)
        self._past = {budget.name: self._past[budget.name] for budget in self._rows or () if budget.name in self._past}
        for budget in self._rows or ():
            past, there = self._past.get(budget.name), window(budget, now)
            if past is None or past.window != there or _counts(past.budget) != _counts(budget):
                self._past[budget.name] = _Past(budget, there, await _added_up(tx, budget, there.start, now))
                continue
            past.budget = budget
            if budget.project:
                past.amount += sum(spent(r, there.start, now) for r in ended if r.project == budget.project)
            else:
                past.amount += sum(machine_spent(one, there.start, now) for one in gone)
        seen.sessions, seen.instances = set(mirror.sessions), set(mirror.instances)
        for key in seen.idle.keys() - seen.instances:
            del seen.idle[key]

    def _note_idle(self, row: Session) -> None:
        """A machine is idle since the last session on it ended, not since it is first seen so."""
        mirror = self._changes.mirror
        for member in row.members:
            agent = mirror.agents.get(member.agent)
            if agent and agent.instance and not mirror.on_agent(agent.id) and member.ended_at is not None:
                idle = self._seen.idle
                idle[agent.instance] = max(idle.get(agent.instance, 0.0), member.ended_at)

    # -- stages -----------------------------------------------------------------------------------

    async def _enter(self, change: Change, account: Account) -> Budget:
        """Write down and tell a stage that is newly reached, or a period that has begun."""
        budget, reached = account.budget, account.reached
        if account.window.start != budget.began:
            budget = replace(budget, stage=None, stage_at=0.0, began=account.window.start)
        if reached is budget.stage:
            return budget if budget is account.budget else await change.tx.update(budget)
        budget = await change.tx.update(replace(budget, stage=reached, stage_at=change.now))
        part = 100 * account.total / budget.amount
        text = f"{part:.0f} % of the budget is spent or committed: {reached or 'all is well again'}"
        await change.event(
            "budget", budget.name, reached or "well", name=budget.name, reason=Reason.BUDGET, message=text
        )
        return budget

    async def _stop(self, change: Change, budget: Budget) -> int:
        """Stop what costs a budget money, once its grace is over: preemptible sessions first."""
        waited = change.now - budget.stage_at
        if waited < budget.grace_s:
            return 0
        mirror, stopped = self._changes.mirror, 0
        for row in list(mirror.sessions.values()):
            paid = any((agent := mirror.agents.get(m.agent)) and agent.instance for m in row.members)
            costs = row.price > 0 and (row.project == budget.project if budget.project else paid)
            spared = not row.spec.preemptible and waited < 2 * budget.grace_s
            if row.state not in PLACED or row.stopping_as or not costs or spared:
                continue
            to = _S.LOST if row.state is _S.LOST else _S.STOPPING
            text = f"budget {budget.name} is spent, and says to stop what costs money"
            await change.session(row, to, Reason.BUDGET, text, stopping_as=_S.CANCELLED)
            stopped += 1
        return stopped


def _counts(budget: Budget) -> tuple[object, ...]:
    """Return what of a budget decides which costs it counts."""
    return (budget.project, budget.period, budget.zone)


async def _added_up(tx: Transaction, budget: Budget, since: float, now: float) -> int:
    """Return what has ended costs in a period that began at `since`."""
    total, after = 0, ""
    if not budget.project:
        rows = await tx.find(Instance, state=str(InstanceState.GONE))
        return sum(machine_spent(row, since, now) for row in rows)
    while True:
        page = await tx.find(Session, project=budget.project, state=sorted(ENDED), after=after, limit=_PAGE)
        total += sum(spent(row, since, now) for row in page)
        if len(page) < _PAGE:
            return total
        after = page[-1].id
