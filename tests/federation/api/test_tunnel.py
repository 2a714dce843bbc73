"""Agents' and users' connections inside a WebSocket, by way of something that opens TLS with its own certificate."""

import asyncio
import contextlib
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import WSCloseCode, WSMsgType

from tests.federation.served import Served
from tests.tunnel.balancer import opening_tls
from tests.tunnel.conftest import join
from tests.tunnel.doors import DoorSite
from tests.tunnel.ends import Echo, Owner, Recorder, until
from tests.tunnel.test_dialer import ConnectProxy
from tunnel.acceptor import TAKEN_LIMIT, Acceptor, Route
from tunnel.asking import ask, verified
from tunnel.dialer import TlsDialer, ways_of
from tunnel.door import Way
from tunnel.identity import Authority
from tunnel.link import Link, Side
from tunnel.userstream import reach
from tunnel.wire import ALPN_CONTROL, ALPN_JOIN, CONTROL_NAME


class Inside:
    """What the control plane serves inside: links of agents, and the API for machines that join."""

    def __init__(self, server: Served, authority: Authority) -> None:
        self.owner = Owner()
        self.sources: list[str] = []
        self.acceptor = Acceptor(
            {
                ALPN_CONTROL: Route(authority.control_context(), lambda: Link(self.owner, side=Side.CONTROL)),
                ALPN_JOIN: Route(authority.join_context(), server.http_protocol),
            }
        )
        server.services.take = self.take

    def take(self, connection: socket.socket, address: str) -> bool:
        self.sources.append(address)
        return self.acceptor.take(connection, address)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.load_or_create(tmp_path_factory.mktemp("ours"), now=time.time())


