"""Control messages and many streams over one byte stream, with credit. Pure: bytes and events, no I/O, no clock.

What goes out first: answers, opens, resets and credit; then control messages, in parts of `CHUNK`; then
streams in turn, a chunk each. So a control message waits for one chunk, never for a user's bulk data.
A direction of a stream may carry what the receiver granted in all (CREDIT); data past that is a protocol
error, so a receiver holds at most the windows it gave. A window doubles while a whole one is
read within two round trips: a long fat path is filled, a slow reader stays cheap.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from atoll.errors import Invalid, Unavailable
from tunnel.frames import CHUNK, FIN, LIMITS, MORE, Decoder, Frame, Kind, encode, header, reason_bytes
from tunnel.wire import ProtocolError

MESSAGE_LIMIT = 8 * 1024 * 1024
"""Most bytes of one control message."""
PART_LEAST = 1024
"""Fewest bytes of a part that others follow: ours have `CHUNK`, and many tiny ones cost far more than they hold."""
STREAMS_LIMIT = 1024
"""Most streams open at a time on one link."""
FIRST_WINDOW = 256 * 1024
"""Credit each direction of a stream starts with: both ends know it, so data follows the OPEN at once."""
LARGEST_WINDOW = 16 * 1024 * 1024
CREDIT_STEP = 512 * 1024
"""A reader returns credit in such steps, or by half of its window: a sender far away must not wait for a large half."""
GROWTH_BUDGET = 64 * 1024 * 1024
"""Most bytes of window beyond `FIRST_WINDOW`, over all streams of a link."""


class Side(StrEnum):
    """Which end of a link this is. Only the control side opens streams."""

    AGENT = "agent"
    CONTROL = "control"


class _Event(msgspec.Struct, frozen=True, gc=False):
    """What was received. Of msgspec's kind, which is cheaper to make and to match than a dataclass."""


class GotMessage(_Event, frozen=True):
    """A whole control message."""

    data: bytes


class GotOpen(_Event, frozen=True):
    """The peer opened a stream."""

    stream: int
    payload: bytes


class GotData(_Event, frozen=True):
    """Bytes of a stream, in order. The credit comes back when `Mux.consumed` is called for them."""

    stream: int
    data: bytes


class GotEnd(_Event, frozen=True):
    """The peer will send no more on this stream."""

    stream: int


class GotReset(_Event, frozen=True):
    """The peer ended both directions; the stream is forgotten."""

    stream: int
    reason: str


class GotPong(_Event, frozen=True):
    """The answer to the ping of that token."""

    token: int


class GotClose(_Event, frozen=True):
    """The peer closes the link, and why."""

    reason: str


Event: TypeAlias = GotMessage | GotOpen | GotData | GotEnd | GotReset | GotPong | GotClose


