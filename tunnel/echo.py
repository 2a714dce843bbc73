"""Round trips over a stream: one end sends a few bytes, the other sends back what comes."""

import asyncio
from collections.abc import Callable
from typing import cast

from tunnel.splice import Leg

_SIZE = 16


def echo() -> Leg:
    """Return the agent's end: a leg that is its own other side. It holds no more than the transport's buffers."""
    leg = Leg()
    leg.other = leg
    return leg


class Probe(asyncio.Protocol):
    """The end that measures, one round trip at a time; `now` is a finer clock than the loop's."""

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now or asyncio.get_running_loop().time
        self._transport: asyncio.Transport | None = None
        self._back: asyncio.Future[float] | None = None
        self._owed = 0
        self._count = 0
        self._lost: Exception | None = None

    async def round_trip(self) -> float:
        """Return the seconds until a few bytes came back. Raises `ConnectionError` when the stream ends first.

        One that is cancelled is over for good: what came late would be taken for the next one's answer.
        """
        if self._lost is not None or self._transport is None or self._owed:
            raise self._error()
        self._back = asyncio.get_running_loop().create_future()
        self._owed = _SIZE
        self._count += 1
        sent = self._now()
        self._transport.write(self._count.to_bytes(_SIZE, "big"))
        return await self._back - sent

    def close(self) -> None:
        """End the stream."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, but do not inherit from it

    def data_received(self, data: bytes) -> None:
        """Bytes are back."""
        self._owed -= len(data)
        if self._back is not None and not self._back.done() and self._owed <= 0:
            self._back.set_result(self._now())

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is over."""
        self._lost = exc or ConnectionResetError("the agent ended the stream")
        if self._back is not None and not self._back.done():
            self._back.set_exception(self._error())

    def _error(self) -> ConnectionError:
        return (
            self._lost if isinstance(self._lost, ConnectionError) else ConnectionError(str(self._lost or "no stream"))
        )
