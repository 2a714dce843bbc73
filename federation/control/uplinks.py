"""The links of relays to this control plane: what they may serve goes down, how they are comes up."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from atoll.agent import Agent
from atoll.errors import AtollError, Invalid, NotFound, Unavailable
from atoll.relay import Relay, RelayState
from atoll.states import AgentState
from atoll.token import Token
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from tunnel import wire
from tunnel.grant import relay_key
from tunnel.identity import relay_of
from tunnel.link import Link, Side

log = structlog.get_logger("control")

CERTIFICATE_S = 30 * 86_400.0
"""How long a relay's certificate lives; it is renewed at half of that."""
DRAIN_S = 60.0
"""A drain that is told again, since the relay had not heard of it, takes this long at most."""
_FORMER = (AgentState.REVOKED, AgentState.LEFT, AgentState.GONE)
_MESSAGES_LIMIT = 100


class Uplink(Link):
    """One relay's connection; `relay` is the id in its certificate, "" for one that is no relay's."""

    relay = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read who it is, then begin."""
        self.relay = relay_of(transport)
        super().connection_made(transport)


@dataclass(slots=True)
class LiveRelay:
    """A relay that is connected, and what it last said of itself."""

    link: Uplink
    said: wire.Serving
    name: str = ""


class _Inbox:
    """One link's messages, handled one after the other by one task."""

    def __init__(self, task: "asyncio.Task[None]", messages: "asyncio.Queue[wire.FromAgent | None]") -> None:
        self.task = task
        self.messages = messages


