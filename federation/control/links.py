"""The agents' links: registration with a full report first, then everything that goes up and down."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import structlog

from atoll.agent import Agent
from atoll.clock import Chance, Clock
from atoll.errors import AtollError, Unavailable
from atoll.group import Group
from atoll.instance import Instance
from atoll.session import MemberState, Session
from atoll.slots import Gpu, Slots
from atoll.states import KEPT, PLACED, AgentState, InstanceState, Reason
from atoll.token import Token
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from federation.control.linkhistory import LinkHistory
from federation.control.liveagent import LiveAgent
from federation.control.members import Verdict, apply, current_runs, find, ran_on
from federation.control.promises import shortfall
from federation.control.streams import Streams
from federation.control.trust import issue, refusal, vetted
from federation.ports import LogStore
from tunnel import wire
from tunnel.grant import agent_key
from tunnel.link import Link, Side

log = structlog.get_logger("control")

_MASS_LOSS_SHARE, _MASS_LOSS_LEAST = 0.3, 3
_INSIDE_LIMIT = 1024
_RELAYS_LIMIT = 8
UNREAD_MESSAGES = 10_000
UNREAD_BYTES = 32 * 1024 * 1024
"""Most that waits on one link; an agent holds its logs back long before."""


@dataclass(slots=True)
class _Inbox:
    """One link's messages, handled one after the other by one task."""

    messages: deque[tuple[wire.FromAgent, int]] = field(default_factory=deque)
    size: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    agent: LiveAgent | None = None


