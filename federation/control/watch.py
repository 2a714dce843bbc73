"""The watch over placed sessions: tell agents, notice silence, leases and life times."""

from collections.abc import Callable
from dataclasses import replace

from atoll.agent import Agent
from atoll.instance import Instance
from atoll.session import Member, MemberState, Session
from atoll.states import KEPT, PLACED, WAITING, AgentState, InstanceState, Reason, SessionState
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from federation.control.links import Links
from federation.control.members import current_runs, vanished, vanished_member
from federation.control.moves import Moves
from federation.control.policies import Policies
from tunnel import wire

_S = SessionState


class Watch:
    """Every placed session has a next action here: start, stop, be lost, be taken back, expire."""

    def __init__(self, changes: Changes, links: Links, moves: Moves, policies: Policies, config: ControlConfig) -> None:
        self._changes = changes
        self._policies = policies
        self._links = links
        self._moves = moves
        self._config = config
        self.on_change: Callable[[], None] = lambda: None
        self.on_silence: Callable[[], None] = lambda: None

    async def round(self) -> float | None:
        """Look at all sessions once; return when the next move's time is over, in seconds."""
        rows = await self._changes.rows()
        placed = [row for row in rows.sessions.values() if row.state in PLACED]
        waiting = [row for row in rows.sessions.values() if row.state in WAITING]
        agents = dict(rows.agents)
        await self._expire(placed, waiting)
        blind = frozenset(site.name for site in rows.sites.values() if site.blind)
        for row in placed:
            self._tell(row, agents, blind)
        await self._silence(placed)
        self._cordons(agents)
        return await self._moves.round(placed, agents)

    def _cordons(self, agents: dict[str, Agent]) -> None:
        for row in agents.values():
            if row.state is AgentState.DRAINING and row.acknowledged_epoch < row.cordon_epoch:
                key = f"cordon:{row.cordon_epoch}"
                self._links.tell_once(row.id, key, wire.Cordon(epoch=row.cordon_epoch, cordoned=True))

    def _tell(self, row: Session, agents: dict[str, Agent], blind: frozenset[str]) -> None:
        """Send each member's agent what it may not know yet; repeated only on a new link. `blind` are sites."""
        for run, member in current_runs(row):
            if member.state is MemberState.EXITED or member.agent not in agents:
                continue
            if row.stopping_as:
                stop = wire.Stop(run=run, grace=row.spec.lifetime.grace)
                self._links.tell_once(member.agent, f"stop:{run}", stop)
            elif row.moving and row.spec.checkpoint and member.state is MemberState.RUNNING:
                self._ask(row.moving.asked_at, row.spec.checkpoint.signal, run, member.agent)
            elif member.state is MemberState.STARTING:
                self._links.tell_once(member.agent, f"start:{run}", self._start(row, run, member, agents, blind))

    def _ask(self, asked_at: float, signal: str, run: str, agent: str) -> None:
        ask = wire.Checkpoint(run=run, signal=signal, asked_at=asked_at)
        self._links.tell_once(agent, f"checkpoint:{run}:{asked_at}", ask)

    def _start(
        self, row: Session, run: str, member: Member, agents: dict[str, Agent], blind: frozenset[str]
    ) -> wire.Start:
        env = {
            "ATOLL_SESSION": row.id,
            "ATOLL_SESSION_NAME": row.name,
            "ATOLL_ATTEMPT": str(row.attempt),
            "ATOLL_RANK": str(member.rank),
            "ATOLL_NODES": str(row.spec.nodes),
        }
        if row.moves:
            env["ATOLL_RESUMED"] = "1"
        lease = row.spec.retry.lease if row.spec.retry.lost else 0.0
        agent = agents[member.agent]
        spec = replace(row.spec, blind=True) if agent.site in blind else row.spec
        return wire.Start(run=run, epoch=agent.epoch, spec=spec, slots=member.slots, env=env, lease_s=lease)

    async def _silence(self, placed: list[Session]) -> None:
        for row in placed:
            silent = [m for m in row.members if m.state is not MemberState.EXITED and self._is_silent(m.agent)]
            if silent and row.state is not _S.LOST:
                await self._lose(row, silent[0])
            elif silent and row.spec.retry.lost:
                for member in silent:
                    if self._links.silent_for(member.agent) >= row.spec.retry.lease:
                        await self._take_back(row, member)

    def _is_silent(self, agent: str) -> bool:
        return self._links.live(agent) is None and self._links.silent_for(agent) >= self._config.lost_after_s

    async def _lose(self, row: Session, member: Member) -> None:
        async with self._changes.commit("session.lose") as change:
            now = await change.tx.get(Session, row.id)
            if now is None or now.attempt != row.attempt or now.state not in PLACED or now.state is _S.LOST:
                return
            text = "the link to its agent is down; it may still run there"
            hint = f"it goes on when agent {member.agent} is back; `atoll stop {now.name}` gives it up"
            await change.session(now, _S.LOST, Reason.LINK_DOWN, text, hint=hint)
        self.on_silence()

    async def _take_back(self, row: Session, member: Member) -> None:
        """Its lease has run out: the agent has ended it by its own clock before this moment (I8)."""
        async with self._changes.commit("session.lease") as change:
            now = await change.tx.get(Session, row.id)
            if now is None or now.attempt != row.attempt or now.state is not _S.LOST:
                return
            if self._links.live(member.agent):
                return
            text = f"no word from agent {member.agent} for {row.spec.retry.lease:.0f} s"
            await vanished_member(change, now, member, Reason.LEASE_EXPIRED, text)
        self.on_change()

    async def _expire(self, placed: list[Session], waiting: list[Session]) -> None:
        now = self._changes.clock.now()
        active = await self._policies.active()
        for row in placed:
            limit = row.spec.lifetime.max
            if (
                limit is not None
                and row.started_at is not None
                and not row.stopping_as
                and row.ran_s + now - row.started_at > limit
            ):
                await self._stop(row, f"ran longer than lifetime.max = {limit:g} s")
        for row in waiting:
            wait = active.max_wait(row)
            if wait is not None and now - row.queued_at > wait:
                async with self._changes.commit("session.expire") as change:
                    fresh = await change.tx.get(Session, row.id)
                    if fresh and fresh.state in WAITING:
                        text = f"waited longer than {_whose(row)}max_wait = {wait:g} s"
                        await change.session(fresh, _S.EXPIRED, Reason.MAX_WAIT, text, instance="")

    async def _stop(self, row: Session, message: str) -> None:
        async with self._changes.commit("session.expire") as change:
            now = await change.tx.get(Session, row.id)
            if now is None or now.state not in PLACED or now.stopping_as:
                return
            to = _S.LOST if now.state is _S.LOST else _S.STOPPING
            await change.session(now, to, Reason.MAX_LIFETIME, message, stopping_as=_S.EXPIRED)


async def recover(change: Change) -> bool:
    """Put right what no round would: placed sessions of agents that are gone. Returns whether agents are on record.

    A revoked agent is not known to be gone: its sessions wait for their leases, or for word of its machine (I8).
    """
    kept = {row.id: row for row in await change.tx.find(Agent, state=[*KEPT, AgentState.REVOKED])}
    for row in await change.tx.find(Session, state=sorted(PLACED)):
        for member in row.members:
            if member.agent not in kept and member.state is not MemberState.EXITED:
                await vanished(change, member.agent, Reason.AGENT_GONE, "its agent is gone")
                break
    live = await change.tx.find(Instance, state=[str(s) for s in InstanceState if s is not InstanceState.GONE], limit=1)
    return bool(kept or live)


def _whose(row: Session) -> str:
    return "its policy's " if row.spec.lifetime.max_wait is None else "lifetime."
