"""Users' traffic to session apps: HTTP, event streams, uploads and WebSockets, by Host header, through the links."""

import asyncio
import html
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import structlog
from aiohttp import (
    ClientConnectionError,
    ClientError,
    ClientSession,
    ClientWebSocketResponse,
    WSMessage,
    WSMsgType,
    web,
)
from multidict import CIMultiDict
from yarl import URL

from atoll.errors import AtollError, Conflict, NotFound, Unavailable
from atoll.ids import run_id
from atoll.session import Session
from atoll.states import ENDED, PLACED, SessionState
from federation.api import problems
from federation.api.auth import APP_COOKIE, Caller, set_cookie
from federation.api.grants import COOKIE_TTL_S, Purpose
from federation.api.route import Services
from federation.control.sharing import check_app
from federation.control.streamlog import Entry, Visit
from federation.gateway.headers import towards_app, towards_browser
from federation.gateway.inside import Inside
from federation.gateway.mount import Mount
from federation.gateway.tunnel import client
from tunnel.lanes import Use

log = structlog.get_logger("gateway")
GRANT = "atoll_grant"
CHUNK = 64 * 1024
BULK = 4 * 1024 * 1024
"""An upload from this size on has a connection of its own; how much comes down is not known beforehand."""
MAX_MESSAGE = 64 * 1024 * 1024
PUBLIC_MESSAGE = 1024 * 1024
"""The longest WebSocket message of one of whom nothing is known: each is held in memory as a whole."""


class Gateway:
    """Answers every request whose Host is `<app>--<session>.<apps domain>`, in path mode whose path is an app's."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._clients: dict[Use, ClientSession] = {}
        self._inside = Inside(services)

    async def front(self, request: web.Request) -> web.StreamResponse | None:
        """Return the app's answer, or None when the request names no app."""
        address = self._services.address
        named = address.app_of(request.host) or address.app_at(request.host, request.raw_path)
        if named is None:
            return None
        try:
            return await self._answer(request, *named)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - a request's boundary: a browser gets a page, a program a problem
            return self._sorry(request, error)

    async def close(self) -> None:
        """Drop the connections to apps."""
        await self._inside.close()
        for each in self._clients.values():
            await each.close()

    async def _answer(self, request: web.Request, app: str, ref: str) -> web.StreamResponse:
        try:
            row = await self._find(ref)
        except AtollError:
            await self._services.door.caller(request)  # a stranger does not hear which sessions there are
            raise
        mount = self._mount(request, row, app)
        if mount.prefix and not request.raw_path.startswith(f"{mount.prefix}/"):
            # By name, or without the last slash: an app's cookies and links hold for one path only.
            rest = request.raw_path.removeprefix(f"/apps/{ref}/{app}")
            return web.Response(status=307, headers={"Location": f"{mount.prefix}/{rest.removeprefix('/')}"})
        if GRANT in request.query:
            return self._admit(request, row, mount)
        visit = Visit(door="app", project=row.project, session=row.id, app=app, source=request.remote or "")
        record = self._services.control.streams.log

        def refused(who: Caller, error: AtollError) -> None:
            record.refused(replace(visit, user=who.owner), error.reason, error.message)

        caller = await self._services.door.visitor(request, row, app, refused)
        run = self._run_of(row, app)
        async with self._inside.visit(caller, row, app, request):
            entry = record.began(replace(visit, user=caller.owner, run=run), sum_up=True)
            try:
                if request.headers.get("Upgrade", "").lower() == "websocket":
                    most = MAX_MESSAGE if caller.owner else PUBLIC_MESSAGE
                    return await self._websocket(request, app, run, mount, entry, most)
                return await self._http(request, app, run, mount, entry)
            finally:
                entry.ended()

    def _mount(self, request: web.Request, row: Session, app: str) -> Mount:
        if not self._services.address.has_paths(request.host):
            return Mount()
        return Mount(f"/apps/{row.id}/{app}", whole=row.spec.rule(app).prefix)

    async def _find(self, ref: str) -> Session:
        async with self._services.control.store.transaction() as tx:
            row = await tx.get(Session, ref)
            named = [] if row else await tx.find(Session, name=ref, newest=True)
        live = [each for each in named if each.state not in ENDED]
        if row is None and len(live) > 1:
            raise Conflict(f"{len(live)} sessions are called {ref}", hint="use the session's id in the address")
        found = [row] if row else live or named
        if not found:
            raise NotFound(f"there is no session {ref}", hint="`atoll ps` lists sessions and their links")
        return found[0]

    def _admit(self, request: web.Request, row: Session, mount: Mount) -> web.StreamResponse:
        """Turn a link's grant into a cookie of this app's place, and drop it from the address."""
        door = self._services.door
        owner = door.grants.check(request.query[GRANT], Purpose.LINK, audience=row.id).owner
        clean = request.rel_url.without_query_params(GRANT)
        answer = web.Response(status=303, headers={"Location": str(clean), "Referrer-Policy": "no-referrer"})
        cookie = door.grants.issue(Purpose.APP, owner, ttl_s=COOKIE_TTL_S, audience=row.id)
        set_cookie(answer, request, APP_COOKIE, cookie, COOKIE_TTL_S, f"{mount.prefix}/")
        return answer

    def _run_of(self, row: Session, app: str) -> str:
        check_app(row, app)
        if row.state in ENDED:
            raise Conflict(f"{row.name} has ended ({row.state})", hint="start it again with `atoll run`")
        if row.state not in PLACED or row.state is SessionState.STARTING:
            text = f": {row.message}" if row.message else ""
            raise Unavailable(f"{row.name} is {row.state}{text}", hint=row.hint or "reload this page in a moment")
        return run_id(row.id, row.attempt, 0)

    def _upstream(self, use: Use = Use.SHORT) -> ClientSession:
        if use not in self._clients or self._clients[use].closed:
            self._clients[use] = client(self._services.control.streams, use)
        return self._clients[use]

    def _headers(self, request: web.Request, mount: Mount, *, websocket: bool = False) -> CIMultiDict[str]:
        """Return what the app is told: the browser's headers less ours, and how it was reached."""
        told = towards_app(request.headers.items(), request.headers.get("Connection", ""), websocket=websocket)
        told["X-Forwarded-Proto"] = self._services.address.apps_scheme
        if mount.prefix:
            told["X-Forwarded-Prefix"] = mount.prefix
        return told

    async def _http(self, request: web.Request, app: str, run: str, mount: Mount, entry: Entry) -> web.StreamResponse:
        headers = self._headers(request, mount)
        body = request.content.iter_chunked(CHUNK) if request.can_read_body else None
        use = Use.BULK if (request.content_length or 0) >= BULK else Use.SHORT
        async with _refused(app):
            upstream = await self._upstream(use).request(
                request.method, _url(request, app, run, mount), headers=headers, data=body, allow_redirects=False
            )
        async with upstream:
            answer = web.StreamResponse(
                status=upstream.status,
                reason=upstream.reason,
                headers=towards_browser(upstream.headers, mount, request.host),
            )
            await answer.prepare(request)
            received = 0
            try:
                async for data in upstream.content.iter_any():
                    await answer.write(data)
                    received += len(data)
            except ClientError:
                # The browser must not take a cut answer for a whole one: drop its connection.
                if request.transport is not None:
                    request.transport.abort()
                return answer
            finally:
                entry.carried(received, request.content.total_bytes)
            await answer.write_eof()
        return answer

    async def _websocket(
        self, request: web.Request, app: str, run: str, mount: Mount, entry: Entry, most: int
    ) -> web.StreamResponse:
        headers = self._headers(request, mount, websocket=True)
        offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if part]
        async with _refused(app):
            inner = await self._upstream().ws_connect(
                _url(request, app, run, mount),
                protocols=offered,
                headers=headers,
                autoping=False,
                autoclose=False,
                max_msg_size=MAX_MESSAGE,
                compress=0,
            )
        chosen = [inner.protocol] if inner.protocol else []
        outer = web.WebSocketResponse(
            protocols=chosen, autoping=False, autoclose=False, max_msg_size=most, compress=False
        )
        try:
            await outer.prepare(request)
            await self._carry(outer, inner, entry)
        finally:
            await inner.close()
        return outer

    async def _carry(self, outer: web.WebSocketResponse, inner: ClientWebSocketResponse, entry: Entry) -> None:
        stop = asyncio.create_task(self._services.closing.wait())
        ways = [
            asyncio.create_task(_pass(outer, inner, lambda count: entry.carried(0, count))),
            asyncio.create_task(_pass(inner, outer, lambda count: entry.carried(count, 0))),
        ]
        try:
            await asyncio.wait([*ways, stop], return_when="FIRST_COMPLETED")
        finally:
            for task in (*ways, stop):
                task.cancel()
            await asyncio.gather(*ways, stop, return_exceptions=True)
        if not outer.closed:
            await outer.close(code=1001)

    def _sorry(self, request: web.Request, error: Exception) -> web.Response:
        problem = problems.from_error(error, self._services.chance, f"{request.method} app")
        if "text/html" not in request.headers.get("Accept", ""):
            return problems.response(problem)
        page = _PAGE.format(
            status=problem.status,
            title=html.escape(problem.title),
            detail=html.escape(problem.detail),
            hint=html.escape(problem.hint),
        )
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        if problem.status in (429, 503):
            headers["Retry-After"] = "2"
        return web.Response(text=page, status=problem.status, content_type="text/html", headers=headers)