class Links:
    """Owner of all agents' links; `accept` is the protocol factory for connections that came with a certificate."""

    def __init__(self, changes: Changes, logs: LogStore, config: ControlConfig, clock: Clock, chance: Chance) -> None:
        self.streams = Streams(changes, config, clock, chance, self.live)
        self._changes = changes
        self._logs = logs
        self._config = config
        self._clock = clock
        self._inboxes: dict[Link, _Inbox] = {}
        self._live: dict[str, LiveAgent] = {}
        self._silent_since: dict[str, float] = {}
        self.history = LinkHistory()
        self._lost_at: deque[float] = deque()
        self._changed: set[str] = set()
        self._settle_until = 0.0
        self.started = clock.monotonic()
        self.on_change: Callable[[], None] = lambda: None
        self.on_leave: Callable[[str, str], None] = lambda _agent, _reason: None
        self.on_lost: Callable[[], None] = lambda: None
        self.on_end: Callable[[str, str], None] = lambda _agent, _reason: None
        self.on_kept: Callable[[LiveAgent, wire.Kept], Awaitable[None]] = _ignored
        self.on_mesh: Callable[[LiveAgent, wire.MeshStatus], None] = lambda _live, _status: None
        self.on_reports: Callable[[LiveAgent, wire.StreamReports], Awaitable[None]] = _ignored

    # -- seen by the rest of control ---------------------------------------------------------------

    def accept(self) -> Link:
        """Return the protocol for a new connection under `ALPN_CONTROL`."""
        return Link(self, side=Side.CONTROL)

    def live(self, agent: str) -> LiveAgent | None:
        """Return the agent's registered link, or None while it has none."""
        return self._live.get(agent)

    def connected(self) -> list[str]:
        """Return the ids of all connected agents."""
        return list(self._live)

    def take_changed(self) -> set[str]:
        """Return the agents whose link or notice changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def silent_for(self, agent: str) -> float:
        """Return seconds since anything was heard of the agent (since this process began, if never)."""
        live = self._live.get(agent)
        since = live.heard if live else self._silent_since.get(agent, self.started)
        return self._clock.monotonic() - since

    @property
    def settled(self) -> bool:
        """False right after a start with agents on record and after a mass loss: no destructive action then (I12)."""
        return self._clock.monotonic() >= self._settle_until

    @property
    def returning(self) -> bool:
        """True in the first seconds of this process, when agents of the one before are dialling again."""
        return self._clock.monotonic() - self.started < self._config.lost_after_s

    def unsettle(self) -> None:
        """Begin a settling time now."""
        self._settle_until = self._clock.monotonic() + self._config.settle_s

    def send(self, agent: str, message: wire.Message) -> bool:
        """Send to a connected agent; False when it is not connected (the next round or registration repeats it)."""
        live = self._live.get(agent)
        if live is None or not live.link.alive:
            return False
        live.link.send(message)
        return True

    def tell_once(self, agent: str, key: str, message: wire.Message) -> None:
        """Send a command that is repeated only on a new link."""
        live = self._live.get(agent)
        if live and key not in live.told and self.send(agent, message):
            live.told.add(key)

    def tell_relays(self, relays: Sequence[str]) -> None:
        """Tell all agents, and who opens streams, the URLs of the relays that serve, unless they know."""
        if self.streams.relays != list(relays):
            self.streams.relays = list(relays)
            for live in self._live.values():
                if live.protocol >= wire.RELAYS:
                    live.link.send(wire.Relays(relays=self.streams.relays))

    def evict(self, token: str) -> None:
        """Have agents with doors of their own end the streams of those who came by this API token (its id)."""
        for live in self._live.values():
            if live.direct:
                live.link.send(wire.Evict(tokens=[token]))

    def end(self, agent: str, reason: str) -> None:
        """End an agent's link and all its streams now; what it sent and nobody has taken in yet is left unread."""
        if live := self._live.get(agent):
            live.ended = True
        self.streams.end(agent, reason)
        self.on_end(agent, reason)

    def dismiss(self, row: Agent) -> None:
        """Tell an agent that is no member any more to end itself, and end its link and all its streams now."""
        self.send(row.id, refusal(row.id, row))
        self.end(row.id, "the agent was revoked")

    def owes(self, run: str) -> bool:
        """Say whether a connected agent has yet to send the rest of the output of a run that has ended."""
        return any(run in live.exited for live in self._live.values())

    async def close(self) -> None:
        """Close all links; agents reconnect to whoever comes next."""
        self.streams.close("the control plane is stopping")
        for link, inbox in list(self._inboxes.items()):
            link.close("the control plane is stopping")
            if inbox.task:
                inbox.task.cancel()
                await asyncio.gather(inbox.task, return_exceptions=True)
        self._inboxes.clear()
        self._live.clear()

    # -- LinkOwner -----------------------------------------------------------------------------------

    def linked(self, link: Link) -> None:
        """A connection is up; nothing counts before its Hello."""
        inbox = _Inbox()
        self._inboxes[link] = inbox
        inbox.task = asyncio.get_running_loop().create_task(self._serve(link, inbox), name=f"link {link.peer}")

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        """Queue a message for the link's task."""
        inbox = self._inboxes.get(link)
        if inbox is None:
            return
        inbox.messages.append((message, link.message_size))  # type: ignore[arg-type]
        inbox.size += link.message_size
        if len(inbox.messages) > UNREAD_MESSAGES or inbox.size > UNREAD_BYTES:
            link.close("too many messages at once")
        inbox.wake.set()

    def stream_opened(self, link: Link, open: wire.OpenStream) -> asyncio.Protocol | None:  # noqa: A002, ARG002
        """Agents open no streams."""
        return None

    def lost(self, link: Link, reason: str) -> None:
        """A link is gone; its agent may come back on another, or has already."""
        inbox = self._inboxes.get(link)
        if inbox is None:
            return
        live = inbox.agent
        if live and self._live.get(live.id) is live:
            del self._live[live.id]
            self.streams.relay.unlinked(live.id, link)
            self._changed.add(live.id)
            now = self._clock.monotonic()
            self._silent_since[live.id] = now  # up to here its pings were answered: its leases count from then (I8)
            self._note_loss(now)
            self.history.went(live.id, reason, self._clock.now())
            log.info("agent link lost", agent=live.id, reason=reason)
        inbox.messages.append((wire.Leave(reason="\0link lost"), 0))
        inbox.wake.set()
        self.on_lost()
        self.on_change()

    def _note_loss(self, now: float) -> None:
        self._lost_at.append(now)
        while self._lost_at and self._lost_at[0] < now - self._config.lost_after_s:
            self._lost_at.popleft()
        lost = len(self._lost_at)
        if lost >= _MASS_LOSS_LEAST and lost > _MASS_LOSS_SHARE * (lost + len(self._live)):
            self.unsettle()

    # -- one link's task -------------------------------------------------------------------------------

    async def _serve(self, link: Link, inbox: _Inbox) -> None:
        try:
            while True:
                await inbox.wake.wait()
                inbox.wake.clear()
                while inbox.messages:
                    message, size = inbox.messages.popleft()
                    inbox.size -= size
                    if isinstance(message, wire.Leave) and message.reason == "\0link lost":
                        return
                    await self._handle(link, inbox, message)
        except AtollError as error:
            link.send(wire.Refuse(code=error.code, message=error.message))
            link.close(error.message)
        except Exception as error:
            log.error("link failed", agent=link.peer, error=repr(error), exc_info=True)
            link.close("internal error")
        finally:
            self._inboxes.pop(link, None)

    async def _handle(self, link: Link, inbox: _Inbox, message: wire.FromAgent) -> None:
        if isinstance(message, wire.Hello):
            inbox.agent = await self._register(link, message)
            return
        live = inbox.agent
        if live is None:
            raise Unavailable("the first message must be Hello")
        if live.ended:
            return
        live.heard = self._clock.monotonic()
        match message:
            case wire.Report(report=report):
                await self._report(live, report)
            case wire.NoCheckpoint():
                await self._no_checkpoint(live, message)
            case wire.Log():
                await self._log(live, message)
            case wire.CordonAck(epoch=epoch, runs=runs):
                await self._acknowledge(live, epoch, runs)
            case wire.Notice(in_s=in_s, message=text):
                live.notice = text or f"will be taken away in {in_s:g} s"
                self._changed.add(live.id)
                self.on_change()
            case wire.Renew(csr=csr):
                await self._renew(live, csr)
            case wire.Leave(reason=reason):
                self.on_leave(live.id, reason)
            case wire.RelayLinks(relays=relays):
                live.relays = relays[:_RELAYS_LIMIT]
            case wire.Inside(tokens=tokens):
                await self._check_inside(live, tokens)
            case wire.Kept():
                await self.on_kept(live, message)
            case wire.StreamReports():
                await self.on_reports(live, message)
            case wire.MeshStatus():
                self.on_mesh(live, message)

    async def _check_inside(self, live: LiveAgent, tokens: list[str]) -> None:
        """Have those users' streams ended whose API tokens ended while nobody could tell the agent."""
        now = self._changes.clock.now()
        async with self._changes.look() as tx:
            rows = {token: await tx.get(Token, token) for token in tokens[:_INSIDE_LIMIT]}
        if bad := [token for token, row in rows.items() if row is None or (row.expires_at or now + 1) <= now]:
            live.link.send(wire.Evict(tokens=bad))

    async def _register(self, link: Link, hello: wire.Hello) -> LiveAgent | None:
        """Register → full session report → verdict, before any placement (I13)."""
        if hello.protocol not in (wire.PROTOCOL, wire.PROTOCOL - 1):
            link.send(wire.Refuse(code="PROTOCOL", message=f"protocol {hello.protocol} is not spoken here", final=True))
            link.close("protocol not spoken")
            return None
        kill: list[str] = []
        forget: list[str] = []
        owed: list[str] = []
        async with self._changes.commit("agent.register") as change:
            if not link.alive:  # a newer link, with a newer certificate, may have registered meanwhile
                return None
            agent = await vetted(change, await change.tx.get(Agent, link.peer), link.generation)
            if agent is None or agent.state not in (AgentState.READY, AgentState.DRAINING):
                told = refusal(link.peer, agent)
                self.send(link.peer, told)
                self.end(link.peer, "not a member")
                link.send(told)
                link.close("not a member")
                return None
            instance = await change.tx.get(Instance, agent.instance) if agent.instance else None
            generation = max(agent.generation_used, link.generation)
            agent = replace(agent, generation_used=generation, generation=max(agent.generation, generation))
            agent = await self._admit(change, agent, instance, hello)
            for report in hello.runs:
                verdict = await apply(change, agent.id, report)
                if verdict is Verdict.KILL:
                    kill.append(report.run)
                elif verdict is Verdict.FORGET:
                    owes = await ran_on(change, agent.id, report.run) and not await self._complete(report)
                    (owed if owes else forget).append(report.run)
            await self._missing(change, agent.id, {report.run for report in hello.runs})
            group = await change.tx.get(Group, agent.group)
        lease, life = (group.lease_s, group.max_life_s) if group and agent.instance else (0.0, 0.0)
        live = self._enter(link, agent, hello, owed)
        link.send(
            wire.Welcome(
                protocol=wire.PROTOCOL,
                epoch=agent.epoch,
                kill=kill,
                forget=forget,
                lease_s=lease,
                max_life_s=life,
                grant_key=live.grant_key,
                now=self.streams.now(),
                relays=self.streams.relays,
                padding=wire.PADDING,
            )
        )
        self.streams.relay.linked(agent.id, link, boot=hello.boot, dials=hello.protocol >= wire.DIALS)
        if agent.state is AgentState.DRAINING:
            link.send(wire.Cordon(epoch=agent.cordon_epoch, cordoned=True))
        log.info("agent registered", agent=agent.id, epoch=agent.epoch, runs=len(hello.runs), kill=len(kill))
        self.on_change()
        return live

    def _enter(self, link: Link, agent: Agent, hello: wire.Hello, owed: Collection[str]) -> LiveAgent:
        before = self._live.pop(agent.id, None)
        if before and before.link is not link:
            before.link.close("the agent registered on a newer link")
        now = self._clock.monotonic()
        live = LiveAgent(id=agent.id, link=link, epoch=agent.epoch, protocol=hello.protocol, heard=now)
        live.direct = hello.facts.get("direct", "")
        live.grant_key = agent_key(self._config.secret_key, agent.id, link.generation)
        live.exited = {report.run: (report.out, report.err) for report in hello.runs if report.run in owed}
        self._live[agent.id] = live
        self._changed.add(agent.id)
        self._silent_since.pop(agent.id, None)
        self.history.came(agent.id, self._clock.now())
        return live

    async def _admit(self, change: Change, agent: Agent, instance: Instance | None, hello: wire.Hello) -> Agent:
        capacity = capped(hello.capacity, instance.shape.slots) if instance else hello.capacity
        if instance and not agent.epoch and (text := shortfall(instance.shape, capacity)):
            await change.event("group", agent.group, "learned", name=agent.group, message=f"{instance.id}: {text}")
        state = agent.state
        if instance and instance.state is InstanceState.STARTING:
            await change.instance(instance, InstanceState.JOINED, Reason.JOINED, "started again", joined_at=change.now)
            state = AgentState.READY
        acknowledged = 0 if state is AgentState.READY else agent.acknowledged_epoch
        return await change.agent(
            agent,
            state,
            agent.reason,
            agent.message,
            verb="connected",
            epoch=agent.epoch + 1,
            cordon_epoch=agent.cordon_epoch if state is AgentState.DRAINING else 0,
            acknowledged_epoch=acknowledged,
            capacity=capacity,
            facts=hello.facts | {"version": hello.version},
        )

    async def _missing(self, change: Change, agent: str, reported: set[str]) -> None:
        """Runs that the agent should know and does not: start them if it never had them, else they are over."""
        for row in await change.tx.find(Session, agent=agent, state=sorted(PLACED)):
            for run, member in current_runs(row):
                if member.agent != agent or run in reported or member.state is MemberState.EXITED:
                    continue
                if member.state is MemberState.STARTING and not row.stopping_as:
                    continue
                gone = wire.RunReport(run=run, state="exited", reason=Reason.NOT_ADOPTED)
                await apply(change, agent, gone)

    async def _report(self, live: LiveAgent, report: wire.RunReport) -> None:
        async with self._changes.commit("session.report") as change:
            if live.ended:
                return
            verdict = await apply(change, live.id, report)
        if verdict is Verdict.KILL:
            live.link.send(wire.Stop(run=report.run, grace=0.0))
        if report.state == MemberState.EXITED and not await self._owns(live, report.run):
            live.link.send(wire.Forget(runs=[report.run]))
        elif report.state == MemberState.EXITED:
            live.exited[report.run] = (report.out, report.err)
            await self._forget_if_complete(live, report.run)
        self._changes.bus.publish(f"log:{report.run}")
        self.on_change()

    async def _renew(self, live: LiveAgent, csr: str) -> None:
        async with self._changes.commit("agent.renew") as change:
            row = await change.tx.get(Agent, live.id)
            if row is None or row.state not in KEPT:
                return
            row, pem = await issue(change, self._config, row, csr)
        live.link.send(wire.Certificate(certificate=pem, generation=row.generation))

    async def _no_checkpoint(self, live: LiveAgent, message: wire.NoCheckpoint) -> None:
        """A run was not asked: its move ends now. Of a gang others may have been: there its time decides."""
        async with self._changes.commit("session.stay") as change:
            found = await find(change, live.id, message.run)
            row = found[0] if found else None
            if row is None or row.moving is None or row.moving.asked_at != message.asked_at or row.stopping_as:
                return
            if row.moving.reason is Reason.PREEMPTED:  # then there is nothing to wait for: it is stopped
                moving = replace(row.moving, until=change.now)
                await change.session(row, row.state, row.reason, message.message, moving=moving)
            elif row.spec.nodes == 1:
                hint = "handle the signal in the session's main process: it goes to no other"
                await change.stay(row, message.message, hint=hint)
        self.on_change()

    async def _log(self, live: LiveAgent, message: wire.Log) -> None:
        if not await self._owns(live, message.run):
            live.link.send(wire.LogAck(run=message.run, channel=message.channel, offset=message.offset))
            return
        if message.channel not in ("out", "err"):
            raise Unavailable(f"there is no log channel {message.channel!r}")
        size = await self._logs.write(message.run, message.channel, message.offset, message.data)
        live.link.send(wire.LogAck(run=message.run, channel=message.channel, offset=size))
        await self._forget_if_complete(live, message.run)
        self._changes.bus.publish(f"log:{message.run}")

    async def _owns(self, live: LiveAgent, run: str) -> bool:
        """Say whether output of this run may come from this agent (S2); asked of the store once a run and link."""
        if run in live.owned:
            return True
        async with self._changes.look() as tx:
            owned = await ran_on(Change(tx, 0.0), live.id, run)
        if owned:
            live.owned.add(run)
        return owned

    async def _complete(self, report: wire.RunReport) -> bool:
        out = await self._logs.size(report.run, "out")
        err = await self._logs.size(report.run, "err")
        return out >= report.out and err >= report.err

    async def _forget_if_complete(self, live: LiveAgent, run: str) -> None:
        sizes = live.exited.get(run)
        if sizes is None:
            return
        if await self._complete(wire.RunReport(run=run, state="exited", out=sizes[0], err=sizes[1])):
            del live.exited[run]
            live.owned.discard(run)
            live.link.send(wire.Forget(runs=[run]))

    async def _acknowledge(self, live: LiveAgent, epoch: int, runs: list[str]) -> None:
        async with self._changes.commit("agent.acknowledge") as change:
            agent = await change.tx.get(Agent, live.id)
            if agent is None or agent.state is not AgentState.DRAINING or epoch <= agent.acknowledged_epoch:
                return
            for run in runs:
                if await find(change, live.id, run) is None:
                    live.link.send(wire.Stop(run=run, grace=0.0))
            text = f"takes no new session; {len(runs)} still run there"
            await change.agent(
                agent, AgentState.DRAINING, agent.reason, text, verb="acknowledged", acknowledged_epoch=epoch
            )
        self.on_change()


async def _ignored(_live: LiveAgent, _message: wire.Message) -> None:
    """Take no notice."""


def capped(reported: Slots, limit: Slots) -> Slots:
    """Return what an agent reports, at most what the catalogue says its machine has (S3)."""
    allowed = {gpu.model: gpu for gpu in limit.gpu}
    gpu = tuple(
        Gpu(g.model, min(g.milli, allowed[g.model].milli), min(g.memory, allowed[g.model].memory) or g.memory)
        for g in reported.gpu
        if g.model in allowed
    )
    return Slots(min(reported.cpu, limit.cpu), min(reported.memory, limit.memory), reported.disk, gpu)
