"""The route of agents' connections that come inside a WebSocket, by way of something that opens TLS."""

import asyncio
import contextlib
import socket

from aiohttp import WSCloseCode, WSMsgType, web

from atoll.errors import Invalid, Unavailable
from federation.api.route import Access, Call, Route
from tunnel.acceptor import DEADLINE_S
from tunnel.envelope import CHUNK, PATH
from tunnel.hello import HELLO_LIMIT
from tunnel.websocket import MESSAGE_LIMIT


async def tunnel(call: Call) -> web.StreamResponse:
    """Carry a TLS connection of an agent or a joining machine, which shows inside who it is.

    Binary messages are its bytes; the first holds the whole ClientHello.
    """
    take, request = call.services.take, call.request
    ws = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_LIMIT, autoping=True)
    if not ws.can_prepare(request).ok:
        raise Invalid("this is a way for agents, inside a WebSocket", hint="open it with `Upgrade: websocket`")
    if take is None or _inside(request):
        raise Unavailable("no agents are served here")
    await ws.prepare(request)
    near, far = socket.socketpair()
    near.setblocking(False)
    code = WSCloseCode.OK
    with near:
        if not await _begun(ws, near):
            far.close()
        elif take(far, request.remote or ""):
            await _carry(ws, near, call.services.closing)
        else:
            code = WSCloseCode.TRY_AGAIN_LATER
    await ws.close(code=code)
    return ws


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


def _inside(request: web.Request) -> bool:
    """Whether the request itself came inside a WebSocket: one is enough."""
    way = request.get_extra_info("socket")
    return way is not None and way.family == socket.AF_UNIX


ROUTES = (
    Route(
        method="GET", path=PATH, handle=tunnel, access=Access.OPEN,
        status=101, content="websocket", summary="Carry an agent's own TLS connection inside a WebSocket",
    ),
)  # fmt: skip