@pytest.fixture(scope="module")
def balancers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who certifies the load balancer."""
    return Authority.load_or_create(tmp_path_factory.mktemp("theirs"), now=time.time(), names=["atoll.example.org"])


@pytest.mark.parametrize("proxied", [False, True])
async def test_an_agent_finds_its_way_by_itself(
    server: Served, authority: Authority, balancers: Authority, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, proxied: bool,
) -> None:  # fmt: skip
    inside = Inside(server, authority)
    (tmp_path / "balancers.pem").write_text(balancers.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "balancers.pem"))
    async with opening_tls(balancers, server.port) as port, ConnectProxy(port) as proxy:
        url = "https://atoll.example.org" if proxied else f"https://localhost:{port}"
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"} if proxied else {}
        identity = join(authority, tmp_path, url)
        agent = Owner()
        await TlsDialer(identity.url, identity, environ).dial(lambda: Link(agent, side=Side.AGENT))
        await until(lambda: inside.owner.links)
        assert inside.owner.link.peer == "a-1"  # by the certificate inside
        assert proxy.asked == (["CONNECT atoll.example.org:443 HTTP/1.1"] * 2 if proxied else [])
        agent.link.close("done")
        await until(lambda: agent.losses and inside.owner.losses)
        assert inside.owner.losses == ["closed by the peer: done"]


async def test_a_machine_asks_inside_too(
    server: Served, authority: Authority, balancers: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Inside(server, authority)
    (tmp_path / "balancers.pem").write_text(balancers.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "balancers.pem"))
    async with opening_tls(balancers, server.port) as port:
        for scheme in ("https", "wss"):
            url = f"{scheme}://localhost:{port}"
            answer = await asyncio.to_thread(ask, url, "GET", "/v1/ca", verified(authority.ca_pem))
            assert answer["ca"] == server.plane.config.authority.ca_pem
    assert len(inside.sources) == 2


async def test_a_balancer_that_nobody_vouches_for_is_not_believed(
    server: Served, authority: Authority, balancers: Authority, tmp_path: Path
) -> None:
    Inside(server, authority)
    async with opening_tls(balancers, server.port) as port:
        identity = join(authority, tmp_path, f"wss://localhost:{port}")
        dialer = TlsDialer(identity.url, identity, {}, ways=ways_of(identity.url))
        with pytest.raises(ssl.SSLCertVerificationError):
            await dialer.dial(lambda: Link(Owner(), side=Side.AGENT))


async def test_who_has_no_certificate_of_ours_gets_nothing_inside(
    server: Served, authority: Authority, balancers: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = Inside(server, authority)
    (tmp_path / "balancers.pem").write_text(balancers.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "balancers.pem"))
    async with opening_tls(balancers, server.port) as port:
        stranger = join(balancers, tmp_path, f"wss://localhost:{port}", ca_pem=authority.ca_pem)
        agent = Owner()
        with contextlib.suppress(OSError):  # a client that is refused under TLS 1.3 may learn it late
            await TlsDialer(stranger.url, stranger, {}).dial(lambda: Link(agent, side=Side.AGENT))
            await until(lambda: agent.losses)
    assert inside.owner.links == []


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x05hello"])
async def test_nothing_but_agents_tls_is_served_inside(server: Served, authority: Authority, first: bytes) -> None:
    Inside(server, authority)
    async with server.http.ws_connect(f"{server.url}/v1/tunnel") as ws:
        await ws.send_bytes(first)
        answer = b""
        while (message := await ws.receive(timeout=60)).type is WSMsgType.BINARY:
            answer += message.data
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def client_hello(authority: Authority) -> bytes:
    """Return what a joining machine says first; who hears no more from it waits."""
    outgoing = ssl.MemoryBIO()
    machine = verified(authority.ca_pem).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=CONTROL_NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        machine.do_handshake()
    return outgoing.read()


async def test_one_source_may_not_have_everyone_wait(server: Served, authority: Authority) -> None:
    inside = Inside(server, authority)
    hello = client_hello(authority)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(TAKEN_LIMIT):
            ws = await stack.enter_async_context(server.http.ws_connect(f"{server.url}/v1/tunnel"))
            await ws.send_bytes(hello)
        await until(lambda: len(inside.sources) == TAKEN_LIMIT)
        late = await stack.enter_async_context(server.http.ws_connect(f"{server.url}/v1/tunnel"))
        await late.send_bytes(hello)
        while (message := await late.receive(timeout=60)).type is not WSMsgType.CLOSE:
            assert message.type is WSMsgType.BINARY
        assert message.data == WSCloseCode.TRY_AGAIN_LATER


async def test_what_is_no_websocket_is_told_so(server: Served) -> None:
    async with server.http.get(f"{server.url}/v1/tunnel") as answer:
        assert answer.status == 400
        assert "Upgrade: websocket" in await answer.text()


async def test_a_users_stream_passes_too_and_resumes(
    server: Served, authority: Authority, balancers: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "balancers.pem").write_text(balancers.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "balancers.pem"))
    seen = bytearray()
    async with DoorSite(authority, tmp_path, Echo) as site, opening_tls(balancers, server.port, seen) as port:
        server.services.take = site.acceptor.take
        way = Way("localhost", port)
        taken = await reach([way], authority.ca_pem, {})
        assert (taken, taken.inside) == (way, True)
        assert str(taken) == f"localhost:{port} inside a WebSocket"
        given = site.permit()
        user = Recorder()
        stream = site.stream(user, replace(given, ways=[way]))
        stream.write(b"x" * 300_000)
        await until(lambda: user.size == 300_000)
        site.door.end(lambda grant: grant.user == "ada", "test")
        stream.write(b"again")
        await until(lambda: user.size == 300_005)
        assert (stream.resumed, stream.entered) == (1, way)
        stream.abort()
        await until(lambda: not len(site.door))
    assert given.opening.grant not in seen
    assert b"xxxx" not in seen


async def test_a_users_stream_believes_no_door_but_the_installations(
    server: Served, authority: Authority, balancers: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with DoorSite(authority, tmp_path, Echo) as site, opening_tls(balancers, server.port) as port:
        server.services.take = site.acceptor.take
        way = Way("localhost", port)
        with pytest.raises(OSError, match=r"inside a WebSocket.*certificate verify failed"):
            await reach([way], authority.ca_pem, {})  # nobody vouches for the balancer
        (tmp_path / "balancers.pem").write_text(balancers.ca_pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "balancers.pem"))
        other = Authority.load_or_create(tmp_path / "other", now=time.time())
        with pytest.raises(OSError, match=r"inside a WebSocket.*certificate verify failed"):
            await reach([way], other.ca_pem, {})  # the door inside is of another CA
        assert (await reach([way], authority.ca_pem, {})).inside
