"""One end of a byte stream that outlives what carries it. Pure: bytes and counts, no I/O, no clock.

A *lane* is any pipe of bytes between the two ends; a stream runs on one lane at a time. The client end begins
a lane with a greeting that numbers it and says what was received so far, the agent end answers with its own,
and both send again from there. Where a lane has a newer one, nothing it still brings is taken.

Header (network order): type u8, length u32, offset u64.

| frame | offset | payload |
|---|---|---|
| GREETING | received so far | version, flags, lane's number, consumed so far, window, stream id |
| DATA | of its first byte | 1 byte to 256 KiB |
| ACK | consumed so far by the reader | – |
| END | of the end: one past the last byte | – |
| RESET | 0 | reason, UTF-8 |
| PING | 0 | – |
| PONG | 0 | padding |

Offsets count from the stream's first byte; the end takes one, so it is received and acknowledged like a byte.
What is not acknowledged is kept to be sent again, and only a window of it may be sent: the sender's memory
and, where its reader is slow, the receiver's are bounded by the same number. The first lane does not wait
for the answer with its data (opening costs no round trip), later lanes do.
"""

import struct
from collections import deque
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TypeAlias

from tunnel.wire import ProtocolError

HEADER = struct.Struct("!BIQ")
FRAME = 256 * 1024
"""Most payload bytes of a DATA frame."""
WINDOW = 16 * 1024 * 1024
"""Most bytes a stream keeps in each direction, unless told otherwise."""
FIRST_WINDOW = 256 * 1024
"""What may be sent on the first lane before its answer."""
ACK_EVERY = 256 * 1024
"""A reader that consumed so much since the last ACK sends one by itself."""
REASON_LIMIT = 1024
PADDING_LIMIT = 16 * 1024
ID_SIZE = 16

_VERSION = 1
_FRESH = 1
_GREETING = struct.Struct("!BBIQI16s")
GREETING_SIZE = HEADER.size + _GREETING.size
_SMALL = 4 * 1024
_GATHERED = 32 * 1024

Buffer: TypeAlias = bytes | bytearray | memoryview


class Side(StrEnum):
    """Which end of a stream this is. Only the client end begins lanes."""

    CLIENT = "client"
    AGENT = "agent"


class Kind(IntEnum):
    """Types of frames."""

    GREETING = 1
    DATA = 2
    ACK = 3
    END = 4
    RESET = 5
    PING = 6
    PONG = 7


_LIMITS: dict[int, tuple[int, int]] = {
    Kind.GREETING: (_GREETING.size, _GREETING.size),
    Kind.DATA: (1, FRAME),
    Kind.ACK: (0, 0),
    Kind.END: (0, 0),
    Kind.RESET: (0, REASON_LIMIT),
    Kind.PING: (0, 0),
    Kind.PONG: (0, PADDING_LIMIT),
}


@dataclass(frozen=True, slots=True)
class Greeting:
    """What an end says first on every lane.

    `epoch` numbers the client's lanes from 1; the answer repeats it. `fresh`: the client never had an answer,
    so a stream the agent does not know is a new one, not a forgotten one.
    """

    stream: bytes
    epoch: int
    received: int = 0
    consumed: int = 0
    window: int = WINDOW
    fresh: bool = False

    def encode(self) -> bytes:
        """Return the frame."""
        flags = _FRESH if self.fresh else 0
        payload = _GREETING.pack(_VERSION, flags, self.epoch, self.consumed, self.window, self.stream)
        return HEADER.pack(Kind.GREETING, len(payload), self.received) + payload


