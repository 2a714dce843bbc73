"""`ssh`'s connection where something on the way opens TLS: SSH inside a WebSocket (ssh_config: ProxyCommand)."""

import asyncio
import contextlib
import os
import socket
import sys
import threading

from atoll.cli.server import server_module
from atoll.client import profile
from atoll.client.address import Address, tls_context, unreachable

CHUNK = 64 * 1024


def carry() -> int:
    """Carry standard input and output to the control plane's SSH door until either ends. Raises `AtollError`."""
    known = profile.load()
    asyncio.run(_carry(Address.parse(known.url), known.ca))
    return 0


async def _carry(address: Address, ca: str | None) -> None:
    dialer, envelope = server_module("tunnel.dialer"), server_module("tunnel.envelope")
    try:
        plain = await dialer.connect(address.host, address.port, os.environ)
        inside = await envelope.enveloped(plain, address.host, address.port, tls_context(ca))
    except OSError as error:
        raise unreachable(address, error) from error
    with inside:
        inside.setblocking(True)
        # Not waited for: a read of standard input ends when it likes.
        threading.Thread(target=_up, args=(inside,), daemon=True).start()
        await asyncio.to_thread(_down, inside)


def _up(inside: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, CHUNK):
            inside.sendall(data)
        inside.shutdown(socket.SHUT_WR)


def _down(inside: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := inside.recv(CHUNK):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
