"""How an agent reaches its control plane: outbound TLS connections, through an HTTP proxy if need be."""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from atoll.errors import Invalid
from atoll.host.proxy import Proxy, proxy_for
from tunnel.buffered import Buffered
from tunnel.envelope import secured, veiled
from tunnel.identity import AgentIdentity
from tunnel.ways import Way, Ways
from tunnel.wire import ALPN_DATA_SPLICE, CONTROL_NAME, RELAY_NAME

_log = logging.getLogger("atoll.agent")

DIAL_TIMEOUT_S = 10.0
"""Most seconds a dial may take, name lookup, proxy and TLS handshake included."""
_REPLY_LIMIT = 16 * 1024
_PROOF = 1500
"""Who has sent so much on a link got our greeting, and its own came through: both are longer than a packet."""
_STALL_S = 3.0
"""A link that ends sooner without such proof was ended, not stalled."""


class Dialer(Protocol):
    """Makes the connections that a `Link` or a data connection's `AgentLine` runs on."""

    async def dial(self, make: Callable[[], asyncio.Protocol], *, splice: bool = False) -> None:
        """Connect and hand the transport to `make()`; returns when `connection_made` was called.

        With `splice` that is a `Veil`, for data connections that are going to be bare.
        Raises `OSError` (also `ssl.SSLError` and `TimeoutError`, which are kinds of it).
        """
        ...


class TlsDialer:
    """Dials `url` (`https://host[:port]`) with an agent's certificate, or (`data`) without, for data connections.

    What is there must be the control plane, or with `relay` a relay of it. All dialers of one agent share its `ways`;
    those for links find out which works. `relay` is what is known of the ways to that relay: whether it is reached
    inside a WebSocket; its packets are as small as the control plane's must be.

    `HTTPS_PROXY`/`https_proxy` and `NO_PROXY`/`no_proxy` of `environ` are honoured: the connection then goes
    through the proxy's CONNECT, with basic auth where the proxy's URL holds a user.
    """

    def __init__(
        self,
        url: str,
        identity: AgentIdentity,
        environ: Mapping[str, str] = os.environ,
        *,
        data: bool = False,
        relay: Ways | None = None,
        ways: Ways | None = None,
    ) -> None:
        self._host, self._port = host_port(url)
        for_link = identity.context if relay is None else identity.relay_context
        self._context: Callable[[], ssl.SSLContext] = identity.data_context if data else for_link
        self._splice_context = partial(identity.data_context, ALPN_DATA_SPLICE)
        self._name = CONTROL_NAME if relay is None else RELAY_NAME
        self._environ = environ
        self._ways = ways or ways_of(url)
        self._told = Way.DIRECT
        self._follows = data or relay is not None
        self._relay = relay

    @property
    def proxy(self) -> str:
        """`host:port` of the HTTP proxy that it dials through, "" for none; never its user or password."""
        try:
            proxy = proxy_for(self._host, self._port, self._environ)
        except Invalid:  # every dial says so
            return ""
        return "" if proxy is None else proxy.address

    async def dial(self, make: Callable[[], asyncio.Protocol], *, splice: bool = False) -> None:
        """Connect within `DIAL_TIMEOUT_S`. The certificate is read anew each time: it may have been renewed."""
        if self._relay is not None:
            await self._dial_relay(self._relay, make, splice)
            return
        if self._follows:
            await self._dial(self._ways.current, make, splice)
            return
        now = asyncio.get_running_loop().time()
        way = self._ways.first(now)
        try:
            await self._dial(way, make)
        except ssl.SSLError as error:
            other = self._ways.foreign(way, now)
            if other is None:
                raise
            try:
                await self._dial(other, make)
            except OSError as second:
                raise error from second

    async def _dial_relay(self, known: Ways, make: Callable[[], asyncio.Protocol], splice: bool) -> None:
        now = asyncio.get_running_loop().time()
        way = known.first(now)
        if way is not Way.WEBSOCKET:
            way = Way.DIRECT if self._ways.current is Way.DIRECT else Way.SMALL
        try:
            await self._dial(way, make, splice)
        except ssl.SSLError as error:
            other = known.foreign(way, now)
            if other is None:
                raise
            try:
                await self._dial(other, make, splice)
            except OSError as second:
                raise error from second
            known.worked(other, now)

    async def _dial(self, way: Way, make: Callable[[], asyncio.Protocol], splice: bool = False) -> None:
        loop = asyncio.get_running_loop()
        shaking = False
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                connection = await connect(self._host, self._port, self._environ, way.segment)
                shaking = True
                try:
                    context = self._splice_context() if splice else self._context()
                except BaseException:
                    connection.close()
                    raise
                inside = (self._host, self._port) if way is Way.WEBSOCKET else None
                if splice:
                    await veiled(connection, make(), context, self._name, inside=inside)
                else:
                    await secured(connection, lambda: self._read(way, make()), context, self._name, inside=inside)
        except (TimeoutError, ConnectionError):
            if shaking and not self._follows:
                self._ways.stalled(way, loop.time())
            raise

    def _read(self, way: Way, protocol: asyncio.Protocol) -> Buffered:
        """Return what reads for a protocol; links find out besides whether this way comes to something."""
        return Buffered(protocol) if self._follows else Watched(protocol, partial(self._settled, way))

    def _settled(self, way: Way, proven: bool) -> None:
        now = asyncio.get_running_loop().time()
        if proven:
            if way is not self._told:
                self._told = way
                _log.info("the control plane is reached %s", way)
            self._ways.worked(way, now)
        else:
            self._ways.stalled(way, now)