def read_greeting(data: Buffer) -> Greeting | None:
    """Return the greeting a lane begins with, None while bytes of its `GREETING_SIZE` are missing.

    Raises `ProtocolError` as soon as it can be none.
    """
    if data and data[0] != Kind.GREETING:
        raise ProtocolError(f"a lane begins with a greeting, not with a frame of type {data[0]}")
    if len(data) < GREETING_SIZE:
        return None
    _, length, received = HEADER.unpack_from(data)
    if length != _GREETING.size:
        raise ProtocolError(f"a greeting of {length} bytes")
    version, flags, epoch, consumed, window, stream = _GREETING.unpack_from(data, HEADER.size)
    if version != _VERSION or flags & ~_FRESH or not epoch or consumed > received:
        raise ProtocolError("a greeting that makes no sense")
    return Greeting(stream, epoch, received, consumed, window, bool(flags & _FRESH))


def refusal(reason: str) -> bytes:
    """Return the RESET frame that answers a greeting whose stream is not, or no longer, served."""
    text = reason.encode("utf-8", "replace")[:REASON_LIMIT].decode("utf-8", "ignore").encode()
    return HEADER.pack(Kind.RESET, len(text), 0) + text


class Pieces:
    """Bytes in order, kept as they were given, without copying; small ones are gathered, to cost what they hold."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: deque[memoryview | bytearray] = deque()
        self.size = 0

    def __len__(self) -> int:
        """How many pieces, not bytes."""
        return len(self._parts)

    def append(self, data: Buffer) -> None:
        """Add bytes at the end. They must never change: nothing but small ones is copied."""
        parts = self._parts
        size = len(data)
        if size >= _SMALL:
            parts.append(memoryview(data))
        elif parts and type(parts[-1]) is bytearray and len(parts[-1]) < _GATHERED:
            parts[-1] += data
        else:
            parts.append(bytearray(data))
        self.size += size

    def take(self, most: int) -> list[memoryview]:
        """Remove and return up to `most` bytes from the front."""
        taken: list[memoryview] = []
        parts = self._parts
        left = most
        while left > 0 and parts:
            part = memoryview(parts.popleft())
            if len(part) > left:
                parts.appendleft(part[left:])
                part = part[:left]
            taken.append(part)
            left -= len(part)
        self.size -= most - left
        return taken

    def drop(self, count: int) -> None:
        """Forget `count` bytes at the front; there must be as many."""
        self.size -= count
        parts = self._parts
        while count:
            size = len(parts[0])
            if size > count:
                parts[0] = memoryview(parts[0])[count:]
                return
            parts.popleft()
            count -= size

    def follow(self, other: "Pieces") -> None:
        """Put the bytes of `other` behind these; `other` is left empty."""
        self._parts.extend(other._parts)
        self.size += other.size
        other.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._parts.clear()
        self.size = 0


class Resume:
    """One end of a stream. Calls change its state; `take` gives what to send, `receive` what came.

    Both name the lane they mean by its epoch; for any but the present lane they do nothing.
    """

    def __init__(self, stream: bytes, side: Side, window: int = WINDOW) -> None:
        """Begin a stream of that id (16 bytes nobody can guess), which keeps `window` bytes a direction at most."""
        if len(stream) != ID_SIZE or window < FIRST_WINDOW:
            raise ValueError(f"a stream has an id of {ID_SIZE} bytes and a window of {FIRST_WINDOW} bytes at least")
        self.stream = stream
        self._side = side
        self._window = window
        # Going out: [base, next) is in flight on this lane, [next, written) waits; below acked it was consumed.
        self._flight = Pieces()
        self._queue = Pieces()
        self._next = 0
        self._written = 0
        self._acked = 0
        self._sent = 0
        self._room = FIRST_WINDOW
        self._finishing = False
        self._end_sent = False
        # Coming in.
        self._received = 0
        self._consumed = 0
        self._told = 0
        self._ended = False
        # The lane.
        self._epoch = 0
        self._attached = False
        self._answered = False
        self._answered_once = False
        self._open = False
        self._urgent: list[bytes | memoryview] = []
        self._ack_due = False
        self._left = 0
        self._partial = bytearray()
        self._reason: str | None = None
        self._dead = False
        self.news = False
        """Set when more than data has come or an ACK has become due; whoever looks clears it."""

    # What its user does.

    def write(self, data: Buffer) -> None:
        """Queue bytes, which must never change: they are kept, not copied, until acknowledged."""
        if not (self._dead or self._finishing):
            self._queue.append(data)
            self._written += len(data)

    def finish(self) -> None:
        """End this direction after what is queued."""
        self._finishing = True

    def reset(self, reason: str) -> None:
        """End both directions, drop what is queued, tell the peer on the present lane or when it next asks."""
        if not self._dead:
            self._die()
            self._urgent = [*self._urgent, refusal(reason)] if self._attached else []
            self._reason = reason

    def consumed(self, count: int) -> None:
        """The reader is done with so many bytes: they may be acknowledged."""
        self._consumed += count
        if self._ended and self._consumed == self._received - 1:
            self._consumed += 1
            self._ack_due = self.news = True
        elif self._consumed - self._told >= ACK_EVERY:
            self._ack_due = self.news = True

    def acknowledge(self) -> None:
        """Acknowledge what was consumed, even where it is nothing more: the sender hears that its lane lives."""
        self._ack_due = True

    def ping(self) -> None:
        """Ask the peer on the present lane for a sign of life."""
        if self._attached and not self._dead:
            self._urgent.append(HEADER.pack(Kind.PING, 0, 0))

    # What it knows.

    @property
    def epoch(self) -> int:
        """The number of the newest lane, 0 before the first."""
        return self._epoch

    @property
    def answered(self) -> bool:
        """Whether both ends have greeted on the present lane."""
        return self._answered

    @property
    def fresh(self) -> bool:
        """Whether the peer never answered on any lane."""
        return not self._answered_once

    @property
    def pending(self) -> int:
        """Bytes written and not yet sent on a lane."""
        return self._queue.size

    @property
    def held(self) -> int:
        """Bytes kept to be sent, for the first time or again."""
        return self._queue.size + self._flight.size

    @property
    def parts(self) -> int:
        """In how many pieces that is."""
        return len(self._queue) + len(self._flight)

    @property
    def buffered(self) -> int:
        """Bytes of an incomplete header or control frame that came."""
        return len(self._partial)

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes of the stream that came and that were sent, each byte once."""
        return self._received - self._ended, min(self._sent, self._written)

    @property
    def acked(self) -> int:
        """How much the peer's reader has consumed, the end counted as one."""
        return self._acked

    @property
    def flushed(self) -> bool:
        """Whether the peer's reader has consumed everything, the end included."""
        return self._finishing and self._acked > self._written

    @property
    def outstanding(self) -> bool:
        """Whether anything sent is not acknowledged."""
        return self._acked < self._sent

    @property
    def ended(self) -> bool:
        """Whether the peer's end of its direction was received."""
        return self._ended

    @property
    def over(self) -> bool:
        """Whether nothing more is to be said or heard: both directions ended and acknowledged, or reset."""
        return self._dead or (self.flushed and self._ended and self._told == self._received)

    @property
    def reason(self) -> str | None:
        """Why the stream was reset, by either end; None where it was not."""
        return self._reason

    # Lanes.

    def greet(self, padding: int = 0) -> int:
        """Client: begin a lane and return its epoch; the one before is over.

        So many bytes of `padding` follow the greeting, and no more than `PADDING_LIMIT`.
        """
        self._begin(self._epoch + 1)
        self._open = self._epoch == 1
        self._urgent.append(self._greeting(fresh=not self._answered_once))
        self._pad(padding)
        return self._epoch

    def answer(self, greeting: Greeting, padding: int = 0) -> int | None:
        """Agent: take a lane that begins so, and return its epoch; None where a newer lane is there already.

        Raises `ProtocolError` for a greeting that cannot be of this stream.
        """
        if greeting.stream != self.stream:
            raise ProtocolError("a greeting of another stream")
        if greeting.epoch <= self._epoch:
            return None
        self._begin(greeting.epoch)
        if self._dead:
            self._urgent.append(refusal(self._reason or "the stream is over"))
        else:
            self._urgent.append(self._greeting(fresh=False))
            self._pad(padding)
            self._meet(greeting)
        return self._epoch

    def lost(self, epoch: int) -> None:
        """The lane of that epoch is gone."""
        if epoch == self._epoch:
            self._attached = self._answered = self._open = False
            self._urgent.clear()

    def ready(self, epoch: int) -> bool:
        """Say whether `take` has anything for that lane."""
        if epoch != self._epoch or not self._attached:
            return False
        if self._urgent or not self._open or self._dead:
            return bool(self._urgent)
        return self._ack_due or self._sendable > 0 or self._end_due

    def take(self, epoch: int, most: int = FRAME) -> list[bytes | memoryview]:
        """Return what to send on that lane now, in order: `most` bytes of data and what else is due."""
        if epoch != self._epoch or not self._attached:
            return []
        out, self._urgent = self._urgent, []
        if not self._open or self._dead:
            return out
        if self._ack_due:
            self._ack_due = False
            self._told = self._consumed
            out.append(HEADER.pack(Kind.ACK, 0, self._told))
        while most > 0 and (size := min(FRAME, most, self._sendable)):
            self._cut(size, out)
            most -= size
        if self._end_due:
            out.append(HEADER.pack(Kind.END, 0, self._written))
            self._end_sent = True
            self._sent = self._written + 1
        return out

    def receive(self, epoch: int, data: Buffer) -> list[memoryview]:
        """Take bytes from that lane; return the stream's bytes in them, in order, as views of `data`.

        `ended`, `reason` and the rest of what the stream knows may have changed too. Raises `ProtocolError`.
        """
        got: list[memoryview] = []
        if epoch != self._epoch or not self._attached or self._dead:
            return got
        view = memoryview(data)
        at, stop = 0, len(view)
        while at < stop and not self._dead:
            if left := self._left:
                size = min(left, stop - at)
                got.append(view if size == stop else view[at : at + size])
                at += size
                self._left = left - size
                self._received += size
            elif self._partial or stop - at < HEADER.size:
                at += self._gather(view[at:])
            else:
                at += self._frame(view, at)
        return got

    # Going out.

    @property
    def _sendable(self) -> int:
        return max(0, min(self._queue.size, self._acked + self._room - self._next))

    @property
    def _end_due(self) -> bool:
        return self._finishing and not self._queue.size and not self._end_sent

    def _cut(self, size: int, out: list[bytes | memoryview]) -> None:
        header = HEADER.pack(Kind.DATA, size, self._next)
        parts = self._queue.take(size)
        for part in parts:
            self._flight.append(part)
        self._next += size
        self._sent = max(self._sent, self._next)
        if size < _SMALL:
            out.append(b"".join((header, *parts)))
        else:
            out.append(header)
            out += parts

    def _acknowledged(self, offset: int) -> None:
        if not self._acked <= offset <= self._sent:
            raise ProtocolError(f"ACK of {offset}, not between {self._acked} and {self._sent}")
        self._acked = offset
        base = self._next - self._flight.size
        if offset > base:
            self._flight.drop(min(offset, self._next) - base)

    def _meet(self, greeting: Greeting) -> None:
        """Both ends have greeted: send again what the peer does not have."""
        optimistic, self._open = self._open, True
        self._answered = self._answered_once = True
        self._room = min(self._window, greeting.window)
        if optimistic:
            if greeting.received:
                raise ProtocolError("a new stream has received something already")
            return
        received = greeting.received
        base = self._next - self._flight.size
        if not max(base, self._acked) <= received <= self._sent:
            raise ProtocolError(f"received {received}, not between {base} and {self._sent}")
        self._acknowledged(max(self._acked, greeting.consumed))
        base = self._next - self._flight.size
        self._end_sent = received > self._written
        received = min(received, self._written)
        self._flight.drop(max(0, received - base))
        self._next -= self._flight.size
        self._flight.follow(self._queue)
        self._flight, self._queue = self._queue, self._flight

    # Coming in.

    def _gather(self, view: memoryview) -> int:
        """Add to an incomplete header or control frame; return the bytes used."""
        partial = self._partial
        need = HEADER.size
        if len(partial) >= need:
            need += HEADER.unpack_from(partial)[1]
        part = view[: need - len(partial)]
        partial += part
        if len(partial) == need:
            kind, length, _ = HEADER.unpack_from(partial)
            self._check(kind, length)
            if kind == Kind.DATA or need == HEADER.size + length:
                self._partial = bytearray()
                self._frame(memoryview(partial), 0)
        return len(part)

    def _frame(self, view: memoryview, at: int) -> int:
        """Handle the frame whose header is at `at`; return the bytes used: of DATA the header's alone."""
        kind, length, offset = HEADER.unpack_from(view, at)
        if kind == Kind.DATA:
            self._data(length, offset)
            return HEADER.size
        self._check(kind, length)
        size: int = HEADER.size + length
        if len(view) - at < size:
            self._partial += view[at:]
            return size  # more than there is: the view is used up
        self._control(kind, offset, view[at : at + size])
        return size

    def _check(self, kind: int, length: int) -> None:
        limits = _LIMITS.get(kind)
        if limits is None:
            raise ProtocolError(f"unknown frame type {kind}")
        if not limits[0] <= length <= limits[1]:
            raise ProtocolError(f"{Kind(kind).name} frame of {length} bytes")
        if not self._answered and kind not in (Kind.GREETING, Kind.RESET):
            raise ProtocolError(f"{Kind(kind).name} frame before the greeting")

    def _data(self, length: int, offset: int) -> None:
        self._check(Kind.DATA, length)
        if offset != self._received or self._ended:
            raise ProtocolError(f"DATA at {offset}, not at {self._received}")
        if offset + length > self._consumed + self._window:
            raise ProtocolError("DATA beyond the window")
        self._left = length

    def _control(self, kind: int, offset: int, frame: memoryview) -> None:
        self.news = True
        match kind:
            case Kind.ACK:
                self._acknowledged(offset)
            case Kind.END:
                if offset != self._received or self._ended:
                    raise ProtocolError(f"END at {offset}, not at {self._received}")
                self._ended = True
                self._received += 1
                self.consumed(0)
            case Kind.RESET:
                self._die()
                self._reason = str(frame[HEADER.size :], "utf-8", "replace")
            case Kind.PING:
                self._pong()
            case Kind.PONG:
                pass
            case _:
                self._greeted(frame)

    def _pong(self) -> None:
        pong = HEADER.pack(Kind.PONG, 0, 0)
        if pong not in self._urgent:  # a flood of pings is answered once
            self._urgent.append(pong)

    def _greeted(self, frame: memoryview) -> None:
        greeting = read_greeting(frame)
        if greeting is None or self._side is Side.AGENT or self._answered:
            raise ProtocolError("an unexpected greeting")
        if greeting.stream != self.stream or greeting.epoch != self._epoch:
            raise ProtocolError("a greeting of another stream or lane")
        self._meet(greeting)

    # The lane.

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._attached = True
        self._answered = self._open = False
        self._urgent = []
        self._left = 0
        self._partial = bytearray()

    def _greeting(self, *, fresh: bool) -> bytes:
        self._told = self._consumed
        self._ack_due = False
        return Greeting(self.stream, self._epoch, self._received, self._consumed, self._window, fresh).encode()

    def _pad(self, size: int) -> None:
        if size:
            self._urgent.append(HEADER.pack(Kind.PONG, size, 0) + bytes(size))

    def _die(self) -> None:
        self._dead = True
        self._queue.clear()
        self._flight.clear()
