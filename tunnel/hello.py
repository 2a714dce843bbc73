"""Reads whom a TLS client means (SNI) and the protocols (ALPN) it offers, from its first bytes. No I/O."""

from dataclasses import dataclass

HELLO_LIMIT = 16 * 1024
"""Most bytes of a ClientHello that are looked at; real ones take 200 to 2,500."""
RECORDS_LIMIT = 16
"""Most records that a ClientHello may be spread over; real ones are in one. Each that comes is read with all before."""
_RECORD, _HANDSHAKE, _CLIENT_HELLO, _SNI, _ALPN = 5, 22, 1, 0, 16


class NotHello(Exception):
    """The bytes are no TLS ClientHello."""


@dataclass(frozen=True, slots=True)
class More:
    """Not enough yet: at least `size` bytes from the beginning are needed."""

    size: int


@dataclass(frozen=True, slots=True)
class Hello:
    """What a ClientHello says: the server's `name` ("" for none) and `protocols` in the client's order."""

    name: str = ""
    protocols: tuple[str, ...] = ()


def read(data: bytes) -> Hello | More:
    """Return the ClientHello at the start of `data`.

    One cut short gives `More`; anything else raises `NotHello`.
    """
    message = b""
    at = 0
    for _ in range(RECORDS_LIMIT):
        if data[at : at + 1] not in (b"", bytes([_HANDSHAKE])):
            raise NotHello("not a TLS handshake record")
        if len(data) < at + _RECORD:
            return More(at + _RECORD)
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at + 1] != 3 or not size:
            raise NotHello("not a TLS record")
        end = at + _RECORD + size
        if end > HELLO_LIMIT:
            raise NotHello("too long")
        if len(data) < end:
            return More(end)
        message += data[at + _RECORD : end]
        at = end
        if message[0] != _CLIENT_HELLO:
            raise NotHello("not a ClientHello")
        # A hello may be spread over several records.
        if len(message) >= 4 and len(message) >= 4 + (length := int.from_bytes(message[1:4], "big")):
            return _hello(message[4 : 4 + length])
    raise NotHello("in too many records")


class _Reader:
    """Takes length-prefixed fields off bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) < count:
            raise NotHello("cut short inside")
        self._at += count
        return part

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))


def _hello(body: bytes) -> Hello:
    hello = _Reader(body)
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression
    extensions = _Reader(hello.vector(2) if hello else b"")
    found: dict[int, bytes] = {}
    while extensions:
        kind = int.from_bytes(extensions.take(2), "big")
        found.setdefault(kind, extensions.vector(2))
    return Hello(_name(found.get(_SNI, b"")), tuple(_protocols(found.get(_ALPN, b""))))


def _name(value: bytes) -> str:
    if not value:
        return ""
    names = _Reader(_Reader(value).vector(2))
    while names:
        kind = names.take(1)
        name = names.vector(2)
        if kind == b"\0":
            return name.decode("latin-1").lower()
    return ""


def _protocols(value: bytes) -> list[str]:
    found = []
    names = _Reader(_Reader(value).vector(2) if value else b"")
    while names:
        found.append(names.vector(1).decode("latin-1"))
    return found
