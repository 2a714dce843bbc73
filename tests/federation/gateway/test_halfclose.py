"""Ends of one side: clients that have said all, and apps that have, or that hear no more of an upload."""

import asyncio

import pytest

from tests.federation.gateway.conftest import App
from tests.federation.gateway.test_http import CHUNKED, client, fixed, head, speaking


async def test_a_client_that_has_said_all_gets_its_answer(app: App) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def reply(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")

    async with speaking(app, reply), client(app) as (reader, writer):
        writer.write(head(app, "GET / HTTP/1.1"))
        writer.write_eof()
        await asked.wait()
        go.set()
        assert (await reader.read()).endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_upload_whose_end_is_followed_by_the_clients_own(app: App, chunked: bool) -> None:
    size = 5_000_000
    body = b"x" * size
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body) if chunked else body
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    async with client(app) as (reader, writer):
        writer.write(head(app, "POST /upload HTTP/1.1", framing) + sent)
        writer.write_eof()
        got = await reader.read()
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b'"size": %d}' % size)


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 100"])
async def test_an_upload_that_is_cut_is_not_whole_for_the_app_either(app: App, framing: str) -> None:
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def reply(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.set_result(await reader.read())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken")

    async with speaking(app, reply) as heads, client(app) as (reader, writer):
        writer.write(head(app, "POST / HTTP/1.1", framing) + b"3\r\nabc\r\n")
        while not heads:
            await asyncio.sleep(0.01)
        writer.write_eof()
        assert b"taken" not in await reader.read()
        got = await ended
    assert not got.endswith(b"0\r\n\r\n"), "but no end of it is made up"
    assert len(got) < 100


async def test_events_for_a_client_that_has_said_all_until_it_is_gone(app: App) -> None:
    gone = asyncio.Event()

    async def reply(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            await writer.drain()
            await asyncio.sleep(0.02)
        await reader.read()  # until the gateway hangs up: nothing more is said
        gone.set()

    async with speaking(app, reply):
        async with client(app) as (reader, writer):
            writer.write(head(app, "GET / HTTP/1.1"))
            writer.write_eof()
            await reader.readuntil(b"data: 2\n\n")
            assert not gone.is_set()
        async with asyncio.timeout(60):
            await gone.wait()


async def test_a_websocket_ends_with_its_clients_side(app: App) -> None:
    lines = "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"
    async with client(app) as (reader, writer):
        writer.write(head(app, "GET /ws HTTP/1.1", *lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write_eof()
        await reader.read()


async def test_an_answer_that_ends_with_the_apps_side(app: App) -> None:
    """The app has not read all of the request, and goes on reading."""
    body = b"y" * 3_000_000
    over = asyncio.Event()

    async def reply(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + body)
        writer.write_eof()
        while await reader.read(65536):
            pass
        over.set()
        writer.close()

    async with speaking(app, reply), client(app) as (reader, writer):
        writer.write(head(app, "POST / HTTP/1.1", "Content-Length: 100000000") + b"x" * 20_000)
        answer = b""
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += await reader.read(1_000_000)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.partition(b"\r\n\r\n")[2].count(b"y") == len(body)
        await over.wait()


async def test_an_upload_that_the_app_refuses_while_it_goes_on(app: App) -> None:
    """The app ends its side and waits for the other's end, as RFC 9112 (9.6) has it."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmore"

    async def reply(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.write(refusal)
        writer.write_eof()
        while await reader.read(65536):
            pass
        writer.close()

    async def upload(writer: asyncio.StreamWriter) -> None:
        writer.write(head(app, "POST / HTTP/1.1", "Content-Length: 1000000000000"))
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with speaking(app, reply), client(app) as (reader, writer):
        uploading = asyncio.create_task(upload(writer))
        try:
            assert (await reader.readuntil(b"more")).startswith(b"HTTP/1.1 413")
            assert not uploading.done(), "who still uploads is not cut off before it can have read that"
        finally:
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)


async def test_either_end_may_want_its_connection_closed(app: App) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    async with speaking(app, fixed(answer, close=True)) as heads, client(app) as (reader, writer):
        for _ in range(2):  # the app's wish is its own connection's
            writer.write(head(app, "GET / HTTP/1.1"))
            got = await reader.readuntil(b"abc")
            assert b"close" not in got
        writer.write(head(app, "GET / HTTP/1.1", "Connection: close"))
        got = await reader.read()
        assert b"Connection: close" in got
        assert got.endswith(b"abc")
        assert b"close" not in heads[2].lower()


async def test_both_directions_at_a_time(app: App) -> None:
    """An app that answers what it reads, as it reads it, to a client that sends no length."""

    async def reply(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"\r\n")
        while (size := int(await reader.readline(), 16)) > 0:
            part = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n%s" % (size, part.upper()))
        await reader.readline()
        writer.write(b"0\r\n\r\n")

    async with speaking(app, reply), client(app) as (reader, writer):
        writer.write(head(app, "POST / HTTP/1.1", "Transfer-Encoding: chunked"))
        writer.write(b"2\r\nab\r\n")
        await reader.readuntil(b"AB")
        writer.write(b"2\r\ncd\r\n")
        await reader.readuntil(b"CD")
        writer.write(b"0\r\n\r\n")
        writer.write_eof()
        await reader.readuntil(b"0\r\n\r\n")
