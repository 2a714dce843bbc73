"""The whole way over real TLS: acceptor, certificates, dialer, link, streams; on both event loops."""

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from tests.tunnel.conftest import join
from tests.tunnel.ends import Echo, Owner, Recorder, until
from tunnel import wire
from tunnel.acceptor import Acceptor, Route, is_loopback
from tunnel.dialer import TlsDialer
from tunnel.identity import AgentIdentity, Authority, make_key_and_csr
from tunnel.link import Link, Side
from tunnel.wire import ALPN_CONTROL, ALPN_JOIN, CONTROL_NAME


class Greeter(asyncio.Protocol):
    """Says which route it is and closes: at once, or (plain HTTP) when it was spoken to."""

    def __init__(self, name: str, *, listens: bool = False) -> None:
        self.name = name
        self.listens = listens

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self.listens:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self.transport.write(f"{self.name}\n".encode())
        self.transport.close()


class Server:
    """An acceptor with all routes on a free loopback port."""

    def __init__(
        self,
        authority: Authority,
        local: Callable[[str], bool] = is_loopback,
        deadline_s: float = 5.0,
    ) -> None:
        self.owner = Owner()
        self.acceptor = Acceptor(
            {
                ALPN_CONTROL: Route(authority.control_context(), lambda: Link(self.owner, side=Side.CONTROL)),
                ALPN_JOIN: Route(authority.join_context(), lambda: Greeter("join")),
                "http/1.1": Route(authority.http_context(), lambda: Greeter("http")),
            },
            lambda: Greeter("plain", listens=True),
            local=local,
            deadline_s=deadline_s,
        )

    async def __aenter__(self) -> "Server":
        await self.acceptor.listen("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in self.owner.links:
            link.close("test over")
        await self.acceptor.close()
        # One turn more than it takes until both ends' sockets are closed.
        await until(lambda: len(self.owner.losses) == len(self.owner.links))
        await asyncio.sleep(0.02)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.acceptor.port}"


async def read_all(
    port: int, context: ssl.SSLContext | None = None, first: bytes = b"", name: str | None = CONTROL_NAME
) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name if context else None
    )
    try:
        writer.write(first)
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionResetError:
        return b""  # what was sent lay unread when the server closed
    finally:
        writer.close()


def trusting(authority: Authority, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.ca_pem)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def linked(server: Server, identity: AgentIdentity, agent: Owner) -> None:
    await TlsDialer(server.url, identity, {}).dial(lambda: Link(agent, side=Side.AGENT))
    await until(lambda: server.owner.links)


def test_messages_and_a_large_echo(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority) as server:
            agent = Owner(lambda _: Echo())
            await linked(server, join(authority, tmp_path, server.url, "a-7"), agent)
            assert server.owner.link.peer == "a-7"
            agent.link.send(wire.Renew(csr="c" * 1_000_000))
            user = Recorder()
            stream = server.owner.link.open_stream(wire.OpenStream(run="r"), user)
            sent = random.Random(8).randbytes(8 * 1024 * 1024)
            for at in range(0, len(sent), 50_000):
                await user.writable.wait()
                stream.write(sent[at : at + 50_000])
            stream.write_eof()
            await until(lambda: user.ended, 60)
            expected = Recorder()
            expected.data_received(sent)
            assert user.size == len(sent)
            assert user.digest.digest() == expected.digest.digest()
            assert server.owner.messages == [wire.Renew(csr="c" * 1_000_000)]
            assert agent.link.rtt is not None
            stream.close()
            await until(lambda: user.lost)
            agent.link.close("done")
            await until(lambda: server.owner.losses and agent.losses)
            assert server.owner.losses == ["closed by the peer: done"]

    runner.run(main())


def test_a_slow_reader_bounds_what_is_held(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority) as server:
            slow: list[Recorder] = []

            def serve(_: wire.OpenStream) -> Recorder:
                slow.append(Recorder(slow=True))
                return slow[-1]

            agent = Owner(serve)
            await linked(server, join(authority, tmp_path, server.url), agent)
            user = Recorder()
            stream = server.owner.link.open_stream(wire.OpenStream(run="r"), user)
            accepted = 0
            while user.writable.is_set() and accepted < 64 << 20:
                stream.write(bytes(32_768))
                accepted += 32_768
                await asyncio.sleep(0)
            assert accepted < 1 << 20
            agent.link.send(wire.Leave())
            await until(lambda: server.owner.messages)
            stream.abort()
            await until(lambda: slow[0].lost)

    runner.run(main())


def test_protocols_are_routed(authority: Authority, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority) as server:
            port = server.acceptor.port
            assert await read_all(port, trusting(authority, ALPN_JOIN)) == b"join\n"
            assert await read_all(port, trusting(authority, "h2", "http/1.1"), name="localhost") == b"http\n"
            assert await read_all(port, trusting(authority), name="127.0.0.1") == b"http\n"
            assert await read_all(port, first=b"GET / HTTP/1.1\r\n\r\n") == b"plain\n"
            with contextlib.suppress(OSError):
                assert await read_all(port, trusting(authority, "smtp")) == b""

    runner.run(main())


