"""Reading through one buffer that all connections share: a TLS connection decrypts straight into it."""

import asyncio
import threading
from collections.abc import Callable

SIZE = 256 * 1024
"""Bytes read at a time: what uvloop reads from a socket at most, so that its reader runs, and writes on, once."""


class _Shared(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(SIZE))


_shared = _Shared()
# To free one large piece has glibc keep up to twice as much from then on. Else it gives every read's memory back to the
# system and takes it again: three quarters of the processor time of bulk traffic (mallopt(3), M_MMAP_THRESHOLD).
_large = bytearray(8 << 20)
del _large  # not `clear`: that shrinks it in place, which teaches glibc nothing


class Buffered(asyncio.BufferedProtocol):
    """Stands between a socket's transport and a protocol, which sees nothing of it.

    Without it a TLS transport makes an object of its largest read (256 KiB) for every record (16 KiB), cuts it
    down and joins the records: with uvloop that takes more than half of the receiver's CPU time. A loop reads
    one connection at a time, so one buffer for all of its thread is enough and an idle connection costs none.
    """

    def __init__(self, protocol: asyncio.Protocol, over: Callable[[], None] | None = None) -> None:
        """`over` is called when the connection is gone."""
        self._received = protocol.data_received
        self.connection_made = protocol.connection_made  # type: ignore[method-assign]
        if over is None:
            self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        else:
            self._protocol, self._ended = protocol, over
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: say so, and tell the protocol."""
        self._ended()
        self._protocol.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where the transport may read to, until `buffer_updated`."""
        return _shared.view

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read, as bytes of its own."""
        self._received(bytes(_shared.view[:nbytes]))


def once(call: Callable[[], None]) -> Callable[[], None]:
    """Return what calls that the first time, and does nothing from then on."""
    waiting = [call]
    return lambda: waiting.pop()() if waiting else None
