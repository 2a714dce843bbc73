"""One listening port for everything: agents, joins, users over HTTPS and SSH, and plain HTTP from this machine.

The first bytes are looked at (not taken) before the handshake; the protocol offered picks the TLS context, so
that a connection for agents can never be made under a context that asks for no certificate.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from tunnel.buffered import Buffered, once
from tunnel.hello import HELLO_LIMIT, Hello, More, NotHello, read
from tunnel.innertls import InnerTls
from tunnel.sources import Sources

DEADLINE_S = 10.0
"""Most seconds from the accept to the end of the handshake."""
HANDSHAKES_LIMIT = 256
"""Most connections between accept and handshake's end; further ones wait in the kernel's backlog."""
TAKEN_LIMIT = 64
"""Most handshakes at a time of connections that one source brings another way."""
_HTTP = "http/1.1"
_SSH = b"SSH-"
_PAUSE_S = 0.5
_PLAIN_REFUSED = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"Plain HTTP is served to this machine itself only: use https.\n"
)

Serve: TypeAlias = Callable[[socket.socket], Awaitable[None]]
"""Takes over an accepted socket, and returns once the handshake is over. Raises `OSError` where it fails."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where connections of one ALPN protocol go: the TLS context and the factory of their protocols.

    Those are `counted` by source where nobody knows who it is after the handshake, and no deadline is set for that.
    Their transports are the TLS of the event loop, or what `end` makes.
    """

    context: ssl.SSLContext
    make: Callable[[], asyncio.Protocol]
    counted: bool = False
    end: Callable[[ssl.SSLContext, asyncio.Protocol], InnerTls] | None = None


def is_loopback(address: str) -> bool:
    """Say whether a peer's address is this machine's loopback (IPv4 inside IPv6 too)."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