class Watched(Buffered):
    """Says once whether a link came to something: as soon as that is proven, or at its end."""

    def __init__(self, protocol: asyncio.Protocol, settled: Callable[[bool], None]) -> None:
        super().__init__(protocol)
        self._lost = protocol.connection_lost
        self.connection_lost = self._over  # type: ignore[method-assign]
        self._settled: Callable[[bool], None] | None = settled
        self._came = 0
        self._began = asyncio.get_running_loop().time()

    def buffer_updated(self, nbytes: int) -> None:
        """Count what came, and hand it on."""
        if self._settled is not None:
            self._came += nbytes
            if self._came >= _PROOF:
                settled, self._settled = self._settled, None
                settled(True)
        super().buffer_updated(nbytes)

    def _over(self, exc: Exception | None) -> None:
        settled, self._settled = self._settled, None
        if settled is not None and asyncio.get_running_loop().time() >= self._began + _STALL_S:
            settled(False)
        self._lost(exc)


def ways_of(url: str) -> Ways:
    """Return the ways to a control plane: `wss://…` names the one inside a WebSocket, and no other."""
    return Ways(Way.WEBSOCKET if url.startswith("wss:") else None)


def host_port(url: str) -> tuple[str, int]:
    """Return the host and port an `https` URL (or a bare `host:port`) means; raise `OSError` where it has none."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    if not parts.hostname:
        raise OSError(f"{url!r} is not the URL of a control plane")
    return parts.hostname, port


def why_not(error: OSError) -> str:
    """Return why a dial failed, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not of a CA that this agent knows ({error.verify_message}): "
            "this is another server, or the CA was rotated while this agent was away; then it has to join anew"
        )
    return str(error) or type(error).__name__


async def connect(host: str, port: int, environ: Mapping[str, str], segment: int = 0) -> socket.socket:
    """Return a connected, non-blocking TCP socket to `host`, tunnelled through a proxy where one is set.

    With a `segment` neither end sends longer TCP segments, in bytes.
    """
    try:
        proxy = proxy_for(host, port, environ)
    except Invalid as error:
        raise OSError(error.message) from error
    if proxy is None:
        return await _connect_tcp(host, port, segment)
    connection = await _connect_tcp(proxy.host, proxy.port, segment)
    try:
        await _ask_proxy(connection, host, port, proxy)
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect_tcp(host: str, port: int, segment: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"no address for {host}")
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, proto)
        connection.setblocking(False)
        if segment:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


async def _ask_proxy(connection: socket.socket, host: str, port: int, proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = {"Host": target, **proxy.headers}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    await loop.sock_sendall(connection, ("\r\n".join(lines) + "\r\n\r\n").encode())
    reply = b""
    while not reply.endswith(b"\r\n\r\n"):
        # The far end says nothing before our ClientHello, so nothing but the reply can be read here.
        part = await loop.sock_recv(connection, 4096)
        reply += part
        if not part or len(reply) > _REPLY_LIMIT:
            raise ConnectionError(f"the proxy {proxy.host} answered CONNECT with no HTTP reply")
    status = reply.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(status) < 2 or status[1] != "200":
        raise ConnectionError(f"the proxy {proxy.host} refused CONNECT to {target}: {' '.join(status[1:])}")
