"""User streams: bytes between a stream of the link and a port of a run, both ways, with backpressure."""

import asyncio
from collections.abc import Awaitable, Callable


class Leg(asyncio.Protocol):
    """One side of a splice: what it receives, its other side writes."""

    def __init__(self) -> None:
        self.other: Leg | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a splice needs stream transports")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the half-close on and keep the other direction open."""
        if self.other is not None and self.other.transport is not None and self.other.transport.can_write_eof():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """This side is full: let the other side read no more."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """This side takes bytes again."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """This side is over: so is the other, after what it still has to write unless this was an error."""
        other, self.other = self.other, None
        if other is None or other.transport is None:
            return
        other.other = None
        if exc is None:
            other.transport.close()
        else:
            other.transport.abort()


class StreamLeg(Leg):
    """The link's side: connects to the run's port when the stream opens, and holds its bytes back until then."""

    def __init__(self, connect: Callable[[Callable[[], asyncio.Protocol]], Awaitable[None]]) -> None:
        super().__init__()
        self._connect = connect
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the stream's bytes back and dial the port."""
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.pause_reading()
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is over, perhaps before the port answered."""
        if self._dialling is not None:
            self._dialling.cancel()
        super().connection_lost(exc)

    async def _dial(self) -> None:
        local = Leg()
        try:
            await self._connect(lambda: local)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        local.other, self.other = self, local
        if self.transport is not None:
            self.transport.resume_reading()
