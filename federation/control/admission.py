"""Admission: which waiting sessions may be routed at all, as policies and budgets say; the others are held."""

from dataclasses import replace

from atoll.group import GroupKind
from atoll.offer import Decision, Demand, Outcome
from atoll.session import Session
from atoll.states import WAITING, SessionState
from federation.control.budgets import Budgets
from federation.control.changes import Change, Changes
from federation.control.demands import demand
from federation.control.rulings import Active, Held
from federation.control.world import World


class Admission:
    """Looks at every waiting session before it is routed. `limited` are those kept to own machines, with why."""

    def __init__(self, changes: Changes, budgets: Budgets) -> None:
        self.limited: dict[str, Held] = {}
        self._changes = changes
        self._budgets = budgets

    async def admit(self, world: World, active: Active) -> list[Demand]:
        """Return the demands of those that may go on, some of them limited to own machines; hold the others."""
        self.limited = {}
        if not world.waiting:
            return []
        accounts = await self._budgets.look()
        own = tuple(sorted(group.name for group in world.groups if group.kind is GroupKind.FIXED))
        demands: list[Demand] = []
        held: list[tuple[Session, Held]] = []
        for row in world.waiting:
            asked = demand(row, active.max_wait(row))
            why = active.admit(row) or accounts.before(row)
            if why is None and (limited := accounts.owned_only(row)):
                self.limited[row.id] = limited
                groups = tuple(name for name in own if not asked.groups or name in asked.groups)
                why = None if groups else limited
                asked = replace(asked, groups=groups)
            if why is None:
                demands.append(asked)
            elif (row.reason, row.message) != (why.reason, why.message) or row.state is not SessionState.HELD:
                held.append((row, why))
        if held:
            async with self._changes.commit("session.place") as change:
                for row, why in held:
                    fresh = await change.tx.get(Session, row.id)
                    if fresh is not None:
                        await hold(change, fresh, why)
        return demands


async def hold(change: Change, row: Session, why: Held, found: Decision | None = None) -> None:
    """Hold a waiting session, and keep why beside what was `found` for it; one that waits no more is left alone."""
    if row.state not in WAITING:
        return
    found = found or Decision(session=row.id, outcome=Outcome.HOLD, reason=why.reason, message="")
    told = replace(
        found, outcome=Outcome.HOLD, reason=why.reason, message=why.message, hint=why.hint, taken=(), preempts=()
    )
    await change.tx.decide(row.id, told, change.now)
    await change.session(row, SessionState.HELD, why.reason, why.message, hint=why.hint, instance="")
