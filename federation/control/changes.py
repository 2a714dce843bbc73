"""Every change of a noun goes through here: one named commit, its moves checked, its events appended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.event import Event
from atoll.instance import Instance
from atoll.money import cost
from atoll.session import Member, Session
from atoll.states import (
    AGENT_MOVES,
    ENDED,
    INSTANCE_MOVES,
    SESSION_MOVES,
    AgentState,
    InstanceState,
    Reason,
    SessionState,
    check_move,
)
from federation.control.steps import Steps
from federation.ports import Bus, Store, Transaction

_S = SessionState


class Change:
    """An open transaction with the moves of the nouns. `now` is one time for all its records."""

    def __init__(self, tx: Transaction, now: float) -> None:
        self.tx = tx
        self.now = now

    async def event(
        self, kind: str, key: str, state: str, *, name: str = "", reason: str = "", message: str = ""
    ) -> None:
        """Append an event."""
        await self.tx.append(
            Event(kind=kind, key=key, state=state, at=self.now, name=name, reason=reason, message=message)
        )

    async def session(
        self, row: Session, to: SessionState, reason: Reason, message: str = "", *, hint: str = "", **fields: Any
    ) -> Session:
        """Move a session; `fields` replace others of its fields. No event when nothing a reader sees changed."""
        check_move(SESSION_MOVES, row.state, to, f"session {row.id}")
        if to in ENDED and row.ended_at is None:
            fields.setdefault("ended_at", self.now)
        saved = await self.tx.update(replace(row, state=to, reason=reason, message=message, hint=hint, **fields))
        if (row.state, row.reason, row.message) != (to, reason, message):
            await self.event("session", row.id, to, name=row.name, reason=reason, message=message)
        return saved

    async def agent(
        self, row: Agent, to: AgentState, reason: Reason, message: str = "", *, verb: str = "", **fields: Any
    ) -> Agent:
        """Move an agent; the event carries `verb` instead of the state when given."""
        check_move(AGENT_MOVES, row.state, to, f"agent {row.id}")
        if to in (AgentState.LEFT, AgentState.GONE) and row.ended_at is None:
            fields.setdefault("ended_at", self.now)
        saved = await self.tx.update(replace(row, state=to, reason=reason, message=message, **fields))
        await self.event("agent", row.id, verb or to, name=row.name, reason=reason, message=message)
        return saved

    async def instance(
        self, row: Instance, to: InstanceState, reason: Reason, message: str = "", **fields: Any
    ) -> Instance:
        """Move an instance; `since` is set when the state changes, its cost is settled when it is gone."""
        check_move(INSTANCE_MOVES, row.state, to, f"instance {row.id}")
        if to != row.state:
            fields.setdefault("since", self.now)
        if to is InstanceState.GONE:
            fields |= {"ended_at": self.now, "cost": instance_cost(row, self.now)}
        saved = await self.tx.update(replace(row, state=to, reason=reason, message=message, **fields))
        await self.event("instance", row.id, to, name=row.group, reason=reason, message=message)
        return saved

    async def interrupt(self, row: Session, reason: Reason, message: str) -> Session:
        """Take a session off agents that surely do not run it any more: back to the queue, or failed.

        The attempt's cost is settled. A session that was being stopped gets the end it was going to.
        """
        row = settle(row, self.now)
        if row.stopping_as and row.stopping_as is not _S.INTERRUPTED:
            return await self.session(row, row.stopping_as, reason, message, price=0)
        row = await self.session(row, _S.INTERRUPTED, reason, message, interruptions=row.interruptions + 1, price=0)
        if row.interruptions > row.spec.retry.max:
            text = f"interrupted {row.interruptions} times, which is more than retry.max = {row.spec.retry.max}"
            return await self.session(
                row, _S.FAILED, Reason.RETRIES_EXHAUSTED, text, hint="raise retry.max, or refuse spot with --no-spot"
            )
        return await self.session(
            row,
            _S.QUEUED,
            Reason.REQUEUED,
            f"queued again: {message}",
            members=(),
            instance="",
            site="",
            group="",
            stopping_as=None,
            queued_at=self.now,
        )


def settle(row: Session, now: float) -> Session:
    """Return the session with its running attempt's cost added, as of `now`.

    Members are charged from their start to their end, at their price; unfinished ones up to `now`.
    """
    return replace(row, cost=row.cost + accrued(row, now))


def on_demand(row: Session, now: float) -> int:
    """Return what the current attempt would have cost up to `now` at the cheapest on-demand offer's price.

    Attempts that were interrupted do not count: an on-demand machine would not have been taken away.
    """
    if row.on_demand_price is None:
        return accrued(row, now)
    return sum(cost(row.on_demand_price, span) for span in _spans(row.members, now))


def accrued(row: Session, now: float) -> int:
    """Return the cost of the current attempt up to `now`, in micro-units; 0 once it has been settled."""
    if row.state in ENDED or row.state in (_S.QUEUED, _S.PROVISIONING, _S.HELD, _S.INTERRUPTED):
        return 0
    return sum(cost(member.price, span) for member, span in zip(row.members, _spans(row.members, now), strict=True))


def instance_cost(row: Instance, now: float) -> int:
    """Return what an instance has cost up to `now`: its shape's price since the cloud confirmed it."""
    if row.state is InstanceState.GONE:
        return row.cost
    return 0 if row.booted_at is None else cost(row.shape.price or 0, now - row.booted_at)


def _spans(members: tuple[Member, ...], now: float) -> list[float]:
    return [0.0 if m.started_at is None else (m.ended_at or now) - m.started_at for m in members]


class Changes:
    """Opens named commits, one at a time: within one control plane no change races another."""

    def __init__(self, store: Store, bus: Bus, clock: Clock, steps: Steps) -> None:
        self.store = store
        self.bus = bus
        self.clock = clock
        self.steps = steps
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def commit(self, step: str) -> AsyncIterator[Change]:
        """Open a change that is committed as step `step`; watchers are woken after it."""
        async with self._lock:
            async with self.store.transaction() as tx:
                yield Change(tx, self.clock.now())
                self.steps.before(step)
            self.steps.after(step)
        self.bus.publish("events")

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Transaction]:
        """Open a transaction for reading only."""
        async with self.store.transaction() as tx:
            yield tx
