"""Dialling through a CONNECT proxy, and which hosts go through it."""

import asyncio
import base64
import socket
from pathlib import Path

import pytest

from tests.tunnel.conftest import join
from tests.tunnel.ends import Owner, until
from tests.tunnel.test_tls import Server
from tests.tunnel.virtual import run
from tunnel.dialer import TlsDialer, Watched, connect, host_port
from tunnel.identity import Authority
from tunnel.link import Link, Side
from tunnel.ways import SEGMENT


class ConnectProxy:
    """A CONNECT proxy on loopback. It sends every tunnel to `target`, whatever host was asked for."""

    def __init__(self, target: int, auth: str = "", reply: bytes = b"") -> None:
        self.target = target
        self.auth = auth
        self.reply = reply
        self.asked: list[str] = []

    async def __aenter__(self) -> "ConnectProxy":
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._tunnel(reader, writer))
        self._tasks.add(task)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(request.split("\r\n")[0])
        wanted = "Proxy-Authorization: Basic " + base64.b64encode(self.auth.encode()).decode()
        if self.reply or (self.auth and wanted not in request.split("\r\n")):
            writer.write(self.reply or b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        writer.write(b"HTTP/1.1 200 Connection established\r\nX-Proxy: test\r\n\r\n")
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.mark.parametrize("auth", ["", "user:p@ss"])
def test_a_link_through_a_proxy(authority: Authority, tmp_path: Path, runner: asyncio.Runner, auth: str) -> None:
    async def main() -> None:
        async with Server(authority) as server, ConnectProxy(server.acceptor.port, auth) as proxy:
            user = auth.replace("@", "%40") + "@" if auth else ""
            environ = {"HTTPS_PROXY": f"http://{user}127.0.0.1:{proxy.port}"}
            identity = join(authority, tmp_path, "https://atoll.example.org:8700")
            agent = Owner()
            await TlsDialer(identity.url, identity, environ).dial(lambda: Link(agent, side=Side.AGENT))
            await until(lambda: server.owner.links)
            assert server.owner.link.peer == "a-1"
            assert proxy.asked == ["CONNECT atoll.example.org:8700 HTTP/1.1"]
            agent.link.close("done")
            await until(lambda: agent.losses and server.owner.losses)

    runner.run(main())


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"", "407"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden"),
        (b"220 smtp\r\n", "no HTTP reply"),
        (b"x" * 20_000, "no HTTP reply"),
        (b"\r\n\r\n", "refused"),
    ],
)
def test_a_proxy_that_refuses(runner: asyncio.Runner, reply: bytes, says: str) -> None:
    async def main() -> None:
        async with ConnectProxy(1, "secret:word", reply) as proxy:
            with pytest.raises(ConnectionError, match=says) as caught:
                await connect("far.example.org", 443, {"https_proxy": f"http://u:hidden@127.0.0.1:{proxy.port}"})
            assert "hidden" not in str(caught.value)

    runner.run(main())


def test_a_dead_end_is_an_os_error(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with Server(authority) as server:
            free = server.url
        identity = join(authority, tmp_path, free)
        agent = Owner()
        with pytest.raises(OSError):
            await TlsDialer(free, identity, {}).dial(lambda: Link(agent, side=Side.AGENT))
        with pytest.raises(OSError):
            await connect("far.example.org", 443, {"https_proxy": "socks5://127.0.0.1:9"})

    runner.run(main())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.b:8700/x", ("a.b", 8700)),
        ("https://a.b", ("a.b", 443)),
        ("http://127.0.0.1:8700", ("127.0.0.1", 8700)),
        ("a.b:99", ("a.b", 99)),
        ("https://[::1]:5", ("::1", 5)),
    ],
)
def test_urls(url: str, expected: tuple[str, int]) -> None:
    assert host_port(url) == expected


@pytest.mark.parametrize("url", ["", "https://", "https://a:b", "https://a:99999", "https://["])
def test_bad_urls(url: str) -> None:
    with pytest.raises(OSError, match="not the URL"):
        host_port(url)


def test_small_packets_are_small_both_ways(runner: asyncio.Runner) -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sizes = []
        for segment in (0, SEGMENT):
            with await connect("127.0.0.1", port, {}, segment) as connection:
                sizes.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        server.close()
        assert sizes[0] > SEGMENT >= sizes[1]

    runner.run(main())


@pytest.mark.parametrize(("came", "lived", "told"), [(1500, 9.0, [True]), (1499, 4.0, [False]), (1499, 2.0, [])])
def test_a_link_is_proven_by_what_comes_and_stalled_when_too_little_does(
    came: int, lived: float, told: list[bool]
) -> None:
    async def main() -> list[bool]:
        settled: list[bool] = []
        watched = Watched(asyncio.Protocol(), settled.append)
        watched.buffer_updated(came)
        await asyncio.sleep(lived)
        watched.connection_lost(None)
        return settled

    assert run(main()) == told
