"""The server's end of what comes inside a WebSocket, by way of something that opens TLS."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMsgType, web

from tunnel.acceptor import DEADLINE_S
from tunnel.envelope import CHUNK
from tunnel.hello import HELLO_LIMIT
from tunnel.websocket import MESSAGE_LIMIT

Take = Callable[[socket.socket, str], bool]
"""Serves a connection as if it had been accepted from that address; False, and it is closed, where that is too much."""


def is_asked(request: web.BaseRequest) -> bool:
    """Say whether a request asks for a WebSocket."""
    return web.WebSocketResponse().can_prepare(request).ok


async def unpack(request: web.BaseRequest, take: Take, closing: asyncio.Event) -> web.StreamResponse:
    """Open the WebSocket that is asked for, and serve what is inside until `closing`.

    Binary messages are its bytes; the first holds the whole ClientHello, or the beginning of SSH.
    """
    ws = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_LIMIT, autoping=True)
    await ws.prepare(request)
    near, far = socket.socketpair()
    near.setblocking(False)
    code = WSCloseCode.OK
    with near:
        if not await _begun(ws, near):
            far.close()
        elif take(far, request.remote or ""):
            await _carry(ws, near, closing)
        else:
            code = WSCloseCode.TRY_AGAIN_LATER
    await ws.close(code=code)
    return ws


def is_inside(request: web.BaseRequest) -> bool:
    """Say whether a request itself came inside a WebSocket: one is enough."""
    way = request.get_extra_info("socket")
    return way is not None and way.family == socket.AF_UNIX


async def _begun(ws: web.WebSocketResponse, near: socket.socket) -> bool:
    """Pass on the first message; who listens inside looks at it before it takes anything."""
    with contextlib.suppress(TimeoutError):
        first = await ws.receive(timeout=DEADLINE_S)
        if first.type is WSMsgType.BINARY and len(first.data) <= HELLO_LIMIT:
            return near.send(first.data) == len(first.data)
    return False


async def _carry(ws: web.WebSocketResponse, near: socket.socket, closing: asyncio.Event) -> None:
    """Carry bytes both ways until either end is over, or the server is."""
    ways = [asyncio.create_task(way) for way in (_in(ws, near), _out(near, ws), closing.wait())]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _in(ws: web.WebSocketResponse, near: socket.socket) -> None:
    async for message in ws:
        if message.type is not WSMsgType.BINARY:
            return
        await asyncio.get_running_loop().sock_sendall(near, message.data)


async def _out(near: socket.socket, ws: web.WebSocketResponse) -> None:
    while data := await asyncio.get_running_loop().sock_recv(near, CHUNK):
        await ws.send_bytes(data)
