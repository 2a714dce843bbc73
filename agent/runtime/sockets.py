"""Which process listens on which TCP port: asked of the kernel, so that a stream reaches its own run only (S2)."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_LISTEN = 10
_SOCK_DIAG, _BY_FAMILY, _DUMP, _ERROR, _DONE = 4, 20, 0x301, 2, 3
_HEADER = struct.Struct("=IHHII")
"""`struct nlmsghdr`: length, type, flags, sequence, port."""
_REQUEST = struct.Struct("=BBBxI2s46x")
"""`struct inet_diag_req_v2`: family, protocol, extensions, states as bits, source port; all else is any."""
_ANSWER = struct.Struct("=BBxx4x16s16x12x16xI")
"""`struct inet_diag_msg`: family, state, source address, inode."""
_WAIT_S = 1.0


def listener(pids: Iterable[int], port: int) -> str | None:
    """Return the address to dial for TCP `port` when one of `pids` listens on it, else None."""
    candidates = _listening(port)
    if not candidates:
        return None
    for pid in pids:
        for inode in _socket_inodes(pid):
            if inode in candidates:
                return candidates[inode]
    return None


def _listening(port: int) -> dict[str, str]:
    """Return what listens on a port: the address to dial, by inode."""
    try:
        return dict(_asked(port))
    except OSError:  # a sandbox, or a kernel without it
        return dict(_read(port))


def _asked(port: int) -> Iterator[tuple[str, str]]:
    """Ask for listening sockets alone: in /proc the kernel looks at all connections, which takes it 10 ms and more."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(_WAIT_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            wanted = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN, port.to_bytes(2, "big"))
            kernel.send(_HEADER.pack(_HEADER.size + len(wanted), _BY_FAMILY, _DUMP, 0, 0) + wanted)
            for answer in _answers(kernel):
                _, _, address, inode = _ANSWER.unpack_from(answer)
                yield str(inode), _dialled(address[: 4 if family == socket.AF_INET else 16], family)


def _answers(kernel: socket.socket) -> Iterator[memoryview]:
    while True:
        data = memoryview(kernel.recv(65536))
        while data:
            size, kind, *_ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError("the kernel does not tell who listens")
            yield data[_HEADER.size : size]
            data = data[(size + 3) & ~3 :]


def _read(port: int) -> Iterator[tuple[str, str]]:
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, hexport = fields[1].partition(":")
                if int(fields[3], 16) == _LISTEN and int(hexport, 16) == port:
                    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                    yield fields[9], _dialled(struct.pack(f"={len(words)}I", *words), family)


def _dialled(address: bytes, family: socket.AddressFamily) -> str:
    """Return the address to dial for a listener's: loopback where it listens on all."""
    if not any(address):
        return "127.0.0.1" if family == socket.AF_INET else "::1"
    return socket.inet_ntop(family, address)


def _socket_inodes(pid: int) -> Iterable[str]:
    """Done for every stream, and three times as fast as by `Path`."""
    directory = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            target = os.readlink(f"{directory}/{descriptor}")  # noqa: PTH115
            if target.startswith("socket:["):
                yield target[8:-1]
