"""One HTTP connection: who sent whole requests is answered, also after the end of the client's side (half-close)."""

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from tunnel.loopback import is_held

KEEPALIVE_S = 75.0
"""A connection without a request is kept so long."""
LOOK_S = 1.0
"""A half-closed connection whose client has gone altogether is let go this late, where nothing is written to it."""


class HttpConnection(web.RequestHandler):
    """Ends with the client's side only where no whole request waits for its answer, else after the last answer.

    So a cut upload never passes for a whole one. WebSockets have ends of their own and are over with the client's side.
    Who closes the whole connection sends the same as who ends one side only. Under TLS the transport tells them apart,
    without it the kernel, for clients on this machine; others' connections end with their side.
    """

    __slots__ = ("_answered", "_half_closed", "_latest")

    def __init__(self, server: web.Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._answered = 0
        self._half_closed = False
        self._latest: StreamReader = EMPTY_PAYLOAD  # the body of the request that came last

    def data_received(self, data: bytes) -> None:
        """Take bytes, and note where the latest request's body goes."""
        super().data_received(data)
        self._note_latest()

    def eof_received(self) -> bool:  # type: ignore[override] # its own never goes on
        """The client's side has ended: say whether ours goes on."""
        whole = self._latest.is_eof() and not self._upgraded
        self._half_closed = whole and self._request_count > self._answered and self._is_open()
        if self._half_closed and not self._is_encrypted():
            self._loop.call_later(LOOK_S, self._look)
        return self._half_closed

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; if it was the last of a client that sends no more, close."""
        finished = await super().finish_response(request, resp, start_time)
        self._answered += 1
        self._note_latest()  # behind a WebSocket that was refused there may be requests
        if self._half_closed and self._request_count == self._answered:
            self.close()
        return finished

    def _note_latest(self) -> None:
        if self._messages:
            self._latest = self._messages[-1][1]

    def _is_encrypted(self) -> bool:
        return self.ssl_context is not None

    def _is_open(self) -> bool:
        """Say whether the client can still hear."""
        if self.transport is None or not self.transport.can_write_eof():  # TLS of asyncio and uvloop cannot half-close
            return False
        return self._is_encrypted() or is_held(self.transport.get_extra_info("socket"))

    def _look(self) -> None:
        if self.transport is None:
            return
        if self._is_open():
            self._loop.call_later(LOOK_S, self._look)
        else:
            self.transport.abort()


def connections(server: web.Server) -> Callable[[], HttpConnection]:
    """Return the factory of a server's connections."""
    loop = asyncio.get_running_loop()
    return lambda: HttpConnection(server, loop=loop, access_log=None, keepalive_timeout=KEEPALIVE_S)
