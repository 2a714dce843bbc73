"""Two transports joined: what one receives the other sends, with backpressure and, where there is one, half-close."""

import asyncio
from typing import cast


class Leg(asyncio.Protocol):
    """One side of a splice: what it receives, its other side writes."""

    def __init__(self) -> None:
        self.other: Leg | None = None
        self.transport: asyncio.Transport | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are, but do not inherit from it

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the half-close on and keep the other direction open, unless that one has ended before."""
        self.ended = True
        if self.other is None or self.other.transport is None:
            return True
        if self.other.ended:
            self.other.transport.close()
            return False
        if self.other.transport.can_write_eof():
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
