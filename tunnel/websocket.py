"""The client's side of a WebSocket (RFC 6455), binary messages only. No I/O.

A library would bring an HTTP parser and a masking loop in Python to every agent; this is all that it needs.
"""

import base64
import hashlib
import os
import struct
from collections.abc import Iterator

MESSAGE_LIMIT = 1024 * 1024
"""Most bytes of a frame that are taken."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0, 2, 8, 9, 10


class WebSocketError(ConnectionError):
    """The other side is no WebSocket server, or does not keep to the protocol."""


def new_key() -> str:
    """Return a fresh `Sec-WebSocket-Key`."""
    return base64.b64encode(os.urandom(16)).decode()


def upgrade(host: str, path: str, key: str) -> bytes:
    """Return the request that asks for a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def check_upgraded(head: bytes, key: str) -> None:
    """Raise `WebSocketError` unless `head`, an answer to its empty line, accepts the request that `key` was in."""
    status, *lines = head.decode("latin-1").split("\r\n")
    words = status.split(" ", 2)
    if len(words) < 2 or words[1] != "101":
        raise WebSocketError(f"it answered {' '.join(words[1:])!r} instead of opening a WebSocket")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    wanted = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    if fields.get("sec-websocket-accept") != wanted or fields.get("upgrade", "").lower() != "websocket":
        raise WebSocketError("its answer does not open the WebSocket that was asked for")


def message(data: bytes) -> bytes:
    """Return one binary message."""
    return _frame(_BINARY, data)


def goodbye() -> bytes:
    """Return the frame that ends the conversation in good order."""
    return _frame(_CLOSE, struct.pack("!H", 1000))


class Decoder:
    """Takes what the server sends, in pieces of any size."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.replies = bytearray()
        """Frames to be sent: pongs, and the answer to a close. The caller empties it."""
        self.closed = False
        """Whether the server said goodbye: nothing counts after that."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what binary messages hold, fragment by fragment; raise `WebSocketError` for what none may be."""
        self._held += data
        while not self.closed and (frame := self._take()) is not None:
            code, payload = frame
            if code in (_BINARY, _CONTINUATION):
                if payload:
                    yield payload
            elif code == _PING:
                self.replies += _frame(_PONG, payload)
            elif code == _CLOSE:
                self.closed = True
                self.replies += _frame(_CLOSE, payload[:2])
            elif code != _PONG:
                raise WebSocketError(f"a frame of the kind {code} in a conversation of binary messages")

    def _take(self) -> tuple[int, bytes] | None:
        """Return the next whole frame's kind and payload, None when it has not come yet."""
        held = self._held
        if len(held) < 2:
            return None
        if held[0] & 0x70 or held[1] & 0x80:
            raise WebSocketError("a frame with extensions, or masked by a server")
        code, size, at = held[0] & 0x0F, held[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            if len(held) < at:
                return None
            size = int.from_bytes(held[2:at], "big")
        if size > MESSAGE_LIMIT or (code >= _CLOSE and (size > 125 or not held[0] & 0x80)):
            raise WebSocketError(f"a frame of {size} bytes of the kind {code}")
        if len(held) < at + size:
            return None
        payload = bytes(held[at : at + size])
        del held[: at + size]
        return code, payload


def _frame(code: int, data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", 0x80 | code, 0x80 | size)
    elif size < 0x10000:
        head = struct.pack("!BBH", 0x80 | code, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | code, 0x80 | 127, size)
    mask = os.urandom(4)
    # As one number each: a loop over bytes would take a hundred times as long.
    pattern = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return head + mask + (int.from_bytes(data, "little") ^ pattern).to_bytes(size, "little")
