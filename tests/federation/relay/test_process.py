"""A whole relay on real sockets: its own port for agents and users, everything else passed on as it comes."""

import asyncio
import contextlib
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from msgspec import structs

from agent.relays import RelayLinks
from atoll.errors import Forbidden, Unauthorized
from atoll.host.system import SystemChance
from federation.relay.home import About, RelayHome
from federation.relay.passage import Passage
from federation.relay.process import Process
from federation.relay.visits import Visits
from tests.federation.relay.test_terms import Hands
from tests.tunnel.conftest import join
from tests.tunnel.ends import Echo, Owner, Recorder, SeededChance, until
from tunnel import wire
from tunnel.acceptor import Acceptor, Route
from tunnel.dialer import TlsDialer
from tunnel.door import Way
from tunnel.grant import Grant, agent_key, relay_key, seal
from tunnel.identity import Authority, make_key_and_csr
from tunnel.link import Link, Side
from tunnel.reports import Reports
from tunnel.resumables import Resumables
from tunnel.userstream import Permit, UserStream
from tunnel.ways import Ways

AGENT, SECRET = "a-1", b"s" * 32
"""The installation's secret, from which the keys of grants are derived."""


class ControlEnd(Owner):
    """The control plane's end of the uplink."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[Link] = set()
        self.told: list[wire.StreamReports] = []

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        super().received(link, message)
        if isinstance(message, wire.StreamReports) and message.reports:
            self.told.append(message)
        if link not in self._told:
            self._told.add(link)
            link.send(wire.RelayTerms(protocol=wire.PROTOCOL, grant_key=relay_key(SECRET), now=time.time(), refused=[]))


class EchoHttp(asyncio.Protocol):
    """Something of the control plane's that only it may read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"heard " + data)


class Place:
    """A control plane of a few lines, and a relay before it."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.authority = authority
        self.folder = folder
        self.control = ControlEnd()
        self.table = Resumables()
        self.streams: list[UserStream] = []
        self.home = RelayHome(folder / "relay")

    async def listen(self, port: int = 0) -> None:
        """Be the control plane."""
        self.acceptor = Acceptor(
            {
                wire.ALPN_UPLINK: Route(self.authority.uplink_context(), lambda: Link(self.control, side=Side.CONTROL)),
                "http/1.1": Route(self.authority.http_context(), EchoHttp),
            },
        )
        await self.acceptor.listen("127.0.0.1", port)

    async def start(self) -> None:
        """Enrol the relay and start it."""
        certificate = self.authority.sign_relay(make_key_and_csr(self.home.path), "r-1", now=time.time(), ttl_s=3600)
        about = About("r-1", "east", "https://x", f"https://127.0.0.1:{self.acceptor.port}")
        self.home.enrolled(about, ca=self.authority.ca_pem, certificate=certificate)
        await self.again()

    async def again(self) -> None:
        """Start it as it is."""
        about = self.home.about()
        assert about is not None
        self.process = Process(self.home, about)
        await self.process.listen("127.0.0.1", 0)
        self.running = asyncio.create_task(self.process.run())

    @property
    def port(self) -> int:
        return self.process.acceptor.port

    async def agent(self, url: str = "") -> RelayLinks:
        """Link an agent, which knows the relay by its own URL or another."""
        url = url or f"https://127.0.0.1:{self.port}"
        identity = join(self.authority, self.folder / AGENT, url, AGENT)
        known = Ways()

        def dialers(url: str) -> tuple[TlsDialer, TlsDialer]:
            return TlsDialer(url, identity, {}, relay=known), TlsDialer(url, identity, {}, data=True, relay=known)

        links = RelayLinks(AGENT, "b1", dialers, SystemChance())
        links.attach(lambda opening: self.table.lane(opening.resume, opening.run, Echo), self.table.awaited)
        links.welcomed([url], lambda _: None)
        return links

    def permit(self, *, token: str = "t-1", user: str = "ada", life_s: float = 60.0) -> Permit:
        """Permit a user a stream."""
        opening = wire.OpenStream(run="s-1.1.0", port=80, resume=secrets.token_bytes(16))
        grant = Grant(
            id=b"g", agent=AGENT, run="s-1.1.0", project="p", session="s-1", user=user, token=token, port=80,
            resume=opening.resume, expires_at=time.time() + life_s,
        )  # fmt: skip
        sealed = seal(grant, relay_key(SECRET), agent_key(SECRET, AGENT, 0))
        opening = structs.replace(opening, grant=sealed)
        ways = [Way("127.0.0.1", self.port, wire.RELAY_NAME)]
        return Permit(agent=AGENT, opening=opening, ways=ways, ca=self.authority.ca_pem, life_s=life_s)

    def stream(self, permit: Permit) -> tuple[UserStream, Recorder]:
        """Begin a user's stream."""

        async def ask(_: bytes) -> Permit:
            raise Unauthorized("no other permit")

        stream, user = UserStream(permit, ask, {}, chance=SeededChance()), Recorder()
        stream.attach(user)
        stream.start()
        self.streams.append(stream)
        return stream, user

    async def close(self) -> None:
        for stream in self.streams:
            stream.abort()
        self.table.close("over")
        await asyncio.sleep(0.1)
        self.process.drain(0.0)
        with contextlib.suppress(Forbidden):
            await self.running
        await self.acceptor.close()


