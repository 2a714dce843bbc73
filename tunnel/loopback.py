"""TCP connections within this machine: whether a process still holds the other end, or has closed it for good.

What arrives does not tell them apart: who ends only its sending side and who is gone both send FIN. But here the other
end is a socket of the same kernel, which says whether anybody has it open (`sock_diag(7)`).
"""

import socket
import struct
from typing import Any

_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_ANY = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")
"""`struct nlmsghdr`: length, type, flags, sequence, port."""
_WANTED = struct.Struct("=BBxxI")
"""The head of `struct inet_diag_req_v2`: family, protocol, states as bits."""
_TOLD = struct.Struct("=68xI")
"""`struct inet_diag_msg`: the inode, 0 once nobody has the socket open."""


def is_held(connection: socket.socket | None) -> bool:
    """Say whether a process of this machine holds the other end of `connection`; False where that is not known."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        wanted = _end(connection.family, connection.getpeername(), connection.getsockname())
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.setblocking(False)  # it answers before `send` returns
            kernel.send(_HEADER.pack(_HEADER.size + len(wanted), _BY_FAMILY, _REQUEST, 0, 0) + wanted)
            answer = kernel.recv(4096)
    except (OSError, AttributeError):  # connections over already; kernels without it
        return False
    _, kind, *_ = _HEADER.unpack_from(answer)
    return bool(kind == _BY_FAMILY and _TOLD.unpack_from(answer, _HEADER.size)[0])


def _end(family: int, here: tuple[Any, ...], there: tuple[Any, ...]) -> bytes:
    """Return the request for the socket that is bound `here` and connected `there`."""
    addresses = b"".join(
        socket.inet_pton(family, host.partition("%")[0]).ljust(16, b"\0") for host, *_ in (here, there)
    )
    cookie = struct.pack("=III", 0, _ANY, _ANY)  # of any interface, with any cookie
    return _WANTED.pack(family, socket.IPPROTO_TCP, _ANY) + struct.pack("!HH", here[1], there[1]) + addresses + cookie