def test_plain_http_is_for_this_machine_only(authority: Authority, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority, local=lambda _: False) as server:
            answer = await read_all(server.acceptor.port, first=b"GET / HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"https" in answer
            assert await read_all(server.acceptor.port, trusting(authority)) == b"http\n"

    runner.run(main())


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_loopback(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_agents_need_a_certificate_of_this_authority(
    authority: Authority, tmp_path: Path, runner: asyncio.Runner
) -> None:
    other = Authority.load_or_create(tmp_path / "other", now=time.time())

    async def main() -> None:
        async with Server(authority) as server:
            agent = Owner()
            without = trusting(authority, ALPN_CONTROL)
            foreign = join(other, tmp_path / "foreign", server.url, ca_pem=authority.ca_pem)
            past = authority.sign_agent(make_key_and_csr(tmp_path / "past"), "a-1", now=time.time() - 90_000)
            expired = AgentIdentity.save(
                tmp_path / "past", agent_id="a-1", url=server.url, ca_pem=authority.ca_pem, certificate_pem=past
            )
            for context in (without, foreign.context(), expired.context()):
                # With TLS 1.3 a client may believe it is connected until the server has judged it.
                with contextlib.suppress(OSError):
                    assert await read_all(server.acceptor.port, context) == b""
            assert server.owner.links == []
            await linked(server, join(authority, tmp_path / "good", server.url), agent)

    runner.run(main())


def test_an_agent_refuses_a_server_of_another_authority(
    authority: Authority, tmp_path: Path, runner: asyncio.Runner
) -> None:
    other = Authority.load_or_create(tmp_path / "other", now=time.time())

    async def main() -> None:
        async with Server(authority) as server:
            agent = Owner()
            identity = join(authority, tmp_path / "agent", server.url, ca_pem=other.ca_pem)
            with pytest.raises(ssl.SSLCertVerificationError):
                await TlsDialer(server.url, identity, {}).dial(lambda: Link(agent, side=Side.AGENT))
            assert agent.links == []

    runner.run(main())


def hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=CONTROL_NAME)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("first", [b"", b"\x16", b"\x16\x03\x01\x02", "half"])
def test_an_unfinished_hello_is_closed_at_the_deadline(
    authority: Authority, runner: asyncio.Runner, first: bytes | str
) -> None:
    async def main() -> None:
        async with Server(authority, deadline_s=0.6) as server:
            data = first if isinstance(first, bytes) else hello(trusting(authority, ALPN_CONTROL))[:200]
            start, cpu = time.monotonic(), time.process_time()
            assert await read_all(server.acceptor.port, first=data) == b""
            assert 0.5 < time.monotonic() - start < 10  # the deadline of others
            # Waiting costs nothing: the socket is not polled in a busy loop.
            assert time.process_time() - cpu < 0.4

    runner.run(main())


def test_an_unfinished_handshake_is_closed_at_the_deadline(authority: Authority, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority, deadline_s=0.3) as server:
            answer = read_all(server.acceptor.port, first=hello(trusting(authority, ALPN_CONTROL)))
            assert len(await asyncio.wait_for(answer, 30)) > 500, "the server's flight, then the end"
            assert server.owner.links == []

    runner.run(main())


async def dribble(port: int, data: bytes, then: Callable[[socket.socket], Awaitable[bytes]]) -> bytes:
    """Send a first flight in small segments, then go on."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 90):
            await loop.sock_sendall(connection, data[at : at + 90])
            await asyncio.sleep(0.003)
        return await then(connection)


def test_a_hello_in_many_segments_is_understood(authority: Authority, runner: asyncio.Runner) -> None:
    """Post-quantum hellos do not fit one segment; some stacks also cut short ones."""

    async def main() -> None:
        async with Server(authority) as server:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = trusting(authority, "x" * 200, "y" * 250, "z" * 250, ALPN_JOIN)
            client = context.wrap_bio(incoming, outgoing, server_hostname=CONTROL_NAME)
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            first = outgoing.read()
            assert len(first) > 1000

            async def finish(connection: socket.socket) -> bytes:
                loop = asyncio.get_running_loop()
                while True:
                    incoming.write(await asyncio.wait_for(loop.sock_recv(connection, 65536), 30))
                    try:
                        client.do_handshake()
                        return client.read(100)
                    except ssl.SSLWantReadError:
                        if out := outgoing.read():
                            await loop.sock_sendall(connection, out)

            assert await dribble(server.acceptor.port, first, finish) == b"join\n"

    runner.run(main())


def test_garbage_and_early_ends_do_no_harm(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority, local=lambda _: False) as server:
            good = hello(trusting(authority, ALPN_CONTROL))
            rng = random.Random(1)
            for first in (
                b"\x16" + bytes(50),
                good[:40],
                rng.randbytes(300),
                b"\x16\x03\x01\xff\xff",
                b"SSH-2.0-x\r\n",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.acceptor.port)
                writer.write(first)
                writer.write_eof()
                # A reset is as good: what was sent lay unread when the server closed.
                with contextlib.suppress(ConnectionResetError):
                    await asyncio.wait_for(reader.read(), 30)
                writer.close()
            await linked(server, join(authority, tmp_path, server.url), Owner())

    runner.run(main())


def test_a_port_in_use_is_an_os_error(authority: Authority, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority) as server:
            second = Acceptor({})
            with pytest.raises(OSError, match="in use"):
                await second.listen("127.0.0.1", server.acceptor.port)

    runner.run(main())


def test_closing_stops_listening_and_leaves_links(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority) as server:
            agent = Owner()
            await linked(server, join(authority, tmp_path, server.url), agent)
            port = server.acceptor.port
            await server.acceptor.close()
            with pytest.raises(ConnectionRefusedError):
                await read_all(port)
            agent.link.send(wire.Leave())
            await until(lambda: server.owner.messages)

    runner.run(main())


def test_a_hundred_agents_dial_at_once(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority, deadline_s=20) as server:
            identity = join(authority, tmp_path, server.url)
            agents = [Owner() for _ in range(100)]
            dialer = TlsDialer(server.url, identity, {})
            await asyncio.gather(
                *(dialer.dial(lambda agent=agent: Link(agent, side=Side.AGENT)) for agent in agents)  # type: ignore[misc]
            )
            await until(lambda: len(server.owner.links) == 100)

    runner.run(main())
