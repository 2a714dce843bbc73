"""Clients that end their side of a connection before they have their answer, and those that are gone altogether."""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from federation.api.connection import connections
from tests.tunnel.tlsclient import TlsClient
from tunnel.acceptor import Acceptor, Route
from tunnel.identity import Authority
from tunnel.servertls import ServerTls

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, web.Server]]:
    """A server of that answer, and one connection to it."""
    server = web.Server(answer)
    listening = await asyncio.get_running_loop().create_server(connections(server), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        async with asyncio.timeout(60):
            yield reader, writer, server
    finally:
        writer.transport.abort()
        listening.close()
        await server.shutdown(1.0)


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


class Gate:
    """Answers with the request's path once it is opened."""

    def __init__(self) -> None:
        self.inside: list[web.BaseRequest] = []
        self.open = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.inside.append(request)
        await self.open.wait()
        return web.Response(text=f"answer to {request.path}")

    def gone(self) -> bool:
        return self.inside[0].transport is None


def test_an_answer_after_the_end_of_the_clients_side(runner: asyncio.Runner) -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate) as (reader, writer, server):
            writer.write(GET % 1)
            writer.write_eof()
            await until(lambda: bool(gate.inside))
            await asyncio.sleep(0.05)  # the end has come, too, and nothing follows from it
            assert not gate.gone()
            gate.open.set()
            assert (await reader.read()).endswith(b"answer to /1"), "and the server's end comes right behind"
            await until(lambda: server.connections == [])

    runner.run(main())


def test_a_large_answer_that_is_read_late(runner: asyncio.Runner) -> None:
    body = b"x" * 20_000_000

    async def whole(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body)

    async def main() -> None:
        async with serving(whole) as (reader, writer, _):
            writer.write(GET % 1)
            writer.write_eof()
            await asyncio.sleep(0.1)
            assert (await reader.read()).endswith(body)

    runner.run(main())


def test_all_of_several_requests_are_answered(runner: asyncio.Runner) -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate) as (reader, writer, _):
            writer.write(b"".join(GET % number for number in range(50)) + b"GET /rest HT")
            writer.write_eof()
            await until(lambda: bool(gate.inside))
            gate.open.set()
            got = await reader.read()
            assert [f"/{number}" in got.decode() for number in range(50)] == [True] * 50
            assert got.count(b"HTTP/1.1 200 OK") == 50

    runner.run(main())


@pytest.mark.parametrize(
    "cut",
    [
        POST % (b"Content-Length: 10", b"short"),
        POST % (b"Transfer-Encoding: chunked", b"5\r\nshort\r\n"),
        POST % (b"Transfer-Encoding: chunked", b"5\r\nshort\r\n0\r\n"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_cut_upload_is_not_taken_for_a_whole_one(runner: asyncio.Runner, cut: bytes, together: bool) -> None:
    taken: list[bytes | Exception] = []

    async def upload(request: web.BaseRequest) -> web.StreamResponse:
        try:
            taken.append(await request.content.read())
        except Exception as error:
            taken.append(error)
            raise
        return web.Response(text="taken")

    async def main() -> None:
        async with serving(upload) as (reader, writer, server):
            writer.write(cut)
            if not together:
                await until(lambda: bool(server.requests_count))
                await asyncio.sleep(0.05)
            writer.write_eof()
            assert b"200" not in await reader.read()
            await until(lambda: bool(taken))
        assert isinstance(taken[0], ConnectionError)

    runner.run(main())


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET % 1])
def test_nothing_to_answer_is_the_end(runner: asyncio.Runner, sent: bytes) -> None:
    async def main() -> None:
        gate = Gate()
        gate.open.set()
        async with serving(gate) as (reader, writer, server):
            writer.write(sent)
            if sent == GET % 1:
                assert await reader.readuntil(b"to /1")
            await until(lambda: bool(server.connections))
            writer.write_eof()
            assert await reader.read() == b""

    runner.run(main())


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_a_silent_request_of_a_client_that_is_gone(runner: asyncio.Runner, half: bool, reset: bool) -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate) as (_, writer, server):
            writer.write(GET % 1)
            if half:
                writer.write_eof()
            await until(lambda: bool(gate.inside))
            if half:
                await asyncio.sleep(0.05)
                assert not gate.gone()
            if reset:
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await until(gate.gone)
            gate.open.set()
            await until(lambda: server.connections == [])

    runner.run(main())


def test_a_stream_without_end_is_over_when_nobody_hears_it(runner: asyncio.Runner) -> None:
    ended = asyncio.Event()

    async def ticks(request: web.BaseRequest) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        try:
            while True:
                await stream.write(b"tick\n")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async def main() -> None:
        async with serving(ticks) as (reader, writer, _):
            writer.write(GET % 1)
            writer.write_eof()
            for _ in range(20):
                await reader.readuntil(b"tick\n")
            writer.transport.abort()
            await ended.wait()

    runner.run(main())


def test_a_websocket_is_over_with_its_clients_side(runner: asyncio.Runner) -> None:
    closed: list[int | None] = []

    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        closed.append(ws.close_code)
        return ws

    async def main() -> None:
        async with serving(echo) as (reader, writer, _):
            writer.write(WEBSOCKET)
            assert b"101" in await reader.readuntil(b"\r\n\r\n")
            writer.write_eof()
            assert await reader.read() == b""
            await until(lambda: closed == [1006])

    runner.run(main())


def test_the_same_over_tls(runner: asyncio.Runner, tmp_path: Path) -> None:
    """The client's `close_notify` ends its side; the end of the TCP connection ends all."""
    authority = Authority.load_or_create(tmp_path, now=time.time())

    async def main() -> None:
        gate = Gate()
        server = web.Server(gate)
        route = Route(authority.http_context(), connections(server), counted=True, end=ServerTls)
        acceptor = Acceptor({"http/1.1": route})
        await acceptor.listen("127.0.0.1", 0)
        context = ssl.create_default_context(cadata=authority.ca_pem)
        async with asyncio.timeout(20):
            for gone in (False, True):
                gate.inside.clear()
                gate.open.clear()
                client = TlsClient(context, *await asyncio.open_connection("127.0.0.1", acceptor.port))
                await client.shake_hands()
                client.write(GET % 1)
                client.finish()
                await until(lambda: bool(gate.inside))
                assert gate.inside[0].secure
                await asyncio.sleep(0.05)
                assert not gate.gone()
                if gone:
                    client.writer.transport.abort()
                    await until(gate.gone)
                gate.open.set()
                if not gone:
                    assert (await client.read(1000)).endswith(b"answer to /1")
                    client.writer.close()
                await until(lambda: server.connections == [])
        await acceptor.close()
        await server.shutdown(1.0)

    runner.run(main())
