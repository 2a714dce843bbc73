"""The port counts whom it does not serve."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from atoll.host.system import SystemClock
from tests.tunnel.ends import until
from tunnel import wire
from tunnel.acceptor import Acceptor, Route
from tunnel.identity import Authority


def authority(folder: Path) -> Authority:
    return Authority.load_or_create(folder, now=SystemClock().now(), names=["localhost"])


async def test_connections_that_are_not_served_are_counted_by_reason(tmp_path: Path) -> None:
    own = authority(tmp_path / "own")
    routes = {wire.ALPN_CONTROL: Route(own.control_context(), asyncio.Protocol)}
    acceptor = Acceptor(routes, deadline_s=0.3)
    await acceptor.listen("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    try:
        with pytest.raises(OSError):  # an ALPN that nobody has
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", acceptor.port, ssl=context("h2"))
        await until(lambda: acceptor.refused == {"not_served_here": 1})
        # No certificate: the client learns it after its own handshake, or at once.
        with pytest.raises(OSError):
            await handshake(acceptor.port)
        await until(lambda: acceptor.refused["handshake"] == 1)
        quiet = socket.create_connection(("127.0.0.1", acceptor.port))
        await until(lambda: acceptor.pending == 1)
        await until(lambda: acceptor.refused["timeout"] == 1)
        quiet.close()
        socket.create_connection(("127.0.0.1", acceptor.port)).close()
        await until(lambda: acceptor.refused["broken_off"] == 1)
        assert acceptor.pending == 0
    finally:
        await acceptor.close()


def context(protocol: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols([protocol])
    return made


async def handshake(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context(wire.ALPN_CONTROL))
    try:
        if not await reader.read(1):
            raise ConnectionError("closed")
    finally:
        writer.close()