@asynccontextmanager
async def place(authority: Authority, folder: Path) -> AsyncIterator[Place]:
    made = Place(authority, folder)
    await made.listen()
    await made.start()
    links = await made.agent()
    try:
        await until(lambda: links.linked and made.process.uplink.connected)
        yield made
    finally:
        await links.close()
        await made.close()


def play(runner: asyncio.Runner, authority: Authority, folder: Path, story: Callable[[Place], object]) -> None:
    async def main() -> None:
        async with place(authority, folder) as made:
            await story(made)  # type: ignore[misc]

    runner.run(main())


def test_a_users_stream_goes_through_and_ends_with_its_token(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path
) -> None:
    async def story(p: Place) -> None:
        stream, user = p.stream(p.permit())
        stream.write(b"hello")
        await until(lambda: user.size == 5)
        assert len(p.process.visits) == 1
        p.control.link.send(wire.Evict(tokens=["t-1"]))
        await until(lambda: len(p.process.visits) == 0)
        await until(lambda: user.lost)  # its own grant is refused from now on
        other, more = p.stream(p.permit(token="t-2"))
        other.write(b"hello")
        await until(lambda: more.size == 5)
        other.close()

    play(runner, authority, tmp_path, story)


def test_what_it_carries_and_refuses_is_told(runner: asyncio.Runner, authority: Authority, tmp_path: Path) -> None:
    async def story(p: Place) -> None:
        stream, user = p.stream(p.permit())
        stream.write(b"hello")
        await until(lambda: user.size == 5)
        _, refused = p.stream(p.permit(life_s=-1.0))
        await until(lambda: refused.lost)
        said = p.process.state()
        data = said.lanes["data"]
        assert (data.streams, data.opens, said.received, data.received) == (1, 1, data.received, said.received)
        assert data.sent > 5
        assert said.held["in_use"] == 1
        assert said.refused["UNAUTHORIZED"] >= 1
        await until(lambda: p.control.told)
        (report,) = p.control.told[-1].reports
        assert (report.lane, report.lasted_s, report.source) == ("data", None, "127.0.0.1")
        p.control.link.send(wire.Noted(serial=p.control.told[-1].serial))
        stream.abort()
        await until(lambda: p.control.told[-1].reports[0].lasted_s is not None)
        assert report.number == p.control.told[-1].reports[0].number

    play(runner, authority, tmp_path, story)


@pytest.mark.parametrize("bad", ["key", "user", "token", "time"])
def test_grants_that_are_not_good_open_nothing(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path, bad: str
) -> None:
    async def story(p: Place) -> None:
        permit = {
            "key": p.permit(),
            "user": p.permit(user=""),
            "token": p.permit(token=""),
            "time": p.permit(life_s=-1.0),
        }[bad]
        if bad == "key":
            changed = bytearray(permit.opening.grant)
            changed[40] ^= 1
            permit = replace(permit, opening=structs.replace(permit.opening, grant=bytes(changed)))
        _, user = p.stream(permit)
        await until(lambda: user.lost)
        assert len(p.process.visits) == 0

    play(runner, authority, tmp_path, story)


