"""One relay and one agent with all lanes, over the memory network or real TLS."""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

from agent.datalines import DataLines
from atoll.host.system import SystemChance
from tests.tunnel.conftest import join
from tests.tunnel.ends import Owner, until
from tunnel import wire
from tunnel.acceptor import Acceptor, Route
from tunnel.dialer import Dialer, TlsDialer
from tunnel.identity import Authority
from tunnel.lanes import Lane, Limits
from tunnel.link import Link, Side
from tunnel.memory import Latency, MemoryNetwork
from tunnel.redial import RedialledTransport
from tunnel.relay import Relay
from tunnel.resumables import Resumables
from tunnel.routes import data_routes

AGENT = "a-1"
LANES = ("mux", "resumable on mux", "resumable on data")
Serve = Callable[[wire.OpenStream], asyncio.Protocol | None]


class AgentEnd(Owner):
    """An agent's process: its link, its data connections, its resumable streams."""

    def __init__(self, serve: Serve, data: Dialer) -> None:
        super().__init__(self.serve)
        self._user = serve
        self.dials = True
        self.streams = Resumables()
        self.lines = DataLines(data, self.serve)

    def serve(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        if opening.resume:
            return self.streams.lane(opening.resume, opening.run, lambda: self._user(opening))
        return self._user(opening)

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        super().received(link, message)
        if isinstance(message, wire.Dial) and self.dials:
            self.lines.dial(message.tokens, splice=message.splice)


class RelayEnd(Owner):
    """The relay's process: tells the relay who is linked."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self.relay = relay
        self.boot = "first"
        self.dialled_by = True

    def linked(self, link: Link) -> None:
        super().linked(link)
        self.relay.linked(AGENT, link, boot=self.boot, dials=self.dialled_by)

    def lost(self, link: Link, reason: str) -> None:
        super().lost(link, reason)
        self.relay.unlinked(AGENT, link)


class Site:
    """Both ends, and streams between them by any lane."""

    def __init__(self, relay: Relay, link: Dialer, agent: AgentEnd) -> None:
        self.relay = relay
        self.control = RelayEnd(relay)
        self.agent = agent
        self._link = link

    async def link(self) -> None:
        before = len(self.control.links)
        await self._link.dial(lambda: Link(self.agent, side=Side.AGENT))
        await until(lambda: len(self.control.links) > before)

    async def open(self, kind: str, protocol: asyncio.Protocol) -> asyncio.Transport:
        opening = wire.OpenStream(run="s-1.1.0", port=80)
        if kind == "mux":
            return (await self.relay.open(AGENT, opening, protocol)).transport
        lane = Lane.MUX if kind == "resumable on mux" else Lane.DATA
        opening = wire.OpenStream(run="s-1.1.0", port=80, resume=secrets.token_bytes(16))

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            await self.relay.open(AGENT, opening, make(), lane=lane)

        stream = RedialledTransport(opening.resume, dial, chance=SystemChance(), peer=AGENT)
        stream.attach(protocol)
        stream.start()
        return stream

    async def close(self) -> None:
        self.agent.streams.close("test over")
        await self.agent.lines.close()
        for link in self.control.links:
            link.close("test over")
        self.relay.close("test over")
        await until(lambda: len(self.control.losses) == len(self.control.links))
        await asyncio.sleep(0.05)


class MemorySite(Site):
    """Over the memory network."""

    def __init__(self, serve: Serve, latency: Latency = 0.01, limits: Limits | None = None) -> None:
        self.network = MemoryNetwork(latency=latency)
        agent = AgentEnd(serve, self.network.dialer(AGENT, data=True))
        super().__init__(Relay(SystemChance(), limits), self.network.dialer(AGENT), agent)
        self.listen()

    def listen(self) -> None:
        self.network.listen(lambda _: Link(self.control, side=Side.CONTROL), self.relay.accept)


class TlsSite(Site):
    """Over TLS on loopback."""

    def __init__(self, authority: Authority, folder: Path, serve: Serve, limits: Limits | None = None) -> None:
        self._authority, self._folder, self._serve, self._limits = authority, folder, serve, limits

    async def __aenter__(self) -> "TlsSite":
        relay = Relay(SystemChance(), self._limits)
        self.acceptor = Acceptor(
            {
                wire.ALPN_CONTROL: Route(
                    self._authority.control_context(), lambda: Link(self.control, side=Side.CONTROL)
                ),
                **data_routes(self._authority.stream_context, relay),
            }
        )
        await self.acceptor.listen("127.0.0.1", 0)
        url = f"https://127.0.0.1:{self.acceptor.port}"
        identity = join(self._authority, self._folder, url, AGENT)
        agent = AgentEnd(self._serve, TlsDialer(url, identity, {}, data=True))
        super().__init__(relay, TlsDialer(url, identity, {}), agent)
        await self.link()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        await self.acceptor.close()
