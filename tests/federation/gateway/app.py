"""A session's app: a small HTTP and WebSocket server that tells what it was sent."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web


async def _echo(request: web.Request) -> web.Response:
    told: dict[str, Any] = {
        "method": request.method,
        "path": request.raw_path,
        "headers": [[name, value] for name, value in request.headers.items()],
        "body": (await request.read()).decode(),
    }
    return web.json_response(told, headers={"X-App": "yes", "Set-Cookie": "mine=1; Path=/"})


async def _upload(request: web.Request) -> web.Response:
    digest, size = hashlib.sha256(), 0
    async for part in request.content.iter_chunked(65536):
        digest.update(part)
        size += len(part)
    return web.json_response({"sha256": digest.hexdigest(), "size": size})


async def _slow(request: web.Request) -> web.Response:
    size = 0
    async for part in request.content.iter_chunked(65536):
        size += len(part)
        if size < 16 * 1024 * 1024:
            await asyncio.sleep(0.01)
    return web.json_response({"size": size})


async def _flood(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    for number in range(96):
        await socket.send_bytes(bytes([number]) * 1024 * 1024)
    await socket.close()
    return socket


async def _download(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await answer.prepare(request)
    for _ in range(int(request.query["mib"]) * 16):
        await answer.write(b"x" * 65536)
    return answer


async def _events(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    gate: asyncio.Event = request.app[GATE]
    await answer.write(b"data: first\n\n")
    await gate.wait()
    await answer.write(b"data: second\n\n")
    return answer


async def _ticks(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    ticks = request.app[TICKS]
    for number in range(10):
        await answer.write(f"data: {number}\n\n".encode())
        await ticks.acquire()
    return answer


async def _tick(request: web.Request) -> web.Response:
    request.app[TICKS].release()
    return web.Response()


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
    await socket.prepare(request)
    await socket.send_json(dict(request.headers))
    async for message in socket:
        if message.type is WSMsgType.TEXT and message.data == "bye":
            await socket.close(code=4001, message=b"so long")
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def _cut(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"only this")
    assert request.transport is not None
    request.transport.abort()
    return answer


async def _bad_cookie(_request: web.Request) -> web.Response:
    return web.Response(headers={"Set-Cookie": "atoll_app=stolen; Path=/"}, status=302)


GATE: web.AppKey[asyncio.Event] = web.AppKey("gate", asyncio.Event)
TICKS: web.AppKey[asyncio.Semaphore] = web.AppKey("ticks", asyncio.Semaphore)


@asynccontextmanager
async def running_app(port: int = 0) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Serve the app on a port of loopback, 0 any; yields it and the gate that its event stream waits at."""
    app = web.Application(client_max_size=0)
    app[GATE] = asyncio.Event()
    app[TICKS] = asyncio.Semaphore(0)
    app.router.add_post("/upload", _upload)
    app.router.add_get("/download", _download)
    app.router.add_get("/events", _events)
    app.router.add_post("/slow", _slow)
    app.router.add_get("/flood", _flood)
    app.router.add_get("/ticks", _ticks)
    app.router.add_post("/tick", _tick)
    app.router.add_get("/ws", _socket)
    app.router.add_get("/cut", _cut)
    app.router.add_get("/cookie", _bad_cookie)
    app.router.add_route("*", "/{rest:.*}", _echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield runner.addresses[0][1], app[GATE]
    finally:
        await runner.cleanup()


async def main() -> None:
    """Be the app `web` of the session that this is run in."""
    async with running_app(int(os.environ["ATOLL_APP_WEB_PORT"])):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
