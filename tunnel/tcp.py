"""What connections ask of the kernel's TCP, and what it tells of them. A kernel that knows less serves as well."""

import contextlib
import socket
import struct

_DEAD_MS = 15_000
"""Data that the peer's kernel does not acknowledge for this long ends the connection."""
_KEEPALIVE_S = 10
_LAST_HEARD, _HEARD = 52, struct.Struct("=II")
"""Where `struct tcp_info` holds `tcpi_last_data_recv` and `tcpi_last_ack_recv`, in milliseconds."""
_LEAST_RTT, _MICROSECONDS = 148, struct.Struct("=I")
"""Where it holds `tcpi_min_rtt`."""
_NEAR_US = 1000


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
    if connection is None:
        return
    with contextlib.suppress(OSError):
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LEAST_RTT + _MICROSECONDS.size)
        if len(told) > _LEAST_RTT and _MICROSECONDS.unpack_from(told, _LEAST_RTT)[0] < _NEAR_US:
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_CONGESTION", 13), b"cubic")


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
