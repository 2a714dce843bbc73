"""The route of connections that come inside a WebSocket, by way of something that opens TLS."""

from aiohttp import web

from atoll.errors import Invalid, Unavailable
from federation.api.route import Access, Call, Route
from federation.envelope import is_asked, is_inside, unpack
from tunnel.envelope import PATH


async def tunnel(call: Call) -> web.StreamResponse:
    """Serve a TLS connection of an agent, a joining machine or a user, or an SSH one, which shows inside who it is."""
    take, request = call.services.take, call.request
    if not is_asked(request):
        raise Invalid("this is a way for connections inside a WebSocket", hint="open it with `Upgrade: websocket`")
    if take is None or is_inside(request):
        raise Unavailable("no tunnels are served here")
    return await unpack(request, take, call.services.closing)


ROUTES = (
    Route(
        method="GET", path=PATH, handle=tunnel, access=Access.OPEN,
        status=101, content="websocket", summary="Carry a connection that is encrypted by itself inside a WebSocket",
    ),
)  # fmt: skip
