"""Reading through the shared buffer changes nothing but the size of the pieces; on both loops."""

import asyncio
import hashlib
import random
import ssl
from pathlib import Path
from typing import cast

import pytest

from tests.tunnel.conftest import join
from tests.tunnel.ends import until
from tunnel.buffered import SIZE, Buffered
from tunnel.identity import Authority
from tunnel.wire import CONTROL_NAME

COUNT = 20


class Peer(asyncio.Protocol):
    """Sends what it was given, keeps what it gets."""

    def __init__(self, sends: bytes) -> None:
        self.sends = sends
        self.writable = True
        self.got: list[bytes] = []
        self.lost = False
        self.ended = False

    @property
    def size(self) -> int:
        return sum(map(len, self.got))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.resume_writing()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        while self.writable and self.sends:
            part, self.sends = self.sends[:50_000], self.sends[50_000:]
            self.transport.write(part)

    def data_received(self, data: bytes) -> None:
        self.got.append(data)

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@pytest.mark.parametrize("secure", [True, False])
def test_many_connections_at_once_keep_their_bytes_apart(
    secure: bool, authority: Authority, tmp_path: Path, runner: asyncio.Runner
) -> None:
    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None
    if secure:
        server, client = authority.http_context(), join(authority, tmp_path, "https://127.0.0.1:1").context()
        server.set_alpn_protocols([])
        client.set_alpn_protocols([])

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = [random.Random(number).randbytes(700_000) for number in range(COUNT)]
        there = [random.Random(-number - 1).randbytes(300_000 + number) for number in range(COUNT)]
        left = list(there)
        accepted: list[Peer] = []

        def accept() -> asyncio.BaseProtocol:
            accepted.append(Peer(left.pop()))
            return Buffered(accepted[-1])

        listening = await loop.create_server(accept, "127.0.0.1", 0, ssl=server)
        port = listening.sockets[0].getsockname()[1]
        dialled = [Peer(data) for data in here]
        for peer in dialled:
            await loop.create_connection(
                lambda peer=peer: Buffered(peer),
                "127.0.0.1",
                port,
                ssl=client,
                server_hostname=CONTROL_NAME if secure else None,
            )
        accepted[0].transport.pause_reading()
        dialled[0].transport.pause_reading()
        await until(lambda: all(peer.size == 700_000 for peer in accepted[1:]), 30)
        await asyncio.sleep(0.05)
        held = dialled[0].size
        await asyncio.sleep(0.05)
        assert dialled[0].size == held, "nothing comes while reading is paused"
        accepted[0].transport.resume_reading()
        dialled[0].transport.resume_reading()
        await until(lambda: accepted[0].size == 700_000 and sum(peer.size for peer in dialled) == sum(map(len, there)))
        assert sorted(digest(peer) for peer in accepted) == sorted(hashlib.sha256(data).digest() for data in here)
        assert sorted(digest(peer) for peer in dialled) == sorted(hashlib.sha256(data).digest() for data in there)
        assert all(type(part) is bytes and 0 < len(part) <= SIZE for peer in dialled for part in peer.got)
        for peer in dialled:
            peer.transport.close()
        await until(lambda: all(peer.lost for peer in (*accepted, *dialled)))
        assert all(peer.ended for peer in accepted)
        listening.close()
        await listening.wait_closed()

    runner.run(main())


def digest(peer: Peer) -> bytes:
    return hashlib.sha256(b"".join(peer.got)).digest()
