"""Agents as users handle them: list, cordon, remove, revoke; and what is free on each."""

from collections.abc import Callable, Sequence

from atoll.agent import Agent
from atoll.duration import rough
from atoll.errors import Conflict, NotFound
from atoll.instance import Instance
from atoll.session import Session
from atoll.slots import Slots, total
from atoll.states import KEPT, PLACED, AgentState, InstanceState, Reason
from federation.control.changes import Change, Changes
from federation.control.demands import protection
from federation.control.links import Links
from federation.control.liveagent import LiveAgent
from federation.control.members import holders, vanished
from federation.control.trust import distrust
from tunnel import wire


class Agents:
    """Use cases on agents."""

    def __init__(self, changes: Changes, links: Links, on_change: Callable[[], None]) -> None:
        self._changes = changes
        self._links = links
        self._on_change = on_change

    async def get(self, ref: str) -> Agent:
        """Return an agent by id or by name; raise `NotFound`."""
        async with self._changes.look() as tx:
            return await _find(Change(tx, 0.0), ref)

    def live(self, agent: str) -> LiveAgent | None:
        """Return the agent's link and its facts, or None while it is not connected."""
        return self._links.live(agent)

    async def placed(self) -> dict[str, list[tuple[str, Session]]]:
        """Return the live runs of every agent, as (run id, session)."""
        async with self._changes.look() as tx:
            rows = await tx.find(Session, state=sorted(PLACED))
        return by_agent(rows)

    async def list(self, *, states: Sequence[str] = KEPT) -> list[Agent]:
        """Return agents, oldest first; those that left or are gone only when asked for."""
        async with self._changes.look() as tx:
            return await tx.find(Agent, state=list(states))

    async def cordon(self, ref: str, by: str, deadline_s: float | None = None) -> Agent:
        """Let an agent take no new session; what runs goes on.

        After `deadline_s` seconds sessions that can take a checkpoint and are not protected are moved off it. Said
        again with a deadline, this changes it; without one, it leaves it as it is.
        """
        async with self._changes.commit("agent.cordon") as change:
            row = await _find(change, ref)
            until = None if deadline_s is None else change.now + deadline_s
            row = await cordon(change, row, f"cordoned by {by}", until)
        self.tell_cordon(row)
        self._on_change()
        return row

    async def uncordon(self, ref: str, by: str) -> Agent:
        """Undo a cordon, and with it the deadline of one."""
        async with self._changes.commit("agent.uncordon") as change:
            row = await _find(change, ref)
            if row.state is AgentState.DRAINING:
                row = await undrain(change, row, Reason.USER, f"uncordoned by {by}")
        self.tell_cordon(row)
        self._on_change()
        return row

    async def remove(self, ref: str, by: str) -> Agent:
        """Take an empty, registered machine's agent out of the installation.

        Of a revoked one this says that its machine runs nothing any more: sessions that were there run again.
        Raises `Conflict` while sessions are there, or when a group's provider made its machine.
        """
        async with self._changes.commit("agent.remove") as change:
            row = await _find(change, ref)
            if row.instance:
                raise Conflict(
                    f"agent {row.name} is an instance of group {row.group}",
                    hint="the group ends it when it is idle; cordon it to speed that up",
                )
            if row.state is AgentState.REVOKED:
                await vanished(change, row.id, Reason.AGENT_GONE, f"revoked agent {row.name} was removed by {by}")
            if await change.tx.find(Session, agent=row.id, state=sorted(PLACED), limit=1):
                raise Conflict(f"sessions run on agent {row.name}", hint=f"first: atoll agent cordon {row.name}")
            row = await change.agent(row, AgentState.LEFT, Reason.LEFT, f"removed by {by}")
        self._links.send(row.id, wire.Leave(reason="removed"))
        self._on_change()
        return row

    async def revoke(self, ref: str, by: str) -> Agent:
        """Make an agent's certificate worth nothing and end its link with all streams; its key never joins again.

        What it runs cannot be known from then on: its sessions are lost, and run again when their lease is over, when
        its machine has ended, or when a person removes the agent (I8). A machine that a provider made is ended.
        Raises `Conflict` for an agent that has left or is gone.
        """
        async with self._changes.commit("agent.revoke") as change:
            row = await _find(change, ref)
            if row.state is AgentState.REVOKED:
                return row
            if row.state not in KEPT:
                raise Conflict(f"agent {row.name} is {row.state}: its certificate is worth nothing already")
            row = await distrust(change, row, Reason.REVOKED, f"revoked by {by}")
        self._links.dismiss(row)
        self._on_change()
        return row

    async def left(self, agent: str, reason: str) -> None:
        """An agent said that it leaves, with all its runs ended: its sessions go back to the queue."""
        async with self._changes.commit("agent.left") as change:
            row = await change.tx.get(Agent, agent)
            if row is None or row.state not in KEPT:
                return
            text = reason or "left by its owner"
            await vanished(change, agent, Reason.AGENT_GONE, f"agent {row.name} left")
            await change.agent(row, AgentState.LEFT, Reason.LEFT, text)
            instance = await change.tx.get(Instance, row.instance) if row.instance else None
            if instance:
                await change.end(instance, Reason.LEFT, f"its agent left: {text}")
        self._on_change()

    def tell_cordon(self, row: Agent) -> None:
        """Send the agent its cordon state; registration repeats it if this is lost."""
        epoch = row.cordon_epoch or row.epoch
        self._links.send(row.id, wire.Cordon(epoch=epoch, cordoned=row.state is AgentState.DRAINING))


