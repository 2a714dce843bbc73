"""A program run beside a session, as frames inside one stream: what starts it, its three channels, its end. No I/O.

A frame is its kind (one byte), its length (four, big-endian) and that many bytes. The first one is the order, from
the side that wants the program; the agent ends the stream after `EXIT` or `FAILED`.
"""

import struct
from enum import IntEnum
from typing import TypeVar

import msgspec

from tunnel.wire import MALFORMED

FRAME_LIMIT = 256 * 1024
"""Most bytes in a frame; data is cut into smaller ones."""
DATA_LIMIT = 64 * 1024
_HEAD = struct.Struct("!BI")


class Kind(IntEnum):
    """What a frame says. Below 16: towards the program."""

    ORDER = 0  # `Order`
    INPUT = 1  # bytes for its standard input
    INPUT_END = 2  # no more of them
    RESIZE = 3  # `Size`: its terminal's new one
    SIGNAL = 4  # a signal's name without SIG, for its process group
    OUTPUT = 16  # bytes of its standard output
    ERRORS = 17  # … of its standard error
    EXIT = 18  # `Exit`: it is over, and all it wrote has been sent
    FAILED = 19  # a sentence: it could not be started


class ExecError(Exception):
    """The peer sent what is no frame, or one that does not belong here."""


class Size(msgspec.Struct, frozen=True, array_like=True):
    """A terminal's size, in characters and pixels (0: not known)."""

    columns: int = 80
    rows: int = 24
    width: int = 0
    height: int = 0


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be run: `command` by the user's shell, or without one the shell itself, or a `subsystem` (`sftp`).

    `terminal` is the terminal's name (`xterm`) where the program gets one, of `size`; without it, it has three pipes.
    `env` is set on top of the run's environment.
    """

    command: str = ""
    subsystem: str = ""
    terminal: str = ""
    size: Size = Size()
    env: dict[str, str] = {}


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How it ended: by `signal` (a name without SIG) or, where that is empty, with `code`."""

    code: int = 0
    signal: str = ""


Told = TypeVar("Told", Order, Size, Exit)


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """Return a frame; raises `ExecError` for a payload longer than `FRAME_LIMIT`."""
    if len(payload) > FRAME_LIMIT:
        raise ExecError(f"{len(payload)} bytes are too many for one frame")
    return _HEAD.pack(kind, len(payload)) + payload


def frames(kind: Kind, data: bytes) -> bytes:
    """Return data as one frame, or as several where it is long."""
    if len(data) <= DATA_LIMIT:
        return _HEAD.pack(kind, len(data)) + data
    return b"".join(frame(kind, data[at : at + DATA_LIMIT]) for at in range(0, len(data), DATA_LIMIT))


def told(kind: Kind, value: Order | Size | Exit) -> bytes:
    """Return a frame that says `value`; raises `ExecError` when it is too long."""
    return frame(kind, msgspec.msgpack.encode(value))


def read(payload: bytes, kind: type[Told]) -> Told:
    """Return what a frame says; raise `ExecError` where it is nonsense."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except MALFORMED as error:
        raise ExecError(f"malformed {kind.__name__}: {error}") from None


class Decoder:
    """Cuts a stream's bytes into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, bytes]]:
        """Return the frames that are complete now; raise `ExecError` for bytes that can be none."""
        self._held += data
        found = []
        at = 0
        while len(self._held) - at >= _HEAD.size:
            number, size = _HEAD.unpack_from(self._held, at)
            if size > FRAME_LIMIT:
                raise ExecError(f"a frame of {size} bytes")
            if len(self._held) - at - _HEAD.size < size:
                break
            try:
                kind = Kind(number)
            except ValueError:
                raise ExecError(f"a frame of kind {number}") from None
            at += _HEAD.size
            found.append((kind, bytes(self._held[at : at + size])))
            at += size
        del self._held[:at]
        return found
