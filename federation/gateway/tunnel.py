"""An HTTP client whose connections are streams to agents instead of sockets."""

import asyncio
from typing import TYPE_CHECKING

from aiohttp import BaseConnector, ClientSession, ClientTimeout, DummyCookieJar, client_proto, hdrs

from federation.api.linkplane import StreamsPort
from tunnel.lanes import Use

if TYPE_CHECKING:
    from aiohttp import ClientRequest
    from aiohttp.tracing import Trace

OPEN_TIMEOUT_S = 15.0
_PASSED_AS_THEY_ARE = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)


class TunnelConnector(BaseConnector):
    """Connects to `http://<app>--<run>/`: the app of a run, wherever its agent is. Idle connections are reused."""

    def __init__(self, streams: StreamsPort, use: Use = Use.SHORT) -> None:
        super().__init__(limit=0, keepalive_timeout=15.0)
        self._streams = streams
        self._use = use

    async def _create_connection(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",  # noqa: ARG002 - the signature of every connector
        timeout: ClientTimeout,  # noqa: ARG002
    ) -> client_proto.ResponseHandler:
        app, _, run = (req.url.raw_host or "").partition("--")
        protocol = client_proto.ResponseHandler(loop=asyncio.get_running_loop())
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            transport = await self._streams.open(run, app, 0, protocol, use=self._use)
        if protocol.transport is None:
            protocol.connection_made(transport)
        return protocol


def client(streams: StreamsPort, use: Use = Use.SHORT) -> ClientSession:
    """Return a client that passes everything on as it comes: no redirects, cookies, decompression, time limits.

    Its connections are streams for that `use`.
    """
    return ClientSession(
        connector=TunnelConnector(streams, use),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        timeout=ClientTimeout(total=None, sock_connect=OPEN_TIMEOUT_S),
        skip_auto_headers=_PASSED_AS_THEY_ARE,
        raise_for_status=False,
    )
