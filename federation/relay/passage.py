"""What is not meant for the relay itself goes on to the control plane, byte by byte as it came."""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping

from tunnel.dialer import connect, host_port
from tunnel.sources import source_of
from tunnel.splice import Leg
from tunnel.tcp import tune

LIMIT = 8192
"""Most connections that are passed on at a time."""
PER_SOURCE = 4096
"""The same of one source: a whole site may be behind it."""


class Passage:
    """Joins accepted sockets to connections of its own to `url`; it ends no TLS, and reads nothing of what passes.

    Of one source, which `named` tells of an address ("": not counted), so many pass at a time: the control plane cannot
    count them, for it sees the relay's address.
    """

    def __init__(
        self,
        url: str,
        environ: Mapping[str, str] = os.environ,
        *,
        per_source: int = PER_SOURCE,
        named: Callable[[str], str] = source_of,
    ) -> None:
        self._host, self._port = host_port(url)
        self._environ = environ
        self._per_source = per_source
        self._named = named
        self._near: set[_Near] = set()
        self._sources: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many connections are passed on."""
        return len(self._near)

    async def serve(self, connection: socket.socket) -> None:
        """Take a socket over. Raises `OSError` where the control plane cannot be reached."""
        try:
            peer = connection.getpeername()  # "" inside a WebSocket, whose own connection is counted
            source = self._named(str(peer[0])) if peer else ""
            if len(self._near) >= LIMIT or (source and self._sources[source] >= self._per_source):
                raise ConnectionAbortedError("too many connections are passed on")
            further = await connect(self._host, self._port, self._environ)
        except BaseException:
            connection.close()
            raise
        near, far = _Near(source, self._gone), Leg()
        near.other, far.other = far, near
        self._near.add(near)
        self._sources[source] += 1
        loop = asyncio.get_running_loop()
        try:
            for each in (connection, further):
                tune(each)
            # The far side first: nothing comes from there before the near side has been heard.
            await loop.create_connection(lambda: far, sock=further)
            await loop.connect_accepted_socket(lambda: near, connection)
        except BaseException:
            self._gone(near)
            if far.transport is not None:
                far.transport.abort()
            for each in (connection, further):
                with contextlib.suppress(OSError):
                    each.close()
            raise

    def close(self) -> None:
        """End all of them."""
        for near in list(self._near):
            if near.transport is not None:
                near.transport.abort()

    def _gone(self, near: "_Near") -> None:
        if near in self._near:
            self._near.remove(near)
            self._sources[near.source] -= 1
            if not self._sources[near.source]:
                del self._sources[near.source]


class _Near(Leg):
    """The side that was accepted."""

    def __init__(self, source: str, lost: "Callable[[_Near], None]") -> None:
        super().__init__()
        self.source = source
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is over: so is the other."""
        super().connection_lost(exc)
        self._lost(self)