class Acceptor:
    """Listens, looks, and hands each connection to its route.

    `routes` is keyed by ALPN protocol; a TLS client that offers none is taken for `http/1.1`, one that offers
    only unknown ones is closed. `plain` (None: nobody) serves plain HTTP to peers for which `local(address)` holds.
    `ssh` (None: nobody) serves clients that speak SSH; within the deadline it must know who that is. With `name` the
    routes are for TLS clients that ask for a server of that name alone. `other` (None: nobody) takes TLS clients that
    no route is for, as they came.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        plain: Callable[[], asyncio.Protocol] | None = None,
        *,
        ssh: Serve | None = None,
        other: Serve | None = None,
        name: str = "",
        local: Callable[[str], bool] = is_loopback,
        deadline_s: float = DEADLINE_S,
        sources: Sources | None = None,
    ) -> None:
        self._routes = routes
        self._plain = plain
        self._ssh = ssh
        self._other = other
        self._name = name
        self._local = local
        self._deadline_s = deadline_s
        self._listeners: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = False
        self._sources: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Connections that were not served, by reason: `timeout`, `handshake`, `broken_off`, `not_served_here`, and of
        one source too many: `source_rate`, `source_handshakes`, `source_connections`."""
        self.sources = Sources(lambda: self._loop.time()) if sources is None else sources

    @property
    def pending(self) -> int:
        """How many connections are between accept and handshake's end."""
        return len(self._tasks)

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self._listeners[0].getsockname()[1])

    def reroute(self, routes: Mapping[str, Route]) -> None:
        """Take new connections by these routes from now on; those that are made stay as they are."""
        self._routes = routes

    async def listen(self, host: str, port: int) -> None:
        """Listen on every address of `host`; port 0 picks a free one. Raises `OSError` (`EADDRINUSE` …)."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        refused: OSError | None = None
        try:
            for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
                bound = (address[0], port or (self.port if self._listeners else 0), *address[2:])
                try:
                    self._listeners.append(_listener(family, bound))
                except OSError as error:
                    # `localhost` names ::1 also on machines without IPv6.
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise
                    refused = error
            if not self._listeners:
                raise refused or OSError(f"no address for {host}")
        except OSError:
            await self.close()
            raise
        self._accept_on()

    async def close(self) -> None:
        """Stop listening and drop unfinished handshakes; established connections stay."""
        self._accept_off()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take(self, connection: socket.socket, address: str) -> bool:
        """Serve a connection that came another way from `address` as if it had been accepted.

        False, and the connection is closed, while too many shake hands, in all or from there.
        """
        if self.pending >= HANDSHAKES_LIMIT or self._sources[address] >= TAKEN_LIMIT:
            connection.close()
            return False
        self._loop = asyncio.get_running_loop()
        self._sources[address] += 1
        self._begin(connection, address).add_done_callback(lambda _: self._left(address))
        return True

    def _left(self, address: str) -> None:
        self._sources[address] -= 1
        if not self._sources[address]:
            del self._sources[address]

    def _accept_on(self) -> None:
        if not self._accepting:
            self._accepting = True
            for listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept_off(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        while self._accepting:
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors or memory: the backlog stays readable, so look again later.
                self._accept_off()
                self._loop.call_later(_PAUSE_S, self._resume)
                return
            source = str(address[0])
            if why := self.sources.came(source):
                self.refused[why] += 1
                connection.close()
                continue
            self._begin(connection, source).add_done_callback(partial(self._settled, source))
            if len(self._tasks) >= HANDSHAKES_LIMIT:
                self._accept_off()

    def _settled(self, source: str, _task: "asyncio.Task[None]") -> None:
        self.sources.settled(source)

    def _begin(self, connection: socket.socket, address: str) -> "asyncio.Task[None]":
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection, address))
        self._tasks.add(task)
        task.add_done_callback(self._served)
        return task

    def _resume(self) -> None:
        if self._listeners and len(self._tasks) < HANDSHAKES_LIMIT:
            self._accept_on()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._resume()
        if not task.cancelled() and (error := task.exception()):
            self._loop.call_exception_handler({"message": "accepting a connection failed", "exception": error})

    async def _serve(self, connection: socket.socket, address: str) -> None:
        # A peer that breaks off, cannot be verified or takes too long is daily business, not worth a traceback.
        try:
            async with asyncio.timeout(self._deadline_s):
                try:
                    serve = await self._choose(connection, address)
                    if serve is not None:
                        with contextlib.suppress(OSError):
                            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                except BaseException:
                    connection.close()
                    raise
                if serve is None:
                    self.refused["not_served_here"] += 1
                    connection.close()
                    return
                # From here on the socket is its server's, also when the handshake fails.
                await serve(connection)
        except OSError as error:
            kinds = {TimeoutError: "timeout", ssl.SSLError: "handshake", OSError: "broken_off"}
            self.refused[next(word for kind, word in kinds.items() if isinstance(error, kind))] += 1

    async def _choose(self, connection: socket.socket, address: str) -> Serve | None:
        """Return who takes a connection over; None when it is not to be served."""
        data = await self._peek(connection, 1)
        if data[:1] == _SSH[:1]:
            data = await self._peek(connection, len(_SSH))
        if data.startswith(_SSH):
            return self._ssh
        hello = await self._hello(connection, data)
        if hello is None:
            if self._plain is not None and self._local(address):
                return partial(self._hand_over, self._plain, None, address)
            connection.recv(HELLO_LIMIT)
            connection.send(_PLAIN_REFUSED)
            return None
        if self._name in ("", hello.name):
            for protocol in hello.protocols or (_HTTP,):
                if route := self._routes.get(protocol):
                    source = address if route.counted else ""
                    return partial(self._hand_over, route.make, route.context, source, end=route.end)
        return self._other

    async def _hand_over(
        self,
        make: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        source: str,
        connection: socket.socket,
        end: Callable[[ssl.SSLContext, asyncio.Protocol], InnerTls] | None = None,
    ) -> None:
        """Shake hands and give the connection to its protocol; of one that is counted for a `source`, note the end."""
        if why := self.sources.took(source) if source else "":
            self.refused[why] += 1
            connection.close()
            return
        over = once(partial(self.sources.left, source)) if source else None
        tls = end(context, make()) if end is not None and context is not None else None
        read = make if context is None and over is None else lambda: Buffered(tls or make(), over)
        try:
            await self._loop.connect_accepted_socket(read, connection, ssl=context if tls is None else None)
            if tls is not None:
                await tls.shaken
        except BaseException:
            if tls is not None:
                tls.abort()
            if over is not None:
                over()
            raise

    async def _hello(self, connection: socket.socket, data: bytes) -> Hello | None:
        """Return what the ClientHello says, None when the peer does not speak TLS."""
        while True:
            try:
                answer = read(data)
            except NotHello:
                if data[0] == 0x16:
                    raise ConnectionAbortedError("not a ClientHello") from None
                return None
            if not isinstance(answer, More):
                return answer
            data = await self._peek(connection, answer.size)

    async def _peek(self, connection: socket.socket, need: int) -> bytes:
        """Return the first bytes, `need` at least, without taking them."""
        await self._readable(connection, need)
        data = connection.recv(HELLO_LIMIT, socket.MSG_PEEK)
        if len(data) < need:
            raise ConnectionAbortedError("closed before it said what it wants")
        return data

    async def _readable(self, connection: socket.socket, count: int) -> None:
        """Wait until that many bytes (or the end) are there. The kernel counts: nothing is polled."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        ready: asyncio.Future[None] = self._loop.create_future()
        descriptor = connection.fileno()
        self._loop.add_reader(descriptor, _settle, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(descriptor)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
