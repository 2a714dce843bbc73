"""A connection inside a WebSocket inside HTTPS, for who is behind something that opens TLS or lets only HTTP pass.

What is inside is the very TLS or SSH that would have been dialled directly: who opens the envelope sees ciphertext.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

from tunnel import websocket
from tunnel.buffered import Buffered
from tunnel.tcp import tune
from tunnel.veil import Veil

PATH = "/v1/tunnel"
"""Where the control plane takes such WebSockets. The first message holds the whole ClientHello, or SSH's first line."""
CHUNK = 64 * 1024
_PARTING_S = 1.0
_pumps: set[asyncio.Task[None]] = set()


def outer_context(inner: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context for the envelope: who this system trusts, and besides whom `inner` does.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` name other certificates than the system's.
    """
    context = ssl.create_default_context()
    if certificates := inner.get_ca_certs(binary_form=True):
        context.load_verify_locations(cadata=b"".join(certificates))
    context.set_alpn_protocols(["http/1.1"])
    return context


async def enveloped(connection: socket.socket, host: str, port: int, context: ssl.SSLContext) -> socket.socket:
    """Open a WebSocket to `host` on a connected socket, which is taken over; return a socket for what goes inside.

    That one lives as long as the running loop does. Raises `OSError`.
    """
    reader, writer = await asyncio.open_connection(sock=connection, ssl=context, server_hostname=host, limit=2 * CHUNK)
    try:
        key = websocket.new_key()
        named = f"[{host}]" if ":" in host else host
        writer.write(websocket.upgrade(named if port == 443 else f"{named}:{port}", PATH, key))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise websocket.WebSocketError("it did not answer the request for a WebSocket") from None
        websocket.check_upgraded(head, key)
        tune(writer.get_extra_info("socket"))
        near, far = socket.socketpair()
    except BaseException:
        writer.close()
        raise
    near.setblocking(False)
    far.setblocking(False)
    task = asyncio.get_running_loop().create_task(_pump(near, reader, writer), name="tunnel envelope")
    _pumps.add(task)
    task.add_done_callback(_pumps.discard)
    return far


async def secured(
    connection: socket.socket,
    make: Callable[[], asyncio.BaseProtocol],
    context: ssl.SSLContext,
    name: str,
    *,
    inside: tuple[str, int] | None = None,
) -> None:
    """Shake hands with a server of that `name` on a connected socket, which is taken over; `make()` gets the transport.

    With `inside` that goes inside a WebSocket to this host and port. Raises `OSError`.
    """
    loop = asyncio.get_running_loop()
    if inside is None:
        await loop.create_connection(make, sock=connection, ssl=context, server_hostname=name)
    else:
        inner = await enveloped(connection, *inside, outer_context(context))
        await loop.create_unix_connection(make, sock=inner, ssl=context, server_hostname=name)


async def veiled(
    connection: socket.socket,
    protocol: asyncio.Protocol,
    context: ssl.SSLContext,
    name: str,
    *,
    inside: tuple[str, int] | None = None,
) -> Veil:
    """Do the same for TLS that can be lifted, and return it: the protocol's transport."""
    loop = asyncio.get_running_loop()
    veil = Veil(context, protocol, name)
    try:
        if inside is None:
            await loop.create_connection(lambda: Buffered(veil), sock=connection)
        else:
            inner = await enveloped(connection, *inside, outer_context(context))
            await loop.create_unix_connection(lambda: Buffered(veil), sock=inner)
        await veil.shaken
    except BaseException:
        veil.abort()
        raise
    return veil


async def _pump(near: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until either end is over."""
    loop = asyncio.get_running_loop()
    ways = [loop.create_task(_up(near, writer)), loop.create_task(_down(near, reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        try:
            await asyncio.gather(*ways, return_exceptions=True)
        finally:  # a loop that ends cancels this, too
            near.close()
            await _part(writer)


async def _part(writer: asyncio.StreamWriter) -> None:
    """Say goodbye, and leave no socket behind where the loop ends at once."""
    try:
        with contextlib.suppress(OSError):
            writer.write(websocket.goodbye())
            writer.close()
            async with asyncio.timeout(_PARTING_S):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


async def _up(near: socket.socket, writer: asyncio.StreamWriter) -> None:
    while data := await asyncio.get_running_loop().sock_recv(near, CHUNK):
        writer.write(websocket.message(data))
        await writer.drain()


async def _down(near: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    decoder = websocket.Decoder()
    while not decoder.closed and (data := await reader.read(CHUNK)):
        for payload in decoder.feed(data):
            await loop.sock_sendall(near, payload)
        if decoder.replies:
            writer.write(bytes(decoder.replies))
            decoder.replies.clear()
