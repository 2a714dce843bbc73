"""A stream of a link as an asyncio transport: any asyncio protocol (aiohttp's too) can run on it."""

from collections import deque
from collections.abc import Callable

from tunnel.endpoint import Endpoint
from tunnel.mux import Mux

LINGER_S = 30.0
"""A closed stream whose peer neither reads nor ends for this long is reset."""


class StreamReset(ConnectionResetError):
    """The peer refused or aborted the stream, or the link under it was lost; the text says why."""


class StreamTransport(Endpoint):
    """One stream. Closing flushes; what the other end still sends after that is answered by a reset.

    Reading and writing follow asyncio's rules: `pause_writing` is called when more than the high-water mark
    waits for credit or for the link's own socket; while reading is paused no more than the window is held.
    `get_extra_info("peername")` is `(agent id, stream id)`.
    """

    def __init__(
        self,
        stream: int,
        mux: Mux,
        wake: Callable[[], None],
        changed: Callable[["StreamTransport"], None],
        rtt: Callable[[], float | None],
        peer: str,
    ) -> None:
        super().__init__({"peername": (peer, stream)})
        self.stream = stream
        self.on_over: Callable[[Exception | None], None] = ignore
        """Called once when the stream is over, with the error that ended it."""
        self._came = self._went = 0
        self._mux = mux
        self._wake = wake
        self._changed = changed
        self._rtt = rtt
        self._inbox: deque[bytes] = deque()
        self._ended = False
        self._stuck: tuple[int, float] | None = None

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that came and that were written."""
        return self._came, self._went

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait for credit or for the link."""
        return self._mux.pending(self.stream)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue data. Nothing happens after close or once the stream is lost."""
        if self._closing:
            return
        if self._finished:
            raise RuntimeError("cannot write after write_eof()")
        if not data:
            return
        self._went += len(data)
        if self._mux.write(self.stream, bytes(data)) <= self._high or self._choked:
            self._wake()
        else:
            self._choked = True
            self._changed(self)
            self.get_protocol().pause_writing()

    def write_eof(self) -> None:
        """Send what is queued and then the end of this direction; the other one stays open."""
        if not self._finished and not self.is_closing():
            self._finished = True
            self._mux.finish(self.stream)
            self._wake()

    def close(self) -> None:
        """Read no more, flush, end; `connection_lost(None)` follows."""
        if self.is_closing():
            return
        self._closing = True
        self._finished = True
        self._inbox.clear()
        self._mux.finish(self.stream)
        if self._mux.finished(self.stream):
            self.lose(None)
        else:
            self._changed(self)

    def reset(self, reason: str) -> None:
        """End both directions at once and tell the peer why."""
        if not self._over:
            self._mux.reset(self.stream, reason)
            self.lose(None)

    # What the link calls.

    def data_received(self, data: bytes) -> None:
        """Bytes came from the peer."""
        self._came += len(data)
        if self._closing:
            self._mux.reset(self.stream, "closed")
            self.lose(None)
        elif self._paused or self._inbox:
            self._inbox.append(data)
        else:
            self._hand_over(data)

    def end_received(self) -> None:
        """The peer ended its direction."""
        self._ended = True
        if self._over:
            self.lose(None)
        elif not (self._paused or self._inbox):
            self._tell_end()

    def progressed(self) -> None:
        """The link has sent something: see whether writing may resume or closing is done."""
        if self._over:
            return
        if self._closing:
            if self._mux.finished(self.stream):
                self.lose(None)
        elif self._choked and self._mux.pending(self.stream) <= self._low:
            self._choked = False
            self.get_protocol().resume_writing()

    @property
    def over(self) -> bool:
        """Whether `connection_lost` was called or is about to be."""
        return self._over

    @property
    def waiting(self) -> bool:
        """Whether `progressed` should be called after the next sending."""
        return not self._over and (self._choked or self._closing)

    @property
    def gone(self) -> bool:
        """Whether the peer, too, is done with the stream: nothing more can come of it."""
        return self._over and self._mux.progress(self.stream) is None

    def lose(self, error: Exception | None) -> None:
        """The stream is over for its protocol; tell it soon, once."""
        if not self._over:
            self._over = self._closing = True
            self._inbox.clear()
            self._loop.call_soon(self._tell_lost, error)
            self.on_over(error)
        self._changed(self)

    def lose_when_read(self, error: Exception) -> None:
        """The peer reset the stream: what it had ended before that may still be read, else it is over."""
        if self._ended and not self._end_told and not self.is_closing():
            self._late_error = error
            self.progressed()
        else:
            self.lose(error)

    def aged(self, now: float) -> None:
        """Reset the stream if it is closed and has got nowhere for `LINGER_S`; the link asks every few seconds."""
        if not self._closing:
            return
        sent = self._mux.progress(self.stream)
        if sent is None:
            return
        if self._stuck is None or self._stuck[0] != sent:
            self._stuck = sent, now
        elif now >= self._stuck[1] + LINGER_S:
            self._mux.reset(self.stream, "closed")
            self.lose(None)

    def _deliver(self) -> None:
        while self._inbox and not self._paused and not self.is_closing():
            self._hand_over(self._inbox.popleft())
        if self._ended and not self._inbox and not self._paused:
            self._tell_end()

    def _hand_over(self, data: bytes) -> None:
        self.get_protocol().data_received(data)
        if self._mux.consumed(self.stream, len(data), self._loop.time(), self._rtt()):
            self._wake()

    def _tell_lost(self, error: Exception | None) -> None:
        # From here on nobody holds the other: each is freed at once, not by a search for cycles.
        protocol, self._protocol = self.get_protocol(), None
        protocol.connection_lost(error)

    def _tell_end(self) -> None:
        if self._end_told or self.is_closing():
            return
        self._end_told = True
        stays = self.get_protocol().eof_received()
        if self._late_error is not None:
            self.lose(self._late_error)
        elif not stays:
            self.close()


def ignore(error: Exception | None) -> None:
    """Do nothing about the end of a stream."""
