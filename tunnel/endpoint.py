"""What our transports have in common: the protocol on top, pausing, closing, and the marks of the write buffer."""

import asyncio


class Endpoint(asyncio.Transport):
    """An end of a stream that follows asyncio's rules; how bytes come and go is a subclass's affair.

    `_deliver` is called soon after reading was resumed, `reset` by `abort`.
    """

    def __init__(self, extra: dict[str, object]) -> None:
        super().__init__(extra)
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.Protocol | None = None
        self._paused = self._closing = self._finished = self._over = False
        self._choked = self._end_told = False
        self._late_error: Exception | None = None
        self.set_write_buffer_limits()

    def attach(self, protocol: asyncio.Protocol) -> None:
        """Give the stream its protocol and call its `connection_made`."""
        self._protocol = protocol
        protocol.connection_made(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Exchange the protocol."""
        if not isinstance(protocol, asyncio.Protocol):
            raise TypeError("a stream serves asyncio.Protocol only")
        self._protocol = protocol

    def get_protocol(self) -> asyncio.Protocol:
        """Return the protocol."""
        assert self._protocol is not None  # noqa: S101 - attached before anyone sees the transport
        return self._protocol

    def is_closing(self) -> bool:
        """Say whether the stream is closed or being closed."""
        return self._closing or self._over

    def is_reading(self) -> bool:
        """Say whether data is delivered as it comes."""
        return not (self._paused or self.is_closing())

    def pause_reading(self) -> None:
        """Hold data back; the sender stops once the window is used up."""
        self._paused = True

    def resume_reading(self) -> None:
        """Deliver data again, beginning with what was held, soon."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, in bytes, at which writing is paused and resumed (default 64 KiB and a quarter of it)."""
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be >= low ({low}) must be >= 0")
        self._high, self._low = high, low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return `(low, high)`."""
        return self._low, self._high

    def can_write_eof(self) -> bool:
        """Half-close is supported."""
        return True

    def abort(self) -> None:
        """End both directions at once; queued data is dropped."""
        self.reset("aborted")

    def reset(self, reason: str) -> None:
        """End both directions at once and tell the peer why."""
        raise NotImplementedError

    def _deliver(self) -> None:
        raise NotImplementedError
