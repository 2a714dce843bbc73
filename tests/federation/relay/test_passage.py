"""What a relay passes on: so much of each source, and no more."""

import asyncio
import socket

from federation.relay.passage import Passage
from tests.tunnel.ends import until


async def test_one_source_leaves_room_for_others() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    behind = server.sockets[0].getsockname()[1]
    passage = Passage(f"https://127.0.0.1:{behind}", {}, per_source=2, named=lambda address: address)
    listener = socket.create_server(("127.0.0.1", 0))

    async def come(source: str) -> bytes | None:
        """Say something from an address: what comes back, None where nothing is passed on."""
        client = socket.socket()
        client.bind((source, 0))
        client.connect(listener.getsockname())
        client.setblocking(False)
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        clients.append(client)
        try:
            await passage.serve(accepted)
        except ConnectionAbortedError:
            return None
        return b""

    clients: list[socket.socket] = []
    assert [await come("127.0.0.1") for _ in range(3)] == [b"", b"", None]
    assert await come("127.0.0.2") == b""
    assert len(passage) == 3
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(clients[0], b"hello")
    assert await loop.sock_recv(clients[0], 100) == b"hello"
    clients[0].close()
    await until(lambda: len(passage) == 2)
    assert await come("127.0.0.1") == b"", "who leaves makes room"
    passage.close()
    await until(lambda: len(passage) == 0)
    assert not passage._sources
    server.close()
    for each in (*clients, listener):
        each.close()
