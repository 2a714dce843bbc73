"""A WireGuard interface in memory: what a gateway's machine would have, kept by `Machine` as a kernel keeps it."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path

from tunnel.wireguard import DeviceError, PeerChange, PeerState, Shown


@dataclass
class Machine:
    """What outlives the agent's process. `broken` fails every command with this text."""

    shown: Shown | None = None
    addresses: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)
    keys: int = 0
    broken: str = ""
    closed: str = ""


class FakeDevice:
    """A `Device` of a machine in memory."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()

    async def make_key(self, path: Path) -> None:
        self._check()
        self.machine.keys += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(b64encode(hashlib.sha256(f"{id(self.machine)} {self.machine.keys}".encode()).digest()).decode())
        path.chmod(0o600)

    async def public_key(self, path: Path) -> str:
        return public(path.read_text())

    async def show(self) -> Shown | None:
        self._check()
        return self.machine.shown

    async def up(self, port: int) -> None:
        self._check()
        if self.machine.shown is None:
            self.machine.shown = Shown("", port or 40000, {})

    async def use_key(self, path: Path) -> None:
        self.machine.shown = replace(self._shown(), key=public(path.read_text()))

    async def change(self, peers: Sequence[PeerChange]) -> None:
        known = dict(self._shown().peers)
        for each in peers:
            have = known.pop(each.key, PeerState(key=each.key))
            if each.remove:
                continue
            given = {"endpoint": each.endpoint, "keepalive": each.keepalive}
            have = replace(have, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
            if each.allowed is not None:
                allowed = tuple(str(ip_network(text)) for text in each.allowed)
                for key, other in known.items():
                    known[key] = replace(other, allowed=tuple(a for a in other.allowed if a not in allowed))
                have = replace(have, allowed=allowed)
            known[each.key] = have
        self.machine.shown = replace(self._shown(), peers=known)

    async def route(self, addresses: Sequence[str], reached: Sequence[str], admitted: Sequence[str]) -> None:
        self._shown()
        self.machine.addresses, self.machine.reached = list(addresses), list(reached)
        self.machine.admitted = list(admitted)

    async def taken(self) -> list[tuple[str, str]]:
        return self.machine.taken

    async def closed(self, subnets: Sequence[str]) -> str:
        return self.machine.closed if subnets else ""

    async def remove(self) -> None:
        self._check()
        self.machine.shown = None
        self.machine.addresses, self.machine.reached, self.machine.admitted = [], [], []

    def shake(self, key: str, at: float) -> None:
        """Have a handshake with a peer at a Unix time."""
        shown = self._shown()
        peers = shown.peers | {key: replace(shown.peers[key], seen_at=at)}
        self.machine.shown = replace(shown, peers=peers)

    def _shown(self) -> Shown:
        self._check()
        if self.machine.shown is None:
            raise DeviceError("there is no interface")
        return self.machine.shown

    def _check(self) -> None:
        if self.machine.broken:
            raise DeviceError(self.machine.broken)


def public(private: str) -> str:
    return b64encode(hashlib.sha256(private.encode()).digest()).decode()