class _Stream:
    __slots__ = (
        "consumed", "ended", "finished", "finishing", "granted", "limit", "measured", "measured_at", "pending",
        "pieces", "received", "sent", "window",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pieces: deque[bytes | memoryview] = deque()
        self.pending = 0
        self.sent = 0
        self.limit = FIRST_WINDOW
        self.finishing = False
        self.finished = False
        self.received = 0
        self.consumed = 0
        self.granted = FIRST_WINDOW
        self.window = FIRST_WINDOW
        self.measured = 0
        self.measured_at: float | None = None
        self.ended = False

    def cut(self, stream: int, out: list[bytes | memoryview]) -> int:
        """Append the next chunk that credit allows to `out`, as a DATA frame of `stream`; return its bytes."""
        room = left = min(CHUNK, self.limit - self.sent, self.pending)
        self.pending -= room
        self.finished = self.finishing and not self.pending
        out.append(header(Kind.DATA, room, stream, self.sent, FIN if self.finished else 0))
        self.sent += room
        while left:
            piece = self.pieces.popleft()
            if len(piece) > left:
                rest = memoryview(piece)
                self.pieces.appendleft(rest[left:])
                piece = rest[:left]
            out.append(piece)
            left -= len(piece)
        return room


class Mux:
    """One end of a link. Calls change its state; `take` gives the bytes to send, `receive` the events."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._decoder = Decoder()
        self._streams: dict[int, _Stream] = {}
        self._last = 0
        self._pong: int | None = None
        self._urgent: list[bytes | memoryview] = []
        self._grants: dict[int, None] = {}
        self._messages: deque[bytes] = deque()
        self._turns: dict[int, _Stream] = {}
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._growth = 0
        self.queued = 0
        """Bytes of control messages not yet taken."""
        self.received = 0
        self.sent = 0
        """Bytes of all streams that came and went."""

    def send(self, data: bytes) -> None:
        """Queue a control message; raise `Invalid` when it is longer than `MESSAGE_LIMIT`."""
        if len(data) > MESSAGE_LIMIT:
            raise Invalid(f"a control message of {len(data)} bytes is more than {MESSAGE_LIMIT} may be")
        for at in range(0, len(data) or 1, CHUNK):
            more = MORE if at + CHUNK < len(data) else 0
            frame = encode(Frame(Kind.MESSAGE, payload=data[at : at + CHUNK], flags=more))
            self._messages.append(frame)
            self.queued += len(frame)

    def ping(self, token: int) -> None:
        """Queue a ping; its answer is `GotPong(token)`."""
        self._urgent.append(encode(Frame(Kind.PING, offset=token)))

    def close(self, reason: str) -> None:
        """Tell the peer, after all queued messages, that this link ends."""
        frame = encode(Frame(Kind.CLOSE, payload=reason_bytes(reason)))
        self._messages.append(frame)
        self.queued += len(frame)

    def open(self, payload: bytes) -> int:
        """Open a stream and return its id; raise `Unavailable` at `STREAMS_LIMIT`, `Invalid` for a long payload."""
        if len(self._streams) >= STREAMS_LIMIT:
            raise Unavailable(f"the agent's link carries {STREAMS_LIMIT} streams already", hint="try again later")
        if len(payload) > LIMITS[Kind.OPEN]:
            raise Invalid("the request to open a stream is too long")
        self._last += 1
        self._streams[self._last] = _Stream()
        self._urgent.append(encode(Frame(Kind.OPEN, self._last, payload=payload)))
        return self._last

    def write(self, stream: int, data: bytes) -> int:
        """Queue bytes on a stream and return how many wait there; 0, and nothing happens, when it is over or ended."""
        state = self._streams.get(stream)
        if state is None or state.finishing or not data:
            return 0
        state.pieces.append(data)
        state.pending += len(data)
        self._queue_turn(stream, state)
        return state.pending

    def finish(self, stream: int) -> None:
        """End this direction after the queued bytes."""
        state = self._streams.get(stream)
        if state is not None and not state.finishing:
            state.finishing = True
            self._queue_turn(stream, state)

    def reset(self, stream: int, reason: str) -> None:
        """End both directions now and forget the stream; queued bytes are dropped."""
        if stream in self._streams:
            self._forget(stream)
            self._urgent.append(encode(Frame(Kind.RESET, stream, payload=reason_bytes(reason))))

    def consumed(self, stream: int, count: int, now: float, rtt: float | None) -> bool:
        """Take back `count` received bytes, and say whether that makes credit to send.

        `now` and `rtt` (seconds) steer the window.
        """
        state = self._streams.get(stream)
        if state is None:
            return False
        state.consumed += count
        if state.ended or state.window - (state.granted - state.consumed) < min(state.window // 2, CREDIT_STEP):
            return False
        if state.consumed - state.measured >= state.window // 2:
            if rtt is not None and state.measured_at is not None and now - state.measured_at < 2 * rtt:
                self._grow(state)
            state.measured, state.measured_at = state.consumed, now
        state.granted = state.consumed + state.window
        self._grants[stream] = None
        return True

    def pending(self, stream: int) -> int:
        """Return the queued bytes of a stream; 0 when it is gone."""
        state = self._streams.get(stream)
        return state.pending if state else 0

    def progress(self, stream: int) -> int | None:
        """Return how many bytes were ever sent on a stream; None when it is over."""
        state = self._streams.get(stream)
        return state.sent if state else None

    def finished(self, stream: int) -> bool:
        """Say whether this direction has been sent in full, or the stream is over."""
        state = self._streams.get(stream)
        return state is None or state.finished

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def ready(self) -> bool:
        """Whether `take` would return anything."""
        return bool(self._urgent or self._messages or self._turns or self._grants or self._pong is not None)

    def take(self, limit: int, *, streams: bool = True) -> tuple[bytes, int]:
        """Return up to about `limit` bytes to send and how many of them are control messages.

        `streams` False leaves stream data queued.
        """
        out: list[bytes | memoryview] = self._urgent
        self._urgent = []
        if self._pong is not None:
            out.append(encode(Frame(Kind.PONG, offset=self._pong)))
            self._pong = None
        if self._grants:
            out += [encode(Frame(Kind.CREDIT, stream, self._streams[stream].granted)) for stream in self._grants]
            self._grants.clear()
        size = control = 0
        while self._messages and size < limit:
            frame = self._messages.popleft()
            out.append(frame)
            size += len(frame)
        control = size
        self.queued -= control
        while streams and self._turns and size < limit and not self._messages:
            stream = next(iter(self._turns))
            state = self._turns.pop(stream)
            size += state.cut(stream, out)
            if state.finished and state.ended:
                self._forget(stream)
            else:
                self._queue_turn(stream, state)
        self.sent += size - control
        return b"".join(out), control

    def receive(self, data: bytes) -> list[Event]:
        """Return what the bytes say; raise `ProtocolError` when they break the protocol."""
        events: list[Event] = []
        for frame in self._decoder.feed(data):
            self._ACTIONS[frame.kind](self, frame, events)
        return events

    def _queue_turn(self, stream: int, state: _Stream) -> None:
        if state.sent < state.limit if state.pending else state.finishing and not state.finished:
            self._turns[stream] = state

    def _forget(self, stream: int) -> None:
        self._growth -= self._streams.pop(stream).window - FIRST_WINDOW
        self._turns.pop(stream, None)
        self._grants.pop(stream, None)

    def _grow(self, state: _Stream) -> None:
        if state.window < LARGEST_WINDOW and self._growth + state.window <= GROWTH_BUDGET:
            self._growth += state.window
            state.window *= 2

    def _on_message(self, frame: Frame, events: list[Event]) -> None:
        self._parts_size += len(frame.payload)
        if self._parts_size > MESSAGE_LIMIT:
            raise ProtocolError(f"a control message of more than {MESSAGE_LIMIT} bytes")
        if frame.flags & MORE and len(frame.payload) < PART_LEAST:
            raise ProtocolError("a part of a control message that is too short")
        self._parts.append(frame.payload)
        if not frame.flags & MORE:
            events.append(GotMessage(b"".join(self._parts)))
            self._parts = []
            self._parts_size = 0

    def _on_ping(self, frame: Frame, _events: list[Event]) -> None:
        # Only the newest ping is answered: a peer that floods pings cannot fill our memory.
        self._pong = frame.offset

    def _on_pong(self, frame: Frame, events: list[Event]) -> None:
        events.append(GotPong(frame.offset))

    def _on_open(self, frame: Frame, events: list[Event]) -> None:
        if self._side is Side.CONTROL:
            raise ProtocolError("an agent may not open streams")
        if frame.stream <= self._last:
            raise ProtocolError(f"stream {frame.stream} opened after {self._last}")
        # The opener counts a stream as over a little before we do: hence twice its limit.
        if len(self._streams) >= 2 * STREAMS_LIMIT:
            raise ProtocolError("too many streams")
        self._last = frame.stream
        self._streams[frame.stream] = _Stream()
        events.append(GotOpen(frame.stream, frame.payload))

    def _on_data(self, frame: Frame, events: list[Event]) -> None:
        state = self._find(frame.stream)
        if state is None:
            return
        if state.ended or frame.offset != state.received:
            raise ProtocolError(f"stream {frame.stream}: data at {frame.offset}, expected {state.received}")
        if frame.payload:
            state.received += len(frame.payload)
            self.received += len(frame.payload)
            if state.received > state.granted:
                raise ProtocolError(f"stream {frame.stream}: data without credit")
            events.append(GotData(frame.stream, frame.payload))
        if frame.flags & FIN:
            state.ended = True
            self._grants.pop(frame.stream, None)
            events.append(GotEnd(frame.stream))
            if state.finished:
                self._forget(frame.stream)
        elif not frame.payload:
            raise ProtocolError(f"stream {frame.stream}: empty data")

    def _on_credit(self, frame: Frame, _events: list[Event]) -> None:
        state = self._find(frame.stream)
        if state is not None and frame.offset > state.limit:
            state.limit = frame.offset
            self._queue_turn(frame.stream, state)

    def _on_reset(self, frame: Frame, events: list[Event]) -> None:
        if self._find(frame.stream) is not None:
            self._forget(frame.stream)
            events.append(GotReset(frame.stream, frame.payload.decode("utf-8", "replace")))

    def _on_close(self, frame: Frame, events: list[Event]) -> None:
        events.append(GotClose(frame.payload.decode("utf-8", "replace")))

    def _find(self, stream: int) -> _Stream | None:
        """Return a stream, None when it is over already; raise for one that never was."""
        if stream > self._last:
            raise ProtocolError(f"stream {stream} was never opened")
        return self._streams.get(stream)

    _ACTIONS: dict[Kind, Callable[["Mux", Frame, list[Event]], None]] = {  # noqa: RUF012 - a constant
        Kind.MESSAGE: _on_message,
        Kind.PING: _on_ping,
        Kind.PONG: _on_pong,
        Kind.OPEN: _on_open,
        Kind.DATA: _on_data,
        Kind.CREDIT: _on_credit,
        Kind.RESET: _on_reset,
        Kind.CLOSE: _on_close,
    }
