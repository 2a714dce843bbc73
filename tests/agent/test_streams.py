"""A user's stream to a port: what the server says first arrives, on each kind of loop, however soon it says it."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from agent.streams import StreamLeg

GREETING = b"220 speaks first\r\n"


class Stream(asyncio.Transport):
    """The link's side: keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.reading = True
        self.over = asyncio.get_running_loop().create_future()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def abort(self) -> None:
        self.close()


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
@pytest.mark.parametrize("stays", [True, False])
def test_a_server_that_speaks_first_is_heard(loop: Callable[[], asyncio.AbstractEventLoop], stays: bool) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        if stays:
            await reader.read()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def connect(make: Callable[[], asyncio.Protocol]) -> None:
            await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)

        for _ in range(50):
            stream = Stream()
            leg = StreamLeg(connect)
            leg.connection_made(stream)
            async with asyncio.timeout(30):
                while len(stream.written) < len(GREETING):
                    await asyncio.sleep(0.001)
                if not stays:
                    await stream.over
            assert stream.written == GREETING
            leg.connection_lost(None)
        server.close()
        await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_a_port_that_nobody_listens_on_ends_the_stream() -> None:
    async def connect(_make: Callable[[], asyncio.Protocol]) -> None:
        raise ConnectionRefusedError

    stream = Stream()
    leg = StreamLeg(connect)
    leg.connection_made(stream)
    assert not stream.reading
    async with asyncio.timeout(30):
        await stream.over


async def test_what_comes_before_the_connection_is_told_is_kept() -> None:
    """As on uvloop, where the first bytes can be there before whoever connected goes on."""

    async def connect(make: Callable[[], asyncio.Protocol]) -> None:
        local = make()
        local.connection_made(Stream())
        local.data_received(GREETING)

    stream = Stream()
    leg = StreamLeg(connect)
    leg.connection_made(stream)
    async with asyncio.timeout(30):
        while not stream.reading:
            await asyncio.sleep(0.001)
    assert stream.written == GREETING
