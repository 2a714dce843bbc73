"""The user's end of resumable streams, outside the relay: plain TCP in, streams by the relay's copy door out."""

import asyncio
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable

from atoll.host.system import SystemChance
from bench.ends.common import AGENT, Make, say
from bench.ends.user import User
from tunnel.redial import RedialledTransport
from tunnel.resume import ID_SIZE


async def run(host: str, door: int) -> None:
    """Listen, and say where, until standard input ends; each connection is a stream of its own."""

    async def begin(make: Make) -> None:
        stream = secrets.token_bytes(ID_SIZE)
        transport = RedialledTransport(stream, _dial_of(host, door, stream), chance=SystemChance(), peer=AGENT)
        transport.attach(make())
        transport.start()

    server = await asyncio.get_running_loop().create_server(lambda: User(begin), host, 0)
    say(port=server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)


def _dial_of(host: str, door: int, stream: bytes) -> Callable[[Make], Awaitable[None]]:
    async def dial(make: Make) -> None:
        loop = asyncio.get_running_loop()
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, (host, door))
            await loop.sock_sendall(connection, stream)
            if await loop.sock_recv(connection, 1) != b"!":
                raise ConnectionError("the relay opened no stream")
        except BaseException:
            connection.close()
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.create_connection(make, sock=connection)

    return dial
