"""Why: the stored decisions, plan steps and events about one session, agent or group."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from atoll.event import Event
from atoll.offer import Decision
from atoll.plan import Move, Note, Plan, Step
from atoll.session import Session
from atoll.states import PLACED
from federation.control.agents import Agents, outlook
from federation.control.changes import Changes
from federation.control.named import Groups
from federation.control.sessions import Sessions

_PLANS, _EVENTS, _SHOWN = 200, 5000, 40
Said: TypeAlias = Step | Note | Move
"""What a plan says: a step, a decision not to act, or a session's move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The present state in words, and what led there, newest first. A step is (time, plan id, step or note)."""

    kind: str
    id: str
    name: str
    state: str
    reason: str
    message: str
    hint: str = ""
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    steps: list[tuple[float, str, Said]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Explanations:
    """Answers `why` from what is stored: nothing is decided again for the answer."""

    def __init__(self, changes: Changes, sessions: Sessions, agents: Agents, groups: Groups) -> None:
        self._changes = changes
        self._sessions = sessions
        self._agents = agents
        self._groups = groups

    async def session(self, project: str, ref: str) -> Why:
        """Explain a session: its placements, and the launches that were made for it."""
        row = await self._sessions.get(project, ref)
        async with self._changes.look() as tx:
            decisions = await tx.decisions(row.id)
        return Why(
            kind="session",
            id=row.id,
            name=row.name,
            state=row.state,
            reason=row.reason,
            message=row.message,
            hint=row.hint,
            decisions=decisions,
            steps=await self._steps(lambda x: _for_session(x, row)),
            events=await self._events("session", row.id),
        )

    async def agent(self, ref: str) -> Why:
        """Explain an agent: why it was kept, drained or ended."""
        row = await self._agents.get(ref)
        async with self._changes.look() as tx:
            there = await tx.find(Session, agent=row.id, state=sorted(PLACED))
        return Why(
            kind="agent",
            id=row.id,
            name=row.name,
            state=row.state,
            reason=row.reason,
            message=row.message,
            hint=outlook(row, there, self._changes.clock.now()),
            steps=await self._steps(lambda x: _of_agent(x, row.id)),
            events=await self._events("agent", row.id),
        )

    async def group(self, name: str) -> Why:
        """Explain a group: each scale decision, and each decision not to act."""
        row = await self._groups.get(name)
        steps = await self._steps(lambda x: _of_group(x, name))
        newest = steps[0][2] if steps else None
        return Why(
            kind="group",
            id=row.name,
            name=row.name,
            state=str(row.kind),
            reason=newest.reason if newest else "",
            message=newest.message if newest else "no plan has touched it yet",
            steps=steps,
            events=await self._events("group", row.name),
        )

    async def _steps(self, about: Callable[[Said], bool]) -> list[tuple[float, str, Said]]:
        async with self._changes.look() as tx:
            plans = await tx.find(Plan, newest=True, limit=_PLANS)
        found: list[tuple[float, str, Said]] = []
        for plan in plans:
            said: list[Said] = [*plan.moves, *plan.steps, *plan.notes]
            found += [(plan.at, plan.id, x) for x in said if about(x)]
            if len(found) >= _SHOWN:
                break
        return found[:_SHOWN]

    async def _events(self, kind: str, key: str) -> list[Event]:
        last = await self._changes.store.last_rev()
        events = await self._changes.store.events(max(0, last - _EVENTS), _EVENTS, (kind,))
        return [event for event in events if event.key == key][-_SHOWN:]


def _for_session(x: Said, row: Session) -> bool:
    return row.id in x.sessions if isinstance(x, Step) else x.session == row.id


def _of_agent(x: Said, agent: str) -> bool:
    return any(offer.target == agent for offer in x.to) if isinstance(x, Move) else x.agent == agent


def _of_group(x: Said, group: str) -> bool:
    return any(offer.group == group for offer in x.to) if isinstance(x, Move) else x.group == group
