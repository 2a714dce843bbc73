"""Our ends of the tunnel's benchmark, each a process: relay, agent, client, and a crowd of idle agents.

They are put together from the product's own parts as `federation.main` and `agent.run` do it, without a store and
without runs: `relay FOLDER HOST PORT` has one door a lane for plain TCP connections of users; `agent FOLDER SERVER
RELAY...` serves streams with connections to the server; `client DOOR...` keeps resumable streams going over relays of
which it only needs a splice; `crowd FOLDER COUNT RELAY` has that many links. Each prints lines of JSON.
"""

import asyncio
import json
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from functools import cache, partial
from pathlib import Path

import uvloop

from agent.datalines import DataLines
from agent.streams import StreamLeg
from atoll.errors import Unavailable
from atoll.host.system import SystemChance
from atoll.slots import Slots
from tunnel import wire
from tunnel.acceptor import Acceptor, Route
from tunnel.backoff import Backoff
from tunnel.dialer import TlsDialer
from tunnel.identity import AgentIdentity, Authority, make_key_and_csr
from tunnel.lanes import Lane
from tunnel.link import Link, Side
from tunnel.redial import Dial, RedialledTransport
from tunnel.relay import Relay
from tunnel.resumables import Resumables
from tunnel.splice import Leg

AGENT, CROWD = "bench-agent", "bench-crowd"
RUN = "s-1.1.0"
_ID = 16
_AT_ONCE = 64

Make = Callable[[], asyncio.Protocol]


def say(**what: object) -> None:
    """Print a line."""
    print(json.dumps(what), flush=True)


def enrol(folder: Path) -> Authority:
    """Make the installation's authority and the agents' identities."""
    authority = Authority.load_or_create(folder / "authority", now=time.time())
    for name in (AGENT, CROWD):
        certificate = authority.sign_agent(make_key_and_csr(folder / name), name, now=time.time())
        url, ca = "https://127.0.0.1:1", authority.ca_pem
        AgentIdentity.save(folder / name, agent_id=name, url=url, ca_pem=ca, certificate_pem=certificate)
    return authority


class RelayEnd:
    """Tells the relay who is linked, as `federation.control.links` does."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._names: dict[Link, str] = {}

    def linked(self, link: Link, /) -> None:
        """Its Hello follows."""

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        """Welcome it. One of the crowd goes by its boot id: they share a certificate."""
        if isinstance(message, wire.Hello):
            self._names[link] = name = message.boot if link.peer == CROWD else link.peer
            link.send(wire.Welcome(protocol=wire.PROTOCOL, epoch=1, kill=[], forget=[]))
            self._relay.linked(name, link, boot=message.boot, dials=True)

    def stream_opened(self, link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:  # noqa: ARG002
        """Agents open none."""
        return None

    def lost(self, link: Link, reason: str, /) -> None:
        """It is gone."""
        if name := self._names.pop(link, ""):
            self._relay.unlinked(name, link)
            if name == AGENT:
                say(lost=time.monotonic(), reason=reason)


class Doors:
    """Plain TCP for users: a port for each lane."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def listen(self, host: str, ports: dict[str, int]) -> dict[str, int]:
        """Open all doors (port 0: any) and return their ports."""
        makes: dict[str, Make] = {
            "mux": lambda: User(self._mux),
            "data": lambda: User(self._data),
            "splice": lambda: Announced(self._splice),
        }
        found = {}
        for name, make in makes.items():
            server = await asyncio.get_running_loop().create_server(make, host, ports.get(name, 0), backlog=1024)
            found[name] = int(server.sockets[0].getsockname()[1])
        return found

    async def _mux(self, make: Make) -> None:
        await self._open(wire.OpenStream(run=RUN, port=1), make, Lane.MUX)

    async def _data(self, make: Make) -> None:
        """A stream that ends in this process, like those of the gateway."""
        stream = secrets.token_bytes(_ID)
        opening = wire.OpenStream(run=RUN, port=1, resume=stream)
        transport = RedialledTransport(
            stream, lambda lane: self._open(opening, lane, Lane.DATA), chance=SystemChance(), peer=AGENT
        )
        transport.attach(make())
        transport.start()

    async def _splice(self, stream: bytes, make: Make) -> None:
        """A stream whose ends are the client and the agent: here its bytes are copied."""
        await self._open(wire.OpenStream(run=RUN, port=1, resume=stream), make, Lane.DATA)

    async def _open(self, opening: wire.OpenStream, make: Make, lane: Lane) -> None:
        try:
            await self._relay.open(AGENT, opening, make(), lane=lane)
        except Unavailable as error:
            raise ConnectionError(error.message) from error


