"""HTTPS's end of TLS: half-close, and all else as with the event loop's own."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest

from tests.tunnel.ends import until
from tests.tunnel.tlsclient import TlsClient
from tunnel.acceptor import Acceptor, Route
from tunnel.identity import Authority
from tunnel.servertls import SHUTDOWN_S, ServerTls


class Above(asyncio.Protocol):
    """The server's protocol, which a test plays."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.got = bytearray()
        self.up = self.ended = self.full = False
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.up = True

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def pause_writing(self) -> None:
        self.full = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class House:
    def __init__(self, authority: Authority, shutdown_s: float) -> None:
        self.authority = authority
        self.made: list[Above] = []
        route = Route(authority.http_context(), self.make, counted=True, end=partial(ServerTls, shutdown_s=shutdown_s))
        self.acceptor = Acceptor({"http/1.1": route}, deadline_s=1.0)

    def make(self) -> Above:
        self.made.append(Above())
        return self.made[-1]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[TlsClient, Above]]:
        context = ssl.create_default_context(cadata=self.authority.ca_pem)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.acceptor.port)
        client = TlsClient(context, reader, writer)
        try:
            await client.shake_hands()
            await until(lambda: any(above.up for above in self.made))
            yield client, self.made[-1]
        finally:
            writer.transport.abort()


@asynccontextmanager
async def house(authority: Authority, shutdown_s: float = SHUTDOWN_S) -> AsyncIterator[House]:
    at = House(authority, shutdown_s)
    await at.acceptor.listen("127.0.0.1", 0)
    try:
        async with asyncio.timeout(20):
            yield at
            await until(lambda: all(above.lost for above in at.made))
    finally:
        await at.acceptor.close()


def test_a_client_that_sends_no_more_still_hears_us(runner: asyncio.Runner, authority: Authority) -> None:
    async def main() -> None:
        async with house(authority) as at, at.client() as (client, above):
            client.write(b"all that I have to say")
            client.finish()
            await until(lambda: above.ended)
            assert above.got == b"all that I have to say"
            await asyncio.sleep(0.05)
            assert above.lost == []
            above.transport.write(b"x" * 1_000_000)
            assert await client.read(1_000_000) == b"x" * 1_000_000
            above.transport.close()
            assert await client.read(1) == b"", "our own end is made known, too"
            await until(lambda: above.lost == [None])

    runner.run(main())


@pytest.mark.parametrize("said", [True, False])
def test_a_client_that_closes_the_connection_is_gone(runner: asyncio.Runner, authority: Authority, said: bool) -> None:
    async def main() -> None:
        async with house(authority) as at, at.client() as (client, above):
            client.write(b"request")
            if said:
                client.finish()
                await until(lambda: above.ended)
            client.writer.close()
            await until(lambda: bool(above.lost))
            assert above.got == b"request"
            assert above.ended is said

    runner.run(main())


def test_much_goes_both_ways_and_waits_for_slow_readers(runner: asyncio.Runner, authority: Authority) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))

    async def main() -> None:
        async with house(authority) as at, at.client() as (client, above):
            above.transport.pause_reading()
            assert above.transport.is_reading() is False
            for at_byte in range(0, len(data), 100_000):
                client.write(data[at_byte : at_byte + 100_000])
            await asyncio.sleep(0.05)
            assert above.got == b""
            above.transport.resume_reading()
            await until(lambda: len(above.got) == len(data))
            assert above.got == data
            above.transport.writelines([data[:1000], data[1000:]])
            assert above.full
            assert await client.read(len(data)) == data

    runner.run(main())


def test_a_closed_connection_does_not_wait_for_ever(runner: asyncio.Runner, authority: Authority) -> None:
    async def main() -> None:
        async with house(authority, shutdown_s=0.1) as at, at.client() as (client, above):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined] # asyncio's are
            above.transport.write(b"x" * 50_000_000)
            above.transport.close()
            await until(lambda: bool(above.lost))

    runner.run(main())


@pytest.mark.parametrize(("sent", "reason"), [(b"", "timeout"), (b"\x15\x03\x03\x00\x02\x02\x28", "handshake")])
def test_handshakes_that_come_to_nothing(
    runner: asyncio.Runner, authority: Authority, sent: bytes, reason: str
) -> None:
    """An alert instead of an answer, or silence: counted, and nothing of it is left."""

    async def main() -> None:
        async with house(authority) as at:
            hello = ssl.MemoryBIO()
            tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            reader, writer = await asyncio.open_connection("127.0.0.1", at.acceptor.port)
            writer.write(hello.read())
            assert await reader.read(1)
            writer.write(sent)
            with contextlib.suppress(ConnectionError):
                while await reader.read(65536):
                    pass
            await until(lambda: at.acceptor.refused == {reason: 1})
            await until(lambda: not at.acceptor.pending)
            writer.close()

    runner.run(main())


def test_what_is_known_of_the_connection(runner: asyncio.Runner, authority: Authority) -> None:
    async def main() -> None:
        async with house(authority) as at, at.client() as (_, above):
            assert isinstance(above.transport.get_extra_info("sslcontext"), ssl.SSLContext)
            assert above.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert above.transport.get_extra_info("peername")[0] == "127.0.0.1"
            assert above.transport.get_extra_info("nothing", 7) == 7

    runner.run(main())
