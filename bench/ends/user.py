"""Users' plain connections at a door: what they say is kept until their stream is open."""

import asyncio
from collections.abc import Awaitable, Callable

from bench.ends.common import Make
from tunnel.resume import ID_SIZE
from tunnel.splice import Leg


class User(Leg):
    """A user's connection: opens the stream, and keeps what comes before it is open.

    (`agent.streams.StreamLeg` pauses its transport instead. uvloop's begin to read after `connection_made`,
    whatever was asked in it.)
    """

    def __init__(self, connect: Callable[[Make], Awaitable[None]]) -> None:
        super().__init__()
        self._connect = connect
        self._early = b""
        self._ended = False
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the stream."""
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, or keep them until there is a stream."""
        if self.other is None:
            self._early += data
            if self.transport is not None:
                self.transport.pause_reading()
        else:
            super().data_received(data)

    def eof_received(self) -> bool:
        """The user has said all."""
        self._ended = True
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The user is gone, perhaps before the stream was open."""
        if self._opening is not None:
            self._opening.cancel()
        super().connection_lost(exc)

    async def _open(self) -> None:
        stream = Leg()
        stream.other = self
        try:
            await self._connect(lambda: stream)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        self.other = stream
        early, self._early = self._early, b""
        if early:
            super().data_received(early)
        if self._ended:
            super().eof_received()
        if self.transport is not None:
            self.transport.resume_reading()


class Announced(User):
    """A user's connection that begins with the id of its resumable stream."""

    def __init__(self, connect: Callable[[bytes, Make], Awaitable[None]]) -> None:
        super().__init__(self._announce)
        self._announced = connect

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the id."""
        Leg.connection_made(self, transport)

    def data_received(self, data: bytes) -> None:
        """The id, then bytes of the stream. The client says nothing between its id and our answer."""
        super().data_received(data)
        if self._opening is None and self.transport is not None:
            self.transport.resume_reading()
            if len(self._early) == ID_SIZE:
                User.connection_made(self, self.transport)

    async def _announce(self, make: Make) -> None:
        stream, self._early = self._early, b""
        await self._announced(stream, make)
        if self.transport is not None:
            self.transport.write(b"!")
