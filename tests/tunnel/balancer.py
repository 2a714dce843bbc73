"""Load balancers: one that opens TLS with its own certificate, one that hangs up on names that it does not know."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tunnel.hello import Hello, read
from tunnel.identity import Authority


@contextlib.asynccontextmanager
async def opening_tls(balancers: Authority, behind: int, seen: bytearray | None = None) -> AsyncIterator[int]:
    """A balancer: ends TLS, and passes the plain bytes on; what it can read is added to `seen`."""
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", behind)
        try:
            await asyncio.gather(_copy(reader, far_writer, seen), _copy(far_reader, writer, seen))
        except OSError:
            return

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(carry(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=balancers.http_context())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def knowing(names: set[str], behind: int) -> AsyncIterator[int]:
    """What stands before a balancer and resets connections to any other name, before it says a word."""
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        hello = read(first)
        if not isinstance(hello, Hello) or hello.name not in names:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", behind)
        far_writer.write(first)
        await asyncio.gather(_copy(reader, far_writer, None), _copy(far_reader, writer, None))

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(carry(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None) -> None:
    try:
        while data := await reader.read(65536):
            if seen is not None:
                seen += data
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
