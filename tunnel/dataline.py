"""A data connection: dialled by an agent, opened with a one-use token, it carries the bytes of one stream.

On the wire, inside TLS: the agent sends `TOKEN` bytes; when the relay has a stream for it, it sends the length (two
bytes) and `wire.OpenStream`; from then on all bytes are the stream's, both ways, and bare where the lane is a spliced
one. TLS connections have no half-close and give no reason, so what runs here is a stream that has both in frames of its
own.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from msgspec import structs

from tunnel import tcp, wire
from tunnel.lanes import Lane
from tunnel.veil import Veil

TOKEN = 32
"""Bytes of a token."""
OPENING_LIMIT = 16 * 1024
BUFFER = 256 * 1024
"""Bytes that may wait in a connection's write buffer before its writer is told to pause."""
_LENGTH = struct.Struct("!H")


class DataLine(asyncio.Transport, asyncio.Protocol):
    """Either end: a protocol for the TLS connection below, a transport for the stream's protocol above."""

    def __init__(self) -> None:
        super().__init__()
        self._below: asyncio.Transport | None = None
        self._above: asyncio.Protocol | None = None
        self._head = bytearray()
        self._held = b""
        self._paused = False
        self._ended = False
        self.received = 0
        """Bytes of the stream that came."""
        self.sent = 0
        """Bytes of the stream that were written."""
        self.over = False
        """Whether the connection is gone."""

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes of the stream that came and that were written."""
        return self.received, self.sent

    @property
    def in_use(self) -> bool:
        """Whether it carries a stream, or did."""
        return self._above is not None

    @property
    def silence(self) -> float:
        """Seconds since the peer's kernel last sent data or an acknowledgement; 0 where that cannot be known."""
        return tcp.silence(self.get_extra_info("socket"))

    def attach(self, protocol: asyncio.Protocol, early: bytes = b"") -> None:
        """Give the connection its stream's protocol; `early` are the stream's first bytes, read already."""
        tcp.ease(self.get_extra_info("socket"))
        self._above = protocol
        self._held = early
        protocol.connection_made(self)
        if early:
            self._deliver()

    # What the stream's protocol calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; nothing happens once the connection is closing."""
        if self._below is not None and not self.is_closing():
            self.sent += len(data)
            self._below.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces in order, without joining them."""
        if self._below is not None and not self.is_closing():
            pieces = list(list_of_data)
            self.sent += sum(map(len, pieces))
            self._below.writelines(pieces)

    def pause_reading(self) -> None:
        """Take no more bytes off the connection: TCP holds the sender up."""
        if not self._paused and self._below is not None and not self.is_closing():
            self._paused = True
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self._paused and self._below is not None and not self.is_closing():
            self._paused = False
            self._below.resume_reading()
            if self._held:
                asyncio.get_running_loop().call_soon(self._deliver)

    def is_reading(self) -> bool:
        """Say whether bytes are delivered as they come."""
        return not (self._paused or self.is_closing())

    def is_closing(self) -> bool:
        """Say whether the connection is closed or being closed."""
        # uvloop's TLS transports do not count as closing while they answer the peer's close.
        return self.over or self._ended or self._below is None or self._below.is_closing()

    def can_write_eof(self) -> bool:
        """TLS connections have no half-close."""
        return False

    def close(self) -> None:
        """Send what was written, then end both directions."""
        if self._below is not None:
            self._below.close()

    def abort(self) -> None:
        """End both directions now; what was written and not sent is lost."""
        if self._below is not None:
            self._below.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Exchange the stream's protocol."""
        self._above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the stream's protocol."""
        assert self._above is not None  # noqa: S101 - attached before anyone sees the transport
        return self._above

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, in bytes, at which writing is paused and resumed (default `BUFFER` and a quarter of it)."""
        if self._below is not None:
            self._below.set_write_buffer_limits(BUFFER if high is None and low is None else high, low)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the kernel has not yet taken."""
        return self._below.get_write_buffer_size() if self._below is not None and not self.over else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the connection below knows."""
        return default if self._below is None else self._below.get_extra_info(name, default)

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: TLS is up."""
        self._below = cast("asyncio.Transport", transport)  # uvloop's are, but do not inherit from it
        self._below.set_write_buffer_limits(high=BUFFER)
        tcp.tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Bytes of the stream, or before it of the opening."""
        if self._above is None:
            self._begin(data)
        elif self._held or self._paused:
            self._held += data  # what the loop had read before it was told to pause
        else:
            self.received += len(data)
            self._above.data_received(data)

    def eof_received(self) -> bool:
        """The peer ended the connection: so do we."""
        self._deliver(anyway=True)
        self._ended = True
        if self._above is not None:
            self._above.eof_received()
        return False

    def pause_writing(self) -> None:
        """The connection takes no more for now."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """The connection takes bytes again."""
        if self._above is not None:
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.over = True
        if self._above is not None:
            self._above.connection_lost(exc)

    def _begin(self, data: bytes) -> None:
        raise NotImplementedError

    def _deliver(self, *, anyway: bool = False) -> None:
        if self._held and self._above is not None and (anyway or not self._paused) and not self.over:
            held, self._held = self._held, b""
            self.received += len(held)
            self._above.data_received(held)


class LineOwner(Protocol):
    """What a relay does about data connections."""

    def admit(self, line: "RelayLine", /) -> bool:
        """A connection is up; False ends it."""

    def shown(self, line: "RelayLine", token: bytes, /) -> bool:
        """It has shown its token; False ends it."""

    def dropped(self, line: "RelayLine", /) -> None:
        """It is gone. Called once for each that was admitted."""


class RelayLine(DataLine):
    """The relay's end: takes the token, then waits for `open`. `lane` is what it is good for."""

    def __init__(self, owner: LineOwner, lane: Lane = Lane.DATA) -> None:
        super().__init__()
        self._owner = owner
        self.lane = lane
        self._admitted = False
        self._known = False

    def open(self, opening: wire.OpenStream, protocol: asyncio.Protocol) -> None:
        """Give the connection its one stream; `protocol` may write at once."""
        payload = wire.encode(structs.replace(opening, padding=bytes(tcp.rouse(self.get_extra_info("socket")))))
        if self._below is not None:
            self._below.write(_LENGTH.pack(len(payload)) + payload)
        if isinstance(self._below, Veil):
            self._below.lift()
        self.attach(protocol)

    def moved(self, sent: int, received: int) -> None:
        """The kernel carried bytes of the stream."""
        self.sent += sent
        self.received += received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the token."""
        super().connection_made(transport)
        self._admitted = self._owner.admit(self)
        if not self._admitted:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream and the relay."""
        super().connection_lost(exc)
        if self._admitted:
            self._owner.dropped(self)

    def _begin(self, data: bytes) -> None:
        self._head += data
        # An agent says nothing between its token and the opening.
        if self._known or len(self._head) > TOKEN:
            self.abort()
        elif len(self._head) == TOKEN:
            self._known = self._owner.shown(self, bytes(self._head))
            self._head.clear()
            if not self._known:
                self.abort()