class User(Leg):
    """A user's connection: opens the stream, and keeps what comes before it is open.

    (`agent.streams.StreamLeg` pauses its transport instead. uvloop's begin to read after `connection_made`,
    whatever was asked in it.)
    """

    def __init__(self, connect: Callable[[Make], Awaitable[None]]) -> None:
        super().__init__()
        self._connect = connect
        self._early = b""
        self._ended = False
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the stream."""
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, or keep them until there is a stream."""
        if self.other is None:
            self._early += data
            if self.transport is not None:
                self.transport.pause_reading()
        else:
            super().data_received(data)

    def eof_received(self) -> bool:
        """The user has said all."""
        self._ended = True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The user is gone, perhaps before the stream was open."""
        if self._opening is not None:
            self._opening.cancel()
        super().connection_lost(exc)

    async def _open(self) -> None:
        stream = Leg()
        stream.other = self
        try:
            await self._connect(lambda: stream)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        self.other = stream
        early, self._early = self._early, b""
        if early:
            super().data_received(early)
        if self._ended:
            super().eof_received()
        if self.transport is not None:
            self.transport.resume_reading()


class Announced(User):
    """A user's connection that begins with the id of its resumable stream."""

    def __init__(self, connect: Callable[[bytes, Make], Awaitable[None]]) -> None:
        super().__init__(self._announce)
        self._announced = connect

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the id."""
        Leg.connection_made(self, transport)

    def data_received(self, data: bytes) -> None:
        """The id, then bytes of the stream. The client says nothing between its id and our answer."""
        super().data_received(data)
        if self._opening is None and self.transport is not None:
            self.transport.resume_reading()
            if len(self._early) == _ID:
                User.connection_made(self, self.transport)

    async def _announce(self, make: Make) -> None:
        stream, self._early = self._early, b""
        await self._announced(stream, make)
        if self.transport is not None:
            self.transport.write(b"!")


async def relay(folder: Path, host: str, port: int, doors: dict[str, int]) -> None:
    """Relay until standard input ends."""
    authority = Authority.load_or_create(folder / "authority", now=time.time())
    middle = Relay(SystemChance())
    owner = RelayEnd(middle)
    acceptor = Acceptor(
        {
            wire.ALPN_CONTROL: Route(authority.control_context(), lambda: Link(owner, side=Side.CONTROL)),
            wire.ALPN_DATA: Route(authority.data_context(), middle.accept),
        }
    )
    await acceptor.listen(host, port)
    say(port=acceptor.port, **await Doors(middle).listen(host, doors))
    await asyncio.to_thread(sys.stdin.read)


class Agent:
    """One agent with a link to each relay; their streams are the same."""

    def __init__(self, folder: Path, server: tuple[str, int], relays: list[str]) -> None:
        self._identity = AgentIdentity(folder / AGENT)
        self._server = server
        self._streams = Resumables()
        self._links = [RelayLink(self._identity, url, self.serve) for url in relays]

    async def run(self) -> None:
        """Stay linked with all."""
        await asyncio.gather(*(link.run() for link in self._links))

    def serve(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        """A stream, or a lane of one."""
        leg = partial(StreamLeg, self._connect)
        return self._streams.lane(opening.resume, opening.run, leg) if opening.resume else leg()

    async def _connect(self, make: Make) -> None:
        await asyncio.get_running_loop().create_connection(make, *self._server)


class RelayLink:
    """Stays linked with one relay, as `agent.run.AgentShell` does."""

    def __init__(
        self,
        identity: AgentIdentity,
        url: str,
        serve: Callable[[wire.OpenStream], asyncio.Protocol | None],
        *,
        welcomed: Callable[[int], None] | None = None,
        turn: asyncio.Semaphore | None = None,
    ) -> None:
        self._dialer = TlsDialer(url, identity, {})
        self._lines = DataLines(TlsDialer(url, identity, {}, data=True), serve)
        self._serve = serve
        self._welcomed = welcomed or (lambda change: say(welcomed=change > 0, at=time.monotonic()))
        self._turn = turn or asyncio.Semaphore()
        self._boot = secrets.token_hex(8)
        self._registered = False
        self._lost: asyncio.Future[str]

    async def run(self) -> None:
        """Dial, wait until the link is lost, and again."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(SystemChance())
        while True:
            self._lost = loop.create_future()
            began = loop.time()
            try:
                async with self._turn:
                    await self._dialer.dial(lambda: Link(self, side=Side.AGENT))
            except OSError:
                pass
            else:
                await self._lost
                backoff.succeeded_for(loop.time() - began)
            await asyncio.sleep(backoff.next())

    def linked(self, link: Link, /) -> None:
        """Say hello."""
        hello = wire.Hello(protocol=wire.PROTOCOL, version="0", boot=self._boot, capacity=Slots(), facts={}, runs=[])
        link.send(hello)

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:  # noqa: ARG002
        """Dial when asked."""
        if isinstance(message, wire.Dial):
            self._lines.dial(message.tokens)
        elif isinstance(message, wire.Welcome):
            self._registered = True
            self._welcomed(1)

    def stream_opened(self, link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:  # noqa: ARG002
        """A stream on the link."""
        return self._serve(opening)

    def lost(self, link: Link, reason: str, /) -> None:  # noqa: ARG002
        """The link is over."""
        if self._registered:
            self._registered = False
            self._welcomed(-1)
        if not self._lost.done():
            self._lost.set_result(reason)


class OneContext(AgentIdentity):
    """The crowd's identity: its TLS context is made once for all of its agents."""

    @cache  # noqa: B019 - lives as long as the process
    def context(self) -> ssl.SSLContext:
        """Return the context."""
        return super().context()


async def crowd(folder: Path, count: int, url: str) -> None:
    """Have so many links; say when all are welcomed, and when they are again after a loss."""
    identity, turn, standing = OneContext(folder / CROWD), asyncio.Semaphore(_AT_ONCE), 0

    def welcomed(change: int) -> None:
        nonlocal standing
        standing += change
        if change < 0 and standing in (0, count - 1):
            say(standing=standing, at=time.monotonic())
        if change > 0 and standing == count:
            say(all=count, at=time.monotonic())

    links = [RelayLink(identity, url, lambda _: None, welcomed=welcomed, turn=turn) for _ in range(count)]
    await asyncio.gather(*(link.run() for link in links))


async def client(host: str, doors: list[int]) -> None:
    """Listen for plain TCP; each connection is a resumable stream by way of whichever door answers."""
    server = await asyncio.get_running_loop().create_server(lambda: User(partial(_begin, host, doors)), host, 0)
    say(port=server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)


async def _begin(host: str, doors: list[int], make: Make) -> None:
    stream = secrets.token_bytes(_ID)
    transport = RedialledTransport(stream, _dial_of(host, doors, stream), chance=SystemChance(), peer=AGENT)
    transport.attach(make())
    transport.start()


def _dial_of(host: str, doors: list[int], stream: bytes) -> Dial:
    order = list(doors)

    async def dial(make: Make) -> None:
        loop = asyncio.get_running_loop()
        failure: OSError = ConnectionError("no relay")
        for door in list(order):
            connection = socket.socket()
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, (host, door))
                await loop.sock_sendall(connection, stream)
                if await loop.sock_recv(connection, 1) != b"!":
                    raise ConnectionError("the relay opened no stream")
            except OSError as error:
                connection.close()
                order.append(order.pop(0))
                failure = error
                continue
            except BaseException:
                connection.close()
                raise
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.create_connection(make, sock=connection)
            return
        raise failure

    return dial


async def _until_input_ends(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    read = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([task, read], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()


def main(argv: list[str]) -> None:
    """Run one end."""
    kind, *rest = argv
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        match kind:
            case "relay":
                folder, host, port, doors = rest
                runner.run(relay(Path(folder), host, int(port), json.loads(doors)))
            case "agent":
                folder, host, server, *relays = rest
                runner.run(_until_input_ends(Agent(Path(folder), (host, int(server)), relays).run()))
            case "client":
                host, *ports = rest
                runner.run(client(host, [int(port) for port in ports]))
            case "crowd":
                folder, count, url = rest
                runner.run(_until_input_ends(crowd(Path(folder), int(count), url)))


if __name__ == "__main__":
    main(sys.argv[1:])
