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
    KEPT,
    PLACED,
    SESSION_MOVES,
    AgentState,
    InstanceState,
    Reason,
    SessionState,
    check_move,
)
from atoll.token import Token
from federation.control.mirror import Mirror
from federation.control.steps import Steps
from federation.control.stretches import settle
from federation.ports import Bus, Store, Transaction

_S = SessionState


EARLIER_RUNS = 256
"""Of this many runs of a session's earlier attempts it is known where they were."""


class Change:
    """An open transaction with the moves of the nouns. `now` is one time for all its records."""

    def __init__(self, tx: Transaction, now: float) -> None:
        self.tx = tx
        self.now = now

    async def event(
        self,
        kind: str,
        key: str,
        state: str,
        *,
        name: str = "",
        reason: str = "",
        message: str = "",
        project: str = "",
    ) -> None:
        """Append an event; a session's is told to members of its `project` alone."""
        data = {"project": project} if project else {}
        await self.tx.append(
            Event(kind=kind, key=key, state=state, at=self.now, name=name, reason=reason, message=message, data=data)
        )

    async def session(
        self, row: Session, to: SessionState, reason: Reason, message: str = "", *, hint: str = "", **fields: Any
    ) -> Session:
        """Move a session; `fields` replace others of its fields. No event when nothing a reader sees changed.

        One that ends, waits or is being stopped holds no slots to move to any more.
        """
        check_move(SESSION_MOVES, row.state, to, f"session {row.id}")
        if to not in PLACED or fields.get("stopping_as"):
            fields.setdefault("moving", None)
        if to in ENDED and row.ended_at is None:
            fields.setdefault("ended_at", self.now)
        saved = await self.tx.update(replace(row, state=to, reason=reason, message=message, hint=hint, **fields))
        if (row.state, row.reason, row.message) != (to, reason, message):
            await self._told(saved, reason, message)
        return saved

    async def _told(self, row: Session, reason: Reason, message: str) -> None:
        await self.event(
            "session", row.id, row.state, name=row.name, reason=reason, message=message, project=row.project
        )

    async def agent(
        self, row: Agent, to: AgentState, reason: Reason, message: str = "", *, verb: str = "", **fields: Any
    ) -> Agent:
        """Move an agent; the event carries `verb` instead of the state when given. A drain's deadline ends with it."""
        check_move(AGENT_MOVES, row.state, to, f"agent {row.id}")
        if to is not AgentState.DRAINING:
            fields.setdefault("drain_until", None)
        if to not in KEPT and row.ended_at is None:
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

    async def end(self, row: Instance, reason: Reason, message: str, *, console: str = "") -> Instance:
        """Decide that an instance ends, whatever it is at; one that was never asked for is gone at once.

        Its join token is void from here on. One that is ending or gone stays as it is.
        """
        if row.state in (InstanceState.ENDING, InstanceState.GONE):
            return row
        for token in await self.tx.find(Token, instance=row.id):
            await self.tx.delete(Token, token.id)
        to = InstanceState.GONE if row.state is InstanceState.INTENDED else InstanceState.ENDING
        return await self.instance(row, to, reason, message, console=console or row.console)

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
        return await self._queue(row, Reason.REQUEUED, f"queued again: {message}")

    async def resume(self, row: Session) -> Session:
        """Take a session on that has saved its state: onto the slots held for it, or to the queue where none are.

        The attempt's cost is settled, and compared with on-demand prices, for its work is kept. Counts as a move,
        not as an interruption.
        """
        moving = row.moving
        text = f"saved its state at {row.site}" + (f": {moving.message}" if moving else "")
        ran = row.ran_s + (self.now - row.started_at if row.started_at is not None else 0.0)
        row = replace(settle(row, self.now, kept=True), ran_s=ran, moves=row.moves + 1, moved_at=self.now)
        if not (moving and moving.to and await self._ready(moving.to)):
            return await self._queue(row, Reason.MOVED, text)
        return await self.session(
            row,
            _S.STARTING,
            Reason.MOVED,
            f"moved from {row.site} to {moving.site}: {moving.message}",
            attempt=row.attempt + 1,
            members=moving.to,
            earlier=_earlier(row),
            site=moving.site,
            group=moving.group,
            price=sum(member.price for member in moving.to),
            moving=None,
            stopping_as=None,
            started_at=None,
            exit_code=None,
        )

    async def preempt(self, row: Session) -> Session:
        """Put a session that was stopped for another back into the queue; this counts as no interruption."""
        text = row.moving.message if row.moving else "made room for another session"
        return await self._queue(settle(row, self.now), Reason.PREEMPTED, text)

    async def stay(self, row: Session, why: str, *, hint: str = "") -> Session:
        """Give a move up: the session runs on where it is, and what was held for it is free."""
        text = f"stays at {row.site}: {why}"
        if row.state is _S.RUNNING:
            return await self.session(row, row.state, Reason.NOT_MOVED, text, hint=hint, moving=None, moved_at=self.now)
        await self._told(row, Reason.NOT_MOVED, text)
        return await self.session(
            row, row.state, row.reason, row.message, hint=row.hint, moving=None, moved_at=self.now
        )

    async def _ready(self, members: tuple[Member, ...]) -> bool:
        agents = [await self.tx.get(Agent, member.agent) for member in members]
        return all(agent is not None and agent.state is AgentState.READY for agent in agents)

    async def _queue(self, row: Session, reason: Reason, message: str) -> Session:
        return await self.session(
            row,
            _S.QUEUED,
            reason,
            message,
            members=(),
            earlier=_earlier(row),
            instance="",
            site="",
            group="",
            price=0,
            stopping_as=None,
            started_at=None,
            exit_code=None,
            queued_at=self.now,
        )


def _earlier(row: Session) -> dict[str, str]:
    """Return which agents earlier runs were on, with those of the attempt that ends; the oldest are forgotten."""
    ended = {f"{row.attempt}.{member.rank}": member.agent for member in row.members}
    return dict(list((row.earlier | ended).items())[-EARLIER_RUNS:])


def instance_cost(row: Instance, now: float) -> int:
    """Return what an instance has cost up to `now`: its shape's price since the cloud confirmed it."""
    if row.state is InstanceState.GONE:
        return row.cost
    return 0 if row.booted_at is None else cost(row.shape.price or 0, now - row.booted_at)


class Changes:
    """Opens named commits, one at a time: within one control plane no change races another."""

    def __init__(self, store: Store, bus: Bus, clock: Clock, steps: Steps) -> None:
        self.store = store
        self.bus = bus
        self.clock = clock
        self.steps = steps
        self.mirror = Mirror()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def commit(self, step: str) -> AsyncIterator[Change]:
        """Open a change that is committed as step `step`; watchers are woken after it."""
        async with self._lock:
            committing = False
            try:
                async with self.store.transaction() as tx:
                    yield Change(tx, self.clock.now())
                    self.steps.before(step)
                    committing = True
            except BaseException:
                if committing:  # then it may have been committed all the same
                    self.mirror.forget()
                raise
            self.mirror.apply(tx.written)
            self.steps.after(step)
        self.bus.publish("events")

    async def rows(self) -> Mirror:
        """Return the live rows of this moment; they change with the next commit."""
        if not self.mirror.loaded:
            async with self._lock, self.store.transaction() as tx:
                await self.mirror.load(tx)
        return self.mirror

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Transaction]:
        """Open a transaction for reading only."""
        async with self.store.transaction() as tx:
            yield tx