class AgentLine(DataLine):
    """The agent's end: shows the token, then serves the stream that the relay opens."""

    def __init__(
        self,
        token: bytes,
        serve: Callable[[wire.OpenStream], asyncio.Protocol | None],
        lost: Callable[["AgentLine"], None],
    ) -> None:
        super().__init__()
        self._token = token
        self._serve = serve
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Show the token."""
        super().connection_made(transport)
        if self._below is not None:
            self._below.write(self._token)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream and the owner."""
        super().connection_lost(exc)
        self._lost(self)

    def _begin(self, data: bytes) -> None:
        self._head += data
        if len(self._head) < _LENGTH.size:
            return
        end = _LENGTH.size + _LENGTH.unpack_from(self._head)[0]
        if end > OPENING_LIMIT:
            self.abort()
            return
        if len(self._head) < end:
            return
        protocol = self._served(bytes(self._head[_LENGTH.size : end]))
        early = bytes(self._head[end:])
        self._head.clear()
        if protocol is None:
            self.abort()
        else:
            self.attach(protocol, early)

    def _served(self, opening: bytes) -> asyncio.Protocol | None:
        try:
            opened = structs.replace(wire.decode_open(opening), padding=b"")
        except wire.ProtocolError:
            return None
        if isinstance(self._below, Veil):
            if not opened.client:
                return None  # nothing but what is encrypted already goes bare
            self._below.lift()
        return self._serve(opened)
