"""Frames, the link's alphabet: an 18-byte header and a bounded payload. No I/O.

Header (network order): type u8, flags u8, stream u32, length u32, offset u64.

| frame | stream | offset | payload |
|---|---|---|---|
| MESSAGE | 0 | 0 | a part of a control message; flag MORE on all parts but the last |
| PING, PONG | 0 | token, echoed | – |
| OPEN | new id, rising | 0 | `wire.OpenStream` |
| DATA | id | of its first byte | stream bytes; flag FIN: the last of this direction |
| CREDIT | id | bytes that may be sent in all | – |
| RESET | id | 0 | reason, UTF-8 |
| CLOSE | 0 | 0 | reason, UTF-8 |
"""

import struct
from enum import IntEnum

import msgspec

from tunnel.wire import ProtocolError

HEADER = struct.Struct("!BBIIQ")
CHUNK = 64 * 1024
"""Most payload bytes in a frame: what a ping may have to wait for."""
MORE = 1
FIN = 2


class Kind(IntEnum):
    """Types of frames."""

    MESSAGE = 1
    PING = 2
    PONG = 3
    OPEN = 4
    DATA = 5
    CREDIT = 6
    RESET = 7
    CLOSE = 8


REASON_LIMIT = 1024
LIMITS: dict[int, int] = {
    Kind.MESSAGE: CHUNK,
    Kind.PING: 0,
    Kind.PONG: 0,
    Kind.OPEN: 4096,
    Kind.DATA: CHUNK,
    Kind.CREDIT: 0,
    Kind.RESET: REASON_LIMIT,
    Kind.CLOSE: REASON_LIMIT,
}
"""Most payload bytes by type; judged when the header is read, before anything is stored."""
_FLAGS: dict[int, int] = {Kind.MESSAGE: MORE, Kind.DATA: FIN}
_WITH_STREAM = (Kind.OPEN, Kind.DATA, Kind.CREDIT, Kind.RESET)
_RULES: dict[int, tuple[Kind, int, int, bool]] = {
    kind.value: (kind, LIMITS[kind], ~_FLAGS.get(kind, 0), kind in _WITH_STREAM) for kind in Kind
}
"""By type: what it is, its longest payload, the flags it may not have, whether it is of a stream."""
_NONE = (Kind.CLOSE, -1, 0, False)
"""The rule for an unknown type: every length is too long."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame, read or to be written."""

    kind: Kind
    stream: int = 0
    offset: int = 0
    payload: bytes = b""
    flags: int = 0


def header(kind: Kind, length: int, stream: int = 0, offset: int = 0, flags: int = 0) -> bytes:
    """Return what goes before a payload of `length` bytes. The caller keeps to `LIMITS`."""
    return HEADER.pack(kind, flags, stream, length, offset)


def encode(frame: Frame) -> bytes:
    """Return the frame's bytes. The caller keeps to `LIMITS`."""
    return header(frame.kind, len(frame.payload), frame.stream, frame.offset, frame.flags) + frame.payload


def reason_bytes(reason: str) -> bytes:
    """Return a reason as a payload, cut to `REASON_LIMIT` bytes between characters."""
    return reason.encode("utf-8", "replace")[:REASON_LIMIT].decode("utf-8", "ignore").encode()


class Decoder:
    """Turns bytes, cut anywhere, into frames. Holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames completed by `data`; raise `ProtocolError` at the first bad header."""
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= HEADER.size:
            number, flags, stream, length, offset = HEADER.unpack_from(data, at)
            kind, limit, forbidden, with_stream = _RULES.get(number, _NONE)
            if length > limit or flags & forbidden or (stream != 0) != with_stream:
                raise ProtocolError(_fault(number, flags, stream, length))
            stop = at + HEADER.size + length
            if stop > end:
                break
            frames.append(Frame(kind, stream, offset, data[at + HEADER.size : stop], flags))
            at = stop
        self._rest = data[at:]
        return frames


def _fault(number: int, flags: int, stream: int, length: int) -> str:
    """Return what is wrong with a header."""
    if number not in _RULES:
        return f"unknown frame type {number}"
    kind, limit, forbidden, _ = _RULES[number]
    if length > limit:
        return f"{kind.name} frame of {length} bytes, more than {limit}"
    if flags & forbidden:
        return f"unknown flags {flags} on a {kind.name} frame"
    return f"{kind.name} frame with stream {stream}"
