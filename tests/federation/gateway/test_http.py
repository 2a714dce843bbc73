"""HTTP as it is on the wire: what apps and clients may do beyond the plain request and answer, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.federation.gateway.conftest import App
from tests.federation.served import BEARER

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
Reply = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(app: App, reply: Reply) -> AsyncIterator[list[bytes]]:
    """Let a server that answers each request by `reply` be the app; yields the heads of the requests it got."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reply(heads[-1], reader, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    app.server.plane.streams.apps["web"] = server.sockets[0].getsockname()[1]
    try:
        yield heads
    finally:
        server.close()


def fixed(answer: bytes, *, close: bool = False) -> Reply:
    async def reply(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        if close:
            writer.close()

    return reply


@asynccontextmanager
async def client(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.server.port)
    try:
        async with asyncio.timeout(60):
            yield reader, writer
    finally:
        writer.close()


def head(app: App, line: str, *lines: str) -> bytes:
    return "\r\n".join(
        (line, f"Host: {app.host}", f"Authorization: {BEARER['Authorization']}", *lines, "", "")
    ).encode()


@pytest.mark.parametrize(
    ("asked", "answer", "status", "body"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", 204, b""),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nX-A: 1\r\n\r\n', 304, b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nX-A: 1\r\n\r\n", 200, b""),
        (
            "GET",
            b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 2-4/9\r\nContent-Length: 3\r\nX-A: 1\r\n\r\n234",
            206,
            b"234",
        ),
        ("GET", b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\nX-A: 1\r\n\r\n", 418, b""),
        ("GET", CHUNKED + b"X-A: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, b"abc"),
        ("GET", CHUNKED + b"Trailer: X-Sum\r\nX-A: 1\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n", 200, b"abc"),
    ],
)
async def test_answers_without_or_with_unusual_bodies(
    app: App, asked: str, answer: bytes, status: int, body: bytes
) -> None:
    async with speaking(app, fixed(answer)) as heads:
        for _ in range(3):  # the connections to and from the gateway are good for the next request
            async with app.ask("/", asked, headers={"Range": "bytes=2-4"}) as got:
                assert (got.status, await got.read(), got.headers["X-A"]) == (status, body, "1")
                if asked == "HEAD":
                    assert got.headers["Content-Length"] == "1000000"
                if status == 206:
                    assert got.headers["Content-Range"] == "bytes 2-4/9"
                if status == 304:
                    assert got.headers["ETag"] == '"x"'
    assert len(heads) == 3
    assert all(b"Range: bytes=2-4" in each for each in heads)


async def test_redirects_and_cookies_on_a_name_of_its_own(app: App) -> None:
    answer = (
        b"HTTP/1.1 302 Found\r\nLocation: http://other.example/a%2Fb?c\r\nContent-Length: 0\r\n"
        b"Set-Cookie: a=1; Path=/; Domain=.localhost\r\nSet-Cookie: b=2; HttpOnly\r\n"
        b'Clear-Site-Data: "*"\r\nSet-Cookie: atoll_app=3\r\n\r\n'
    )
    async with speaking(app, fixed(answer)), app.ask("/") as got:
        assert got.status == 302
        assert got.headers["Location"] == "http://other.example/a%2Fb?c"
        assert got.headers.getall("Set-Cookie") == ["a=1; Path=/", "b=2; HttpOnly"]
        assert "Clear-Site-Data" not in got.headers


async def test_an_old_app_ends_its_answer_by_closing(app: App) -> None:
    body = b"x" * 300_000
    async with speaking(app, fixed(b"HTTP/1.0 200 OK\r\n\r\n" + body, close=True)), app.ask("/") as got:
        assert await got.read() == body


async def test_an_old_client(app: App) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with speaking(app, fixed(answer)), client(app) as (reader, writer):
        writer.write(head(app, "GET / HTTP/1.0"))
        got = await reader.read()
    assert got.startswith(b"HTTP/1.0 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nabc"), "no chunks for one who does not know them; the end is the end"


async def test_a_client_that_waits_before_its_body(app: App) -> None:
    async def reply(got: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Expect" not in got
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + await reader.readexactly(5))

    async with speaking(app, reply), client(app) as (reader, writer):
        writer.write(head(app, "POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 5"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(5) == b"hello"


async def test_a_body_in_chunks_with_trailers(app: App) -> None:
    async def reply(got: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Transfer-Encoding: chunked" in got
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with speaking(app, reply), client(app) as (reader, writer):
        for _ in range(2):
            writer.write(head(app, "POST / HTTP/1.1", "Transfer-Encoding: chunked", "Trailer: X-Sum"))
            writer.write(b"3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            assert await reader.readexactly(2) == b"ok"


async def test_an_answer_before_the_whole_body(app: App) -> None:
    """An app that refuses an upload early is heard, and not waited for."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmore"

    async def reply(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(refusal)

    async with speaking(app, reply), client(app) as (reader, writer):
        writer.write(head(app, "POST / HTTP/1.1", "Content-Length: 100000000") + b"x" * 10_000)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        assert await reader.readexactly(4) == b"more"


async def test_an_app_is_let_go_when_its_visitor_has_gone(app: App) -> None:
    gone = asyncio.Event()

    async def reply(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await writer.drain()
        await reader.read()  # until the gateway hangs up: the app itself says nothing more
        gone.set()
        writer.close()

    async with speaking(app, reply):
        async with app.ask("/") as got:
            assert await got.content.readuntil(b"\n\n") == b"data: 1\n\n"
            got.close()
        async with asyncio.timeout(60):
            await gone.wait()
