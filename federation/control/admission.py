"""Admission: which waiting sessions may be routed at all, as policies and budgets say; the others are held."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from atoll.group import Group, GroupKind
from atoll.offer import Decision, Demand, Outcome
from atoll.session import Session
from atoll.states import WAITING, SessionState
from federation.control.budgets import Budgets
from federation.control.changes import Change, Changes
from federation.control.demands import demand
from federation.control.rulings import Active, Held
from federation.control.spending import Accounts
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
        own = own_groups(world.groups)
        demands: list[Demand] = []
        held: list[tuple[Session, Held]] = []
        for row in world.waiting:
            said = judge(row, active.admit(row), active, accounts, own)
            why = said.held
            if said.limited:
                self.limited[row.id] = said.limited
            if why is None:
                demands.append(said.demand)
            elif (row.reason, row.message) != (why.reason, why.message) or row.state is not SessionState.HELD:
                held.append((row, why))
        if held:
            async with self._changes.commit("session.place") as change:
                for row, why in held:
                    fresh = await change.tx.get(Session, row.id)
                    if fresh is not None:
                        await hold(change, fresh, why)
        return demands


@dataclass(frozen=True, slots=True)
class Said:
    """What policies and budgets say of a waiting session: its demand, and why it is held or limited to own machines."""

    demand: Demand
    held: Held | None
    limited: Held | None


def judge(row: Session, ruled: Held | None, active: Active, accounts: Accounts, own: Sequence[str]) -> Said:
    """Return whether a session may be routed, and where: `ruled` is what its policies say, `own` the owned groups."""
    asked = demand(row, active.max_wait(row))
    held, limited = ruled or accounts.before(row), None
    if held is None and (limited := accounts.owned_only(row)):
        groups = tuple(name for name in own if not asked.groups or name in asked.groups)
        held = None if groups else limited
        asked = replace(asked, groups=groups)
    return Said(asked, held, limited)


def own_groups(groups: Iterable[Group]) -> tuple[str, ...]:
    """Return the names of the groups whose machines are there anyway."""
    return tuple(sorted(group.name for group in groups if group.kind is GroupKind.FIXED))


def told(found: Decision, why: Held) -> Decision:
    """Return a decision that holds a session, with what was found for it."""
    return replace(
        found, outcome=Outcome.HOLD, reason=why.reason, message=why.message, hint=why.hint, taken=(), preempts=()
    )


async def hold(change: Change, row: Session, why: Held, found: Decision | None = None) -> None:
    """Hold a waiting session, and keep why beside what was `found` for it; one that waits no more is left alone."""
    if row.state not in WAITING:
        return
    found = found or Decision(session=row.id, outcome=Outcome.HOLD, reason=why.reason, message="")
    await change.tx.decide(row.id, told(found, why), change.now)
    await change.session(row, SessionState.HELD, why.reason, why.message, hint=why.hint, instance="")
