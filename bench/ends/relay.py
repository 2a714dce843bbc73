"""The relay: agents link with it, and users have a door of plain TCP for each lane."""

import asyncio
import secrets
import sys
import time
from pathlib import Path

from atoll.errors import Unavailable
from atoll.host.system import SystemChance
from bench.ends.common import AGENT, RUN, Make, say
from bench.ends.user import Announced, User
from tunnel import wire
from tunnel.acceptor import Acceptor, Route
from tunnel.identity import Authority
from tunnel.lanes import Lane
from tunnel.link import Link, Side
from tunnel.redial import RedialledTransport
from tunnel.relay import Relay
from tunnel.resume import ID_SIZE


class RelayEnd:
    """Tells the relay who is linked, as `federation.control.links` does."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._names: dict[Link, str] = {}

    def linked(self, link: Link, /) -> None:
        """Its Hello follows."""

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        """Welcome it."""
        if isinstance(message, wire.Hello):
            self._names[link] = name = link.peer
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

    async def listen(self, host: str) -> dict[str, int]:
        """Open all doors and return their ports."""
        makes: dict[str, Make] = {
            "mux": lambda: User(self._mux),
            "data": lambda: User(self._data),
            "copy": lambda: Announced(self._copy),
        }
        found = {}
        for name, make in makes.items():
            server = await asyncio.get_running_loop().create_server(make, host, 0, backlog=1024)
            found[name] = int(server.sockets[0].getsockname()[1])
        return found

    async def _mux(self, make: Make) -> None:
        await self._open(wire.OpenStream(run=RUN, port=1), make, Lane.MUX)

    async def _data(self, make: Make) -> None:
        """A stream that ends in this process, like those of the gateway."""
        stream = secrets.token_bytes(ID_SIZE)
        opening = wire.OpenStream(run=RUN, port=1, resume=stream)
        transport = RedialledTransport(
            stream, lambda lane: self._open(opening, lane, Lane.DATA), chance=SystemChance(), peer=AGENT
        )
        transport.attach(make())
        transport.start()

    async def _copy(self, stream: bytes, make: Make) -> None:
        """A stream whose ends are the client and the agent: here its bytes are copied."""
        await self._open(wire.OpenStream(run=RUN, port=1, resume=stream), make, Lane.DATA)

    async def _open(self, opening: wire.OpenStream, make: Make, lane: Lane) -> None:
        try:
            await self._relay.open(AGENT, opening, make(), lane=lane)
        except Unavailable as error:
            raise ConnectionError(error.message) from error


async def run(folder: Path, host: str) -> None:
    """Relay until standard input ends."""
    authority = Authority.load_or_create(folder / "authority", now=time.time())
    middle = Relay(SystemChance())
    owner = RelayEnd(middle)
    acceptor = Acceptor(
        {
            wire.ALPN_CONTROL: Route(authority.control_context(), lambda: Link(owner, side=Side.CONTROL)),
            wire.ALPN_DATA: Route(authority.stream_context(wire.ALPN_DATA), middle.accept),
        }
    )
    await acceptor.listen(host, 0)
    say(port=acceptor.port, **await Doors(middle).listen(host))
    await asyncio.to_thread(sys.stdin.read)
