"""A relay's door for load balancers that open TLS: plain HTTP, and in it WebSockets with what its port takes anyway."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from tunnel.envelope import PATH

if TYPE_CHECKING:
    from aiohttp import web

    from federation.envelope import Take

HEALTH = "/healthz"
KEEPALIVE_S = 75.0
"""A load balancer's connection without a request is kept so long."""


class HttpDoor:
    """Serves `GET /v1/tunnel`, `take` what is inside; and `GET /healthz`, which fails while the relay drains.

    The library is loaded when the first such connection comes: most relays have no balancer before them.
    """

    def __init__(self, take: "Take", draining: Callable[[], bool]) -> None:
        self._take = take
        self._draining = draining
        self._closing = asyncio.Event()
        self._server: web.Server | None = None

    def accept(self) -> asyncio.Protocol:
        """Return the protocol for a new connection."""
        if self._server is None:
            from aiohttp import web

            self._server = web.Server(self._answer, access_log=None, keepalive_timeout=KEEPALIVE_S)
        return self._server()

    async def close(self) -> None:
        """End all connections."""
        self._closing.set()
        if self._server is not None:
            await self._server.shutdown(1.0)

    async def _answer(self, request: "web.BaseRequest") -> "web.StreamResponse":
        from aiohttp import web

        from federation.envelope import is_asked, unpack

        if self._draining():
            return web.Response(status=503, text="this relay is being drained\n")
        if request.path == HEALTH:
            return web.Response(text="ok\n")
        if request.path == PATH and is_asked(request):
            return await unpack(request, self._take, self._closing)
        return web.Response(status=404, text=f"This is a relay: WebSockets to {PATH}, and {HEALTH}.\n")
