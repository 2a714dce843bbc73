"""What connections ask of the kernel's TCP, and what it tells of them. A kernel that knows less serves as well."""

import contextlib
import socket
import struct

_DEAD_MS = 15_000
"""Data that the peer's kernel does not acknowledge for this long ends the connection."""
_KEEPALIVE_S = 10
_LAST_HEARD, _HEARD = 52, struct.Struct("=II")
"""Where `struct tcp_info` holds `tcpi_last_data_recv` and `tcpi_last_ack_recv`, in milliseconds."""
_SEGMENT, _LEAST_RTT, _NUMBER = 16, 148, struct.Struct("=I")
"""Where it holds `tcpi_snd_mss`, in bytes, and `tcpi_min_rtt`, in microseconds."""
_NEAR_US = 1000
ROUSE_LIMIT = 9000
"""A packet of an Ethernet with jumbo frames, in bytes."""


def tune(connection: socket.socket | None) -> None:
    """Set what suits bulk data: no delay, BBR, an end to silence."""
    options = {
        getattr(socket, "TCP_USER_TIMEOUT", 18): _DEAD_MS,
        getattr(socket, "TCP_KEEPIDLE", 4): _KEEPALIVE_S,
        getattr(socket, "TCP_KEEPINTVL", 5): _KEEPALIVE_S // 2,
    }
    if connection is not None:
        _set(connection, options)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def tune_link(connection: socket.socket | None, unsent: int) -> None:
    """Set what suits messages: no delay, BBR, few bytes unsent in the kernel, where no later message overtakes them."""
    if connection is not None:
        _set(connection, {getattr(socket, "TCP_NOTSENT_LOWAT", 25): unsent})


def ease(connection: socket.socket | None) -> None:
    """Send by CUBIC over a path of less than a millisecond: BBR's pacing gains nothing there.

    Where the kernel alone carries the bytes, it takes half of the processor time.
    """
    path = _path(connection)
    if connection is not None and path is not None and path[1] < _NEAR_US:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_CONGESTION", 13), b"cubic")


def rouse(connection: socket.socket | None) -> int:
    """Return how many bytes, besides what there is to say, wake up a connection that may have been idle; often 0.

    After ten idle seconds BBR learns the round trip anew, from the first acknowledgement, but not from that of a lone
    packet, which may have been delayed: then it sends next to nothing for 0.2 s (Linux, `bbr_update_min_rtt`).
    """
    path = _path(connection)
    return 0 if path is None or path[1] < _NEAR_US else min(path[0], ROUSE_LIMIT)


def _path(connection: socket.socket | None) -> tuple[int, int] | None:
    """Return a segment's bytes and the least round trip's microseconds; None where the kernel does not say."""
    if connection is None:
        return None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LEAST_RTT + _NUMBER.size)
    except OSError:
        return None
    if len(told) < _LEAST_RTT + _NUMBER.size:
        return None
    return _NUMBER.unpack_from(told, _SEGMENT)[0], _NUMBER.unpack_from(told, _LEAST_RTT)[0]


def silence(connection: socket.socket | None) -> float:
    """Return the seconds since the peer's kernel last sent data or an acknowledgement; 0 where that is not known."""
    if connection is None:
        return 0.0
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_HEARD + _HEARD.size)
    except OSError:
        return 0.0
    return float(min(_HEARD.unpack_from(told, _LAST_HEARD)) / 1000)


def _set(connection: socket.socket, options: dict[int, int]) -> None:
    wanted: dict[int, int | bytes] = {
        socket.TCP_NODELAY: 1,
        getattr(socket, "TCP_CONGESTION", 13): b"bbr",
        **options,
    }
    for option, value in wanted.items():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
