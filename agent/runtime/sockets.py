"""Which process listens on which TCP port: read from /proc, so that a stream reaches its own run only (S2)."""

import contextlib
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_LISTEN = "0A"


def listener(pids: Iterable[int], port: int) -> str | None:
    """Return the address to dial for TCP `port` when one of `pids` listens on it, else None."""
    candidates = dict(_listening(port))
    if not candidates:
        return None
    for pid in pids:
        for inode in _socket_inodes(pid):
            if inode in candidates:
                return candidates[inode]
    return None


def _listening(port: int) -> list[tuple[str, str]]:
    found = []
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, hexport = fields[1].partition(":")
                if fields[3] == _LISTEN and int(hexport, 16) == port:
                    found.append((fields[9], _dialled(address, family)))
    return found


def _dialled(address: str, family: socket.AddressFamily) -> str:
    """Return the address to dial for a listener's: loopback where it listens on all."""
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if not any(packed):
        return "127.0.0.1" if family == socket.AF_INET else "::1"
    return socket.inet_ntop(family, packed)


def _socket_inodes(pid: int) -> Iterable[str]:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