class Uplinks:
    """Owner of all relays' links; `accept` is the protocol factory for connections under `ALPN_UPLINK`.

    `now` gives the time that grants are made by. `on_change` is awaited when a relay's state has changed.
    """

    def __init__(self, changes: Changes, config: ControlConfig, now: Callable[[], float]) -> None:
        self._changes = changes
        self._config = config
        self._now = now
        self._key = relay_key(config.secret_key)
        self._inboxes: dict[Link, _Inbox] = {}
        self._live: dict[str, LiveRelay] = {}
        self._addresses: dict[str, str] = {}
        self.on_change: Callable[[], Awaitable[None]] = _nothing
        self.on_reports: Callable[[LiveRelay, wire.StreamReports], Awaitable[None]] = _ignored

    def accept(self) -> Uplink:
        """Return the protocol for a new connection."""
        return Uplink(self, side=Side.CONTROL)

    def live(self, relay: str) -> LiveRelay | None:
        """Return a relay's link and what it last said, or None while it is not connected."""
        return self._live.get(relay)

    def passes_on(self, address: str) -> bool:
        """Say whether connections from an address are those that a relay passes on: it has many users behind it."""
        return address in self._addresses.values()

    def drain(self, relay: str, deadline_s: float) -> None:
        """Tell a relay to let go of everything; one that is not connected is told when it is."""
        if live := self._live.get(relay):
            live.link.send(wire.Drain(deadline_s=deadline_s))

    def end(self, relay: str, reason: str) -> None:
        """Tell a relay that it is none any more."""
        self._addresses.pop(relay, None)
        if live := self._live.get(relay):
            live.link.send(wire.Leave(reason=reason))
            live.link.close(reason)

    def expel(self, agent: str, reason: str) -> None:
        """Have all relays end what they have of an agent, and refuse it."""
        for live in self._live.values():
            live.link.send(wire.Expel(agent=agent, reason=reason))

    def evict(self, token: str) -> None:
        """Have all relays end the connections of those who came by this API token, named by its id."""
        for live in self._live.values():
            live.link.send(wire.Evict(tokens=[token]))

    async def renew_terms(self) -> None:
        """Tell all relays their terms again: the CA has changed."""
        for live in list(self._live.values()):
            await self._tell_terms(live.link)

    async def close(self) -> None:
        """Close all links; relays go on, and dial whoever comes next."""
        inboxes, self._inboxes = dict(self._inboxes), {}
        self._live.clear()
        for link, inbox in inboxes.items():
            link.close("the control plane is stopping")
            inbox.task.cancel()
            await asyncio.gather(inbox.task, return_exceptions=True)

    # LinkOwner.

    def linked(self, link: Link) -> None:
        """A connection is up; nothing counts before it has said how it is."""
        assert isinstance(link, Uplink)  # noqa: S101 - `accept` makes no other
        messages: asyncio.Queue[wire.FromAgent | None] = asyncio.Queue(_MESSAGES_LIMIT)
        task = asyncio.get_running_loop().create_task(self._serve(link, messages), name=f"uplink {link.relay}")
        self._inboxes[link] = _Inbox(task, messages)

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        """Queue a message for the link's task."""
        if inbox := self._inboxes.get(link):
            try:
                inbox.messages.put_nowait(message)  # type: ignore[arg-type] # the link decodes what comes up
            except asyncio.QueueFull:
                link.close("too many messages at once")

    def stream_opened(self, link: Link, opening: wire.OpenStream) -> asyncio.Protocol | None:  # noqa: ARG002
        """Relays open no streams."""
        return None

    def lost(self, link: Link, reason: str) -> None:
        """A link is gone; its relay goes on by itself and may come back."""
        inbox = self._inboxes.get(link)
        if inbox is None:
            return
        if isinstance(link, Uplink):
            log.info("relay link lost", relay=link.relay, reason=reason)
        while not inbox.messages.empty():
            inbox.messages.get_nowait()
        inbox.messages.put_nowait(None)

    # One link's task.

    async def _serve(self, link: Uplink, messages: "asyncio.Queue[wire.FromAgent | None]") -> None:
        try:
            while (message := await messages.get()) is not None:
                await self._handle(link, message)
            await self._gone(link)
        except AtollError as error:
            link.send(wire.Refuse(code=error.code, message=error.message, final=isinstance(error, NotFound)))
            link.close(error.message)
        except Exception as error:
            log.error("relay link failed", relay=link.relay, error=repr(error), exc_info=True)
            link.close("internal error")
        finally:
            self._inboxes.pop(link, None)
            if (live := self._live.get(link.relay)) and live.link is link:
                del self._live[link.relay]

    async def _handle(self, link: Uplink, message: wire.FromAgent) -> None:
        live = self._live.get(link.relay)
        if live is None or live.link is not link:
            if not isinstance(message, wire.Serving):
                raise Unavailable("the first message must be Serving")
            await self._register(link, message)
            return
        match message:
            case wire.Serving():
                before, live.said = live.said, message
                if message.draining and not before.draining:
                    await self._note(link, message)
                await self._check(link, message.tokens or [])
            case wire.Renew(csr=csr):
                await self._renew(link, csr)
            case wire.StreamReports():
                await self.on_reports(live, message)

    async def _register(self, link: Uplink, message: wire.Serving) -> None:
        if message.protocol not in (wire.PROTOCOL, wire.PROTOCOL - 1):
            raise Unavailable(f"protocol {message.protocol} is not spoken here")
        row = await self._note(link, message)
        before = self._live.get(link.relay)
        self._addresses[link.relay] = link.address  # kept while the relay is away: what is counted there stays right
        # From here on it hears of every agent that is expelled.
        self._live[link.relay] = LiveRelay(link, message, row.name)
        if before is not None:
            before.link.close("the relay connected anew")
        await self._tell_terms(link)
        await self._check(link, message.tokens or [])
        if row.state is RelayState.DRAINING and not message.draining:
            link.send(wire.Drain(deadline_s=DRAIN_S))
        log.info("relay connected", relay=row.name, state=row.state, agents=message.agents)

    async def _note(self, link: Uplink, message: wire.Serving) -> Relay:
        """Write down how a relay is; raise `NotFound` for one that is none of ours (any more)."""
        async with self._changes.commit("relay.serving") as change:
            row = await change.tx.get(Relay, link.relay) if link.relay else None
            if row is None:
                raise NotFound("this relay does not belong to the installation (any more)")
            row = await _move(change, row, _state(row, message), boot=message.boot, seen_at=change.now)
        await self.on_change()
        return row

    async def _gone(self, link: Uplink) -> None:
        live = self._live.get(link.relay)
        if live is None or live.link is not link:
            return
        async with self._changes.commit("relay.lost") as change:
            row = await change.tx.get(Relay, link.relay)
            if row is not None:
                to = RelayState.DRAINED if row.state is RelayState.DRAINING else row.state
                await _move(change, row, to, seen_at=change.now)
        await self.on_change()

    async def _tell_terms(self, link: Uplink) -> None:
        """Send what a relay serves by. Whose certificate may still be valid, and is worth nothing, it must know."""
        async with self._changes.look() as tx:
            since = self._changes.clock.now() - 2 * self._config.certificate_s
            former = [row.id for row in await tx.find(Agent, state=list(_FORMER)) if (row.ended_at or since) >= since]
        authority = self._config.authority
        link.send(
            wire.RelayTerms(
                protocol=wire.PROTOCOL, grant_key=self._key, now=self._now(), refused=former, ca=authority.ca_pem
            )
        )

    async def _check(self, link: Uplink, tokens: list[str]) -> None:
        """Have those users sent home whose API tokens ended while nobody could tell the relay."""
        if not tokens:
            return
        now = self._changes.clock.now()
        async with self._changes.look() as tx:
            rows = {token: await tx.get(Token, token) for token in tokens}
        bad = [token for token, row in rows.items() if row is None or (row.expires_at or now + 1) <= now]
        if bad:
            link.send(wire.Evict(tokens=bad))

    async def _renew(self, link: Uplink, csr: str) -> None:
        authority = self._config.authority
        async with self._changes.commit("relay.renew") as change:
            row = await change.tx.get(Relay, link.relay)
            if row is None or authority.key_of(csr) != row.key:
                raise Invalid("a certificate is renewed for the relay's own key only")
            pem = authority.sign_relay(csr, row.id, now=change.now, ttl_s=CERTIFICATE_S)
            await change.tx.update(replace(row, issued_by=authority.pin))
        link.send(wire.Certificate(certificate=pem))


def _state(row: Relay, message: wire.Serving) -> RelayState:
    """Return the state of a relay that says this; a drain is over once another process serves."""
    told = row.state in (RelayState.DRAINING, RelayState.DRAINED)
    return RelayState.DRAINING if message.draining or (told and row.boot == message.boot) else RelayState.SERVING


async def recover(change: Change) -> None:
    """Count relays that were draining as drained: nobody saw whether they ended. Those that go on will say so."""
    for row in await change.tx.find(Relay, state=RelayState.DRAINING):
        await _move(change, row, RelayState.DRAINED)


async def _move(change: Change, row: Relay, to: RelayState, **fields: object) -> Relay:
    message = row.message if to is row.state else ""
    if to is RelayState.DRAINING:
        message = message or "it was told to end on its machine"
    saved = await change.tx.update(replace(row, state=to, message=message, **fields))  # type: ignore[arg-type]
    if to is not row.state:
        await change.event("relay", row.id, to, name=row.name, message=message)
    return saved


async def _ignored(_live: LiveRelay, _message: wire.StreamReports) -> None:
    """Take no notice."""


async def _nothing() -> None:
    """Do nothing."""