def _url(request: web.Request, app: str, run: str, mount: Mount) -> URL:
    # The target goes on as the browser sent it: no decoding, no normalisation.
    return URL(f"http://{app}--{run}{mount.target(request.raw_path)}", encoded=True)


class _refused:
    """Turns what goes wrong on the way to an app into one clear sentence."""

    def __init__(self, app: str) -> None:
        self._app = app

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, AtollError):
            return
        if isinstance(error, TimeoutError | ClientConnectionError | OSError):
            raise Unavailable(
                f"the app {self._app} does not answer yet", hint="it may still be starting: try again shortly"
            ) from error
        if isinstance(error, ClientError):
            raise Unavailable(f"the app {self._app} refused or gave no valid answer") from error


async def _pass(
    source: web.WebSocketResponse | ClientWebSocketResponse,
    sink: web.WebSocketResponse | ClientWebSocketResponse,
    count: Callable[[int], None],
) -> None:
    async for message in _messages(source):
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            count(len(message.data))
        if message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is WSMsgType.PING:
            await sink.ping(message.data)
        elif message.type is WSMsgType.PONG:
            await sink.pong(message.data)
        elif message.type is WSMsgType.CLOSE:
            await sink.close(code=message.data or 1000, message=(message.extra or "").encode())
            await source.close(code=message.data or 1000)
            return


async def _messages(source: web.WebSocketResponse | ClientWebSocketResponse) -> AsyncIterator[WSMessage]:
    while True:
        message = await source.receive()
        if message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return
        yield message


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 34rem; margin: 18vh auto; padding: 0 1.5rem }}
small {{ opacity: .6; letter-spacing: .08em }} h1 {{ font-size: 1.4rem; margin: .3rem 0 }} p {{ opacity: .8 }}
</style>
<small>ATOLL · {status}</small><h1>{detail}</h1><p>{hint}</p></html>
"""
