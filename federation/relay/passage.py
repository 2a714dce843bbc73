"""What is not meant for the relay itself goes on to the control plane, byte by byte as it came."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

from tunnel.dataline import tune
from tunnel.dialer import connect, host_port
from tunnel.splice import Leg

LIMIT = 8192
"""Most connections that are passed on at a time."""


class Passage:
    """Joins accepted sockets to connections of its own to `url`; it ends no TLS, and reads nothing of what passes."""

    def __init__(self, url: str, environ: Mapping[str, str] = os.environ) -> None:
        self._host, self._port = host_port(url)
        self._environ = environ
        self._near: set[_Near] = set()

    def __len__(self) -> int:
        """How many connections are passed on."""
        return len(self._near)

    async def serve(self, connection: socket.socket) -> None:
        """Take a socket over. Raises `OSError` where the control plane cannot be reached."""
        try:
            if len(self._near) >= LIMIT:
                raise ConnectionAbortedError("too many connections are passed on")
            further = await connect(self._host, self._port, self._environ)
        except BaseException:
            connection.close()
            raise
        near, far = _Near(self._near.discard), Leg()
        near.other, far.other = far, near
        self._near.add(near)
        loop = asyncio.get_running_loop()
        try:
            for each in (connection, further):
                tune(each)
            # The far side first: nothing comes from there before the near side has been heard.
            await loop.create_connection(lambda: far, sock=further)
            await loop.connect_accepted_socket(lambda: near, connection)
        except BaseException:
            self._near.discard(near)
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


class _Near(Leg):
    """The side that was accepted."""

    def __init__(self, lost: "Callable[[_Near], None]") -> None:
        super().__init__()
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is over: so is the other."""
        super().connection_lost(exc)
        self._lost(self)