def test_a_stream_goes_on_without_the_control_plane_and_a_restarted_relay_serves_by_what_it_has(
    runner: asyncio.Runner, authority: Authority, tmp_path: Path
) -> None:
    async def story(p: Place) -> None:
        p.control.link.send(wire.Expel(agent="a-bad", reason="revoked"))
        await until(lambda: p.process.terms.refuses("a-bad"))
        stream, user = p.stream(p.permit())
        stream.write(b"hello")
        await until(lambda: user.size == 5)
        await p.acceptor.close()
        p.control.link.close("the control plane is stopping")
        await until(lambda: not p.process.uplink.connected)
        stream.write(b"hello")
        await until(lambda: user.size == 10)
        stream.close()
        p.process.drain(0.0)
        await p.running
        await p.again()
        links = await p.agent()
        await until(lambda: links.linked)
        assert p.process.terms.refuses("a-bad")
        again, more = p.stream(p.permit())
        again.write(b"hello")
        await until(lambda: more.size == 5)
        again.close()
        await links.close()

    play(runner, authority, tmp_path, story)


def test_a_removed_relay_ends(runner: asyncio.Runner, authority: Authority, tmp_path: Path) -> None:
    async def story(p: Place) -> None:
        p.control.link.send(wire.Leave(reason="the relay was removed"))
        with pytest.raises(Forbidden, match="removed"):
            await asyncio.wait_for(p.running, 60)

    play(runner, authority, tmp_path, story)


def test_the_certificate_is_renewed_and_used(runner: asyncio.Runner, authority: Authority, tmp_path: Path) -> None:
    async def story(p: Place) -> None:
        fresh = authority.sign_relay(make_key_and_csr(p.home.path), "r-1", now=time.time() + 60, ttl_s=7200)
        p.control.link.send(wire.Certificate(certificate=fresh))
        await until(lambda: p.home.validity()[1] > time.time() + 7000)
        reader, writer = await tls(p.port, p.authority.ca_pem, wire.RELAY_NAME, wire.ALPN_DATA)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert shown == ssl.PEM_cert_to_DER_cert(fresh)
        assert reader is not None
        writer.close()

    play(runner, authority, tmp_path, story)


async def tls(port: int, ca: str, name: str, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cadata=ca)
    context.set_alpn_protocols([protocol])
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)


def test_what_is_not_for_the_relay_passes_it_by(runner: asyncio.Runner, authority: Authority, tmp_path: Path) -> None:
    async def story(p: Place) -> None:
        reader, writer = await tls(p.port, authority.ca_pem, wire.CONTROL_NAME, "http/1.1")
        writer.write(b"GET")
        assert await reader.read(100) == b"heard GET"
        assert len(p.process.passage) == 1
        writer.close()
        await until(lambda: len(p.process.passage) == 0)
        plain, other = await asyncio.open_connection("127.0.0.1", p.port)
        other.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await plain.read()
        assert answer.startswith(b"HTTP/1.1 404 "), "plain HTTP is for load balancers, and for nothing of the API"
        assert b"This is a relay" in answer
        other.close()
        await p.acceptor.close()
        with pytest.raises(OSError):
            await tls(p.port, authority.ca_pem, wire.CONTROL_NAME, "http/1.1")

    play(runner, authority, tmp_path, story)


def test_half_closes_pass(runner: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"got " + await reader.read())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        passage = Passage(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", {})
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        await passage.serve(accepted)
        client.sendall(b"x" * 100_000)
        client.shutdown(socket.SHUT_WR)
        client.setblocking(False)
        loop, data = asyncio.get_running_loop(), b""
        while part := await loop.sock_recv(client, 65536):
            data += part
        assert data == b"got " + b"x" * 100_000
        await until(lambda: len(passage) == 0)
        server.close()
        for each in (client, listener):
            each.close()

    runner.run(main())


async def test_evicted_tokens_are_forgotten_when_no_grant_of_theirs_can_be_good_any_more() -> None:
    clock = Hands()
    visits = Visits(clock, Reports("b1"))
    visits.evict(["a"])
    clock.passed += 3600
    visits.evict(["b"])
    assert list(visits._evicted) == ["b"]
    assert visits.news() == []
    assert visits.news() is None
    visits.forget_told()
    assert visits.news() == []