async def cordon(change: Change, row: Agent, message: str, until: float | None) -> Agent:
    """Decide for a person that an agent empties, until `until` if there is a deadline.

    One that drains already does so for this person from now on, if a deadline is given; others are left alone.
    """
    if row.state is AgentState.READY:
        return await drain(change, row, Reason.USER, message, until=until)
    if row.state is AgentState.DRAINING and until is not None:
        return await change.agent(row, row.state, Reason.USER, message, drain_until=until)
    return row


async def drain(change: Change, row: Agent, reason: Reason, message: str, *, until: float | None = None) -> Agent:
    """Decide that an agent empties: a new epoch, which its acknowledgement must reach (I4)."""
    epoch = row.epoch + 1
    row = await change.agent(
        row,
        AgentState.DRAINING,
        reason,
        message,
        epoch=epoch,
        cordon_epoch=epoch,
        acknowledged_epoch=0,
        drain_until=until,
    )
    instance = await change.tx.get(Instance, row.instance) if row.instance else None
    if instance and instance.state is InstanceState.JOINED:
        await change.instance(instance, InstanceState.DRAINING, reason, message)
    return row


async def undrain(change: Change, row: Agent, reason: Reason, message: str) -> Agent:
    """Decide that a draining agent is to be used again."""
    row = await change.agent(
        row, AgentState.READY, reason, message, epoch=row.epoch + 1, cordon_epoch=0, acknowledged_epoch=0
    )
    instance = await change.tx.get(Instance, row.instance) if row.instance else None
    if instance and instance.state is InstanceState.DRAINING:
        await change.instance(instance, InstanceState.JOINED, reason, message)
    return row


def outlook(row: Agent, sessions: Sequence[Session], now: float) -> str:
    """Return what the deadline of an agent's drain means for the sessions there, or "" where it has none."""
    if row.state is not AgentState.DRAINING or row.drain_until is None:
        return ""
    moved = [session.name for session in sessions if session.spec.checkpoint and not protection(session, now)]
    kept = [f"{session.name} ({_why_kept(session, now)})" for session in sessions if session.name not in moved]
    left = row.drain_until - now
    when = f"in {rough(left)}" if left > 0 else "now, for the time is over"
    parts = [f"sessions that can take a checkpoint are moved {when}: {_listed(moved)}"]
    parts += [f"these end by themselves: {_listed(kept)}"] if kept else []
    return f"{'; '.join(parts)}; `atoll agent uncordon {row.name}` cancels this"


def _why_kept(row: Session, now: float) -> str:
    return "protected" if protection(row, now) else "takes no checkpoint"


def _listed(names: Sequence[str], most: int = 8) -> str:
    return (", ".join(names[:most]) or "none") + (" …" if len(names) > most else "")


def by_agent(rows: Sequence[Session]) -> dict[str, list[tuple[str, Session]]]:
    """Return which runs of these placed sessions occupy slots on which agent, those that a move holds for included."""
    result: dict[str, list[tuple[str, Session]]] = {}
    for row in rows:
        for run, member in holders(row):
            result.setdefault(member.agent, []).append((run, row))
    return result


def used(agent: str, rows: Sequence[Session]) -> Slots:
    """Return the slots that these placed sessions hold on an agent: free is capacity less this."""
    return total(member.slots for row in rows for _, member in holders(row) if member.agent == agent)


async def _find(change: Change, ref: str) -> Agent:
    row = await change.tx.get(Agent, ref)
    if row is not None:
        return row
    named = await change.tx.find(Agent, name=ref, newest=True)
    kept = [row for row in named if row.state in KEPT] or named
    if not kept:
        raise NotFound(f"there is no agent {ref!r}", hint="see `atoll agent list`")
    return kept[0]
