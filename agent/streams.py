"""User streams: bytes between a stream of the link and a port of a run, both ways, with backpressure."""

import asyncio
from collections.abc import Awaitable, Callable

from tunnel.splice import Leg


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
        local.other, self.other = self, local  # joined before the port can say a word: a server may speak first
        try:
            await self._connect(lambda: local)
        except OSError:
            self.other = None
            if self.transport is not None:
                self.transport.abort()
            return
        if self.other is not None and self.transport is not None:
            self.transport.resume_reading()
