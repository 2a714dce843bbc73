"""The users' doors of an installation, each with a stream's far end that notes what reaches it; and who comes there."""

import asyncio
import hashlib
import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from agent.permission import Permission
from atoll.errors import AtollError
from atoll.host.config import ServerConfig
from atoll.host.system import SystemClock
from federation.gateway.userdoor import UserDoor
from federation.main import _acceptors
from tests.federation.relay.test_process import AGENT, SECRET, Place
from tests.security.house import House, house
from tests.tunnel import test_direct
from tests.tunnel.ends import until
from tunnel import wire
from tunnel.acceptor import Acceptor
from tunnel.door import Way
from tunnel.grant import BadGrant, Grant, agent_key, relay_key, seal
from tunnel.identity import Authority
from tunnel.userstream import Permit, enter

GONE = "t-deleted"
"""A token that was good once."""


@dataclass
class Door:
    """A users' door: where it is, what a good grant for it says, and what it notes of those it refused.

    `turned_away` counts connections that were no user's: a relay passes them on, and the control plane counts.
    """

    way: Way
    ca: str
    agent: str
    session: str
    port: int
    secret: bytes
    refused: Counter[str]
    turned_away: Callable[[], int]
    served: list[bytes]
    token: str = "t-1"
    generation: int = 0
    client: bytes = b""

    def ask(self, where: str, *, sealing: "Sealing | None" = None, **fields: object) -> wire.OpenStream:
        """Return what somebody shows who wants to get to the session `where`: good, but for what is given."""
        given = sealing or Sealing()
        grant = Grant(
            id=os.urandom(16), agent=self.agent, run=f"{where}.1.0", project="default", session=where,
            expires_at=time.time() + 60, user="ada", token=self.token, port=self.port, resume=os.urandom(16),
            client=hashlib.sha256(self.client).digest() if self.client else b"",
        )  # fmt: skip
        grant = structs.replace(grant, **fields)
        own = agent_key(given.agent or self.secret, grant.agent, self.generation + given.generation)
        sealed = seal(grant, relay_key(given.relay or self.secret), own)
        return wire.OpenStream(
            run=f"{where}.1.0", port=self.port, resume=grant.resume, grant=sealed, client=self.client
        )

    async def enter(self, opening: wire.OpenStream) -> str:
        """Come with an opening: what is said of it, "in" where the agent's program answered."""
        user = test_direct.User()
        try:
            async with asyncio.timeout(60):
                await enter(self.way, Permit(self.agent, opening, [], self.ca, 60.0), {}, lambda: user)
        except AtollError as error:
            return f"{error.code}: {error.message}"
        return "in"


@dataclass(frozen=True)
class Sealing:
    """By whose secrets a grant is sealed, where not by the installation's; and for which later generation."""

    relay: bytes = b""
    agent: bytes = b""
    generation: int = 0


class Noting(asyncio.Protocol):
    """A program in the session."""

    def __init__(self, served: list[bytes]) -> None:
        self._served = served

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._served.append(b"")

    def data_received(self, data: bytes) -> None:
        self._served.append(data)


@asynccontextmanager
async def port_of(authority: Authority, at: House) -> AsyncIterator[tuple[UserDoor, Acceptor, Acceptor]]:
    """The control plane's one port as `atoll up` puts it together, and what it takes inside WebSockets."""
    users = UserDoor(at.server.services.control, at.control.streams.relay, at.control.streams.now)
    nobody: Any = None
    acceptor, inside = _acceptors(ServerConfig(), at.control, authority, at.server.http_protocol, nobody, users)
    await acceptor.listen("127.0.0.1", 0)
    at.server.services.take = inside.take
    try:
        yield users, acceptor, inside
    finally:
        await users.close()
        await acceptor.close()
        await inside.close()


@asynccontextmanager
async def of_the_control_plane(authority: Authority, folder: Path) -> AsyncIterator[Door]:
    async with house(folder) as at, port_of(authority, at) as (users, acceptor, _):
        [agent] = await at.control.agents.list()
        yield Door(
            Way("127.0.0.1", acceptor.port), authority.ca_pem, agent.id, at.session, at.port, b"k" * 32,
            users.refused, acceptor.refused.total, [], token=at.tokens["the owner"],
        )  # fmt: skip


@asynccontextmanager
async def inside_a_websocket(authority: Authority, folder: Path) -> AsyncIterator[Door]:
    async with house(folder) as at, port_of(authority, at) as (users, acceptor, inside):
        [agent] = await at.control.agents.list()
        yield Door(
            Way("127.0.0.1", acceptor.port, inside=True), authority.ca_pem, agent.id, at.session, at.port, b"k" * 32,
            users.refused, inside.refused.total, [], token=at.tokens["the owner"],
        )  # fmt: skip


@asynccontextmanager
async def of_a_relay(authority: Authority, folder: Path, client: bytes = b"") -> AsyncIterator[Door]:
    place = Place(authority, folder)
    await place.listen()
    await place.start()
    links = await place.agent()
    served: list[bytes] = []
    permission = permitted(agent_key(SECRET, AGENT, 0))

    def serve(opening: wire.OpenStream) -> asyncio.Protocol | None:
        try:
            permission.check(opening)
        except BadGrant:
            return None
        return place.table.lane(opening.resume, opening.run, lambda: Noting(served))

    links.attach(serve, place.table.awaited)
    try:
        await until(lambda: links.linked and place.process.uplink.connected and place.process._door is not None)
        place.process.visits.evict([GONE])
        assert place.process._door is not None
        yield Door(
            Way("127.0.0.1", place.port, wire.RELAY_NAME), authority.ca_pem, AGENT, "s-1", 80, SECRET,
            place.process._door.refused, place.acceptor.refused.total, served, client=client,
        )  # fmt: skip
    finally:
        await links.close()
        await place.close()


@asynccontextmanager
async def of_an_agent(authority: Authority, folder: Path) -> AsyncIterator[Door]:
    async with test_direct.machine(authority, folder) as machine:
        served: list[bytes] = []
        machine.serve = lambda opening: machine.streams.lane(  # type: ignore[method-assign]
            opening.resume, opening.run, lambda: Noting(served)
        )
        machine.direct.attach(machine.permission.check, machine.serve)
        assert machine.direct._door
        assert machine.direct._acceptor
        machine.direct._acceptor.reroute(machine.direct._routes(machine.direct._door))
        machine.direct.evict([GONE])
        yield Door(
            machine.way, authority.ca_pem, AGENT, "s-1", 80, SECRET,
            machine.direct._door.refused, machine.direct._acceptor.refused.total, served,
        )  # fmt: skip


def permitted(key: bytes) -> Permission:
    """Return an agent's own judgement, by this key."""
    made = Permission(SystemClock())
    made.welcomed(wire.Welcome(protocol=3, epoch=1, kill=[], forget=[], grant_key=key, now=time.time()))
    return made


DOORS: dict[str, Callable[[Authority, Path], AbstractAsyncContextManager[Door]]] = {
    "the control plane's": of_the_control_plane,
    "the control plane's, inside a WebSocket": inside_a_websocket,
    "a relay's": of_a_relay,
    "a relay's, for blind streams": partial(of_a_relay, client=b"the certificate of the user's own key"),
    "an agent's own": of_an_agent,
}


def speaking(ca: str, protocol: str, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return a TLS client that offers this protocol alone, with a certificate where one is given."""
    context = ssl.create_default_context(cadata=ca)
    context.set_alpn_protocols([protocol])
    if certificate:
        context.load_cert_chain(*certificate)
    return context


Showing = Callable[[Door, str], wire.OpenStream]
