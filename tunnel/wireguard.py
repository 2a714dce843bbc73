"""A WireGuard interface of this machine: the kernel's, else `wireguard-go`'s, driven by `wg` and `ip`.

Loaded by agents whose owner permits a mesh, and by no others.
"""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Protocol

from atoll.host.files import write_private

MTU = 1380
"""Bytes of an inner packet: fits where a path carries 1460 (the smallest of the large clouds) over IPv6."""
KEEPALIVE_S = 20
"""Below the 30 s after which common NATs forget a UDP flow."""
FRESH_S = 180.0
"""A handshake older than this carries nothing (WireGuard's REJECT_AFTER_TIME)."""
RULE = 5210
"""Priority of the routing rule that forwards nothing else; those that permit stand one before it."""
_COMMAND_S = 10.0
_NET_ADMIN = 12
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class DeviceError(OSError):
    """The interface could not be made or changed; the text says which command failed, and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerState:
    """A peer of the interface. `seen_at` is the Unix time of the last handshake, 0 before the first."""

    key: str
    endpoint: str = ""
    allowed: tuple[str, ...] = ()
    seen_at: float = 0.0
    received: int = 0
    sent: int = 0
    keepalive: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """The interface as it is: its public key, the UDP port, its peers by key."""

    key: str
    port: int
    peers: dict[str, PeerState]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """What is to be changed about a peer, which is added if it is not there; None leaves a part as it is."""

    key: str
    remove: bool = False
    endpoint: str | None = None
    allowed: tuple[str, ...] | None = None
    keepalive: int | None = None


class Device(Protocol):
    """One WireGuard interface. It outlives this process. Every method raises `DeviceError` where it fails."""

    async def make_key(self, path: Path) -> None:
        """Write a new private key to `path`, 0600."""
        ...

    async def public_key(self, path: Path) -> str:
        """Return the public key of the private one in `path`."""
        ...

    async def show(self) -> Shown | None:
        """Return the interface as it is, None where there is none."""
        ...

    async def up(self, port: int) -> None:
        """Make the interface unless it is there, listening on a UDP port (0: any); one that is there stays as it is."""
        ...

    async def use_key(self, path: Path) -> None:
        """Have the interface use the private key in `path`: all its peers shake hands anew."""
        ...

    async def change(self, peers: Sequence[PeerChange]) -> None:
        """Change peers, in this order. A network has one peer: given to another, the first loses it."""
        ...

    async def route(self, addresses: Sequence[str], reached: Sequence[str], admitted: Sequence[str]) -> None:
        """Have these addresses, routes to what is `reached`, and forward what comes in to `admitted` networks only."""
        ...

    async def taken(self) -> list[tuple[str, str]]:
        """Return `(interface, network)` of everything that this machine is itself a part of, but for this interface."""
        ...

    async def closed(self, subnets: Sequence[str]) -> str:
        """Return what keeps this machine from forwarding to these networks, "" where nothing does."""
        ...

    async def remove(self) -> None:
        """Remove the interface with its process, routes and rules; well if there is none."""
        ...


def unable() -> str:
    """Return why this process cannot make WireGuard interfaces here, "" where it can."""
    status = Path("/proc/self/status").read_text()
    caps = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if not caps >> _NET_ADMIN & 1:
        return "its agent has no CAP_NET_ADMIN: run it as root"
    for program, package in (("ip", "iproute2"), ("wg", "wireguard-tools")):
        if not shutil.which(program, path=_PATH):
            return f"`{program}` is not installed there (Debian: apt-get install {package})"
    modules = Path("/lib/modules", os.uname().release, "kernel/drivers/net/wireguard")
    if Path("/sys/module/wireguard").exists() or modules.exists():
        return ""
    if not shutil.which("wireguard-go", path=_PATH):
        return "its kernel has no WireGuard and `wireguard-go` is not installed there (Debian: wireguard-go)"
    return "" if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "/dev/net/tun cannot be used there"


class WgDevice:
    """A `Device` by name (at most 15 characters). `prefix` stands before every command (`ip netns exec NAME`)."""

    def __init__(self, name: str, *, prefix: Sequence[str] = ()) -> None:
        self.name = name
        self._prefix = tuple(prefix)

    async def make_key(self, path: Path) -> None:
        """Write a new private key to `path`, 0600."""
        write_private(path, await self._run("wg", "genkey"))

    async def public_key(self, path: Path) -> str:
        """Return the public key of the private one in `path`."""
        return (await self._run("wg", "pubkey", given=path.read_bytes())).strip()

    async def show(self) -> Shown | None:
        """Return the interface as it is, None where there is none."""
        if not await self._links():
            return None
        return parse(await self._run("wg", "show", self.name, "dump"))

    async def up(self, port: int) -> None:
        """Make the interface unless it is there; one that cannot be finished is removed again."""
        if await self._links():
            return
        await self._make()
        try:
            await self._run("wg", "set", self.name, "listen-port", str(port))
            await self._run("ip", "link", "set", self.name, "mtu", str(MTU), "up")
        except DeviceError:
            await self.remove()
            raise

    async def use_key(self, path: Path) -> None:
        """Have the interface use the private key in `path`."""
        await self._run("wg", "set", self.name, "private-key", str(path))

    async def change(self, peers: Sequence[PeerChange]) -> None:
        """Change peers, in this order."""
        words = [word for each in peers for word in _words(each)]
        if words:
            await self._run("wg", "set", self.name, *words)

    async def route(self, addresses: Sequence[str], reached: Sequence[str], admitted: Sequence[str]) -> None:
        """Have these addresses, routes and rules, and no others of this interface."""
        families = (4, 6) if _has_ipv6() else (4,)
        have = {text for link in await self._links() for text in _addresses(link)}
        want = {str(found) for found in map(ip_interface, addresses) if found.version in families}
        for text in sorted(have - want):
            await self._run("ip", "addr", "del", text, "dev", self.name)
        for text in sorted(want - have):
            await self._run("ip", "addr", "add", text, "dev", self.name)
        for family in families:
            await self._route(family, _of(family, reached))
            await self._admit(family, _of(family, admitted))

    async def remove(self) -> None:
        """Remove the interface with its process (which ends with it), routes and rules; well if there is none."""
        if await self._links():
            await self._run("ip", "link", "del", self.name)
        for family in (4, 6) if _has_ipv6() else (4,):
            for rule in await self._rules(family):
                await self._run("ip", f"-{family}", "rule", "del", *rule)

    async def taken(self) -> list[tuple[str, str]]:
        """Return `(interface, network)` of everything else that this machine is a part of."""
        links = json.loads(await self._run("ip", "-j", "addr", "show") or "[]")
        found = []
        for link in links:
            if link.get("ifname") != self.name:
                found += [(link["ifname"], str(ip_interface(text).network)) for text in _addresses(link, scope="")]
        return found

    async def closed(self, subnets: Sequence[str]) -> str:
        """Return what keeps this machine from forwarding to these networks, "" where nothing does."""
        return not_forwarding(subnets)

    async def _make(self) -> None:
        try:
            await self._run("ip", "link", "add", self.name, "type", "wireguard")
        except DeviceError as kernel:
            if not shutil.which("wireguard-go", path=_PATH):
                raise DeviceError(f"{kernel}, and wireguard-go is not installed") from kernel
            # It goes on in a process of its own until the interface is removed: also when this process ends.
            await self._run("wireguard-go", self.name)

    async def _links(self) -> list[dict[str, Any]]:
        found = json.loads(await self._run("ip", "-j", "addr", "show") or "[]")
        return [link for link in found if link.get("ifname") == self.name]

    async def _route(self, family: int, reached: Sequence[str]) -> None:
        told = json.loads(await self._run("ip", "-j", f"-{family}", "route", "show", "dev", self.name) or "[]")
        # The kernel's own are those to the interface's addresses.
        have = {str(ip_network(each["dst"])) for each in told if each.get("protocol") != "kernel"}
        for text in sorted(have - set(reached)):
            await self._run("ip", f"-{family}", "route", "del", text, "dev", self.name)
        for text in sorted(set(reached) - have):
            await self._run("ip", f"-{family}", "route", "add", text, "dev", self.name)

    async def _admit(self, family: int, admitted: Sequence[str]) -> None:
        """Have the rules: what comes in goes to this machine itself, to `admitted` networks, and nowhere else."""
        want: list[tuple[str, ...]] = [
            (str(RULE - 1), "iif", self.name, "to", text, "lookup", "main") for text in admitted
        ]
        want.append((str(RULE), "iif", self.name, "prohibit"))
        have: list[tuple[str, ...]] = [("priority", *words) for words in want]
        there = await self._rules(family)
        for rule in there:
            if rule not in have:
                await self._run("ip", f"-{family}", "rule", "del", *rule)
        for rule in reversed(have):
            if rule not in there:
                await self._run("ip", f"-{family}", "rule", "add", *rule)

    async def _rules(self, family: int) -> list[tuple[str, ...]]:
        """Return the rules of this interface, each in the words that make it."""
        told = json.loads(await self._run("ip", "-j", f"-{family}", "rule", "show") or "[]")
        found: list[tuple[str, ...]] = []
        for rule in told:
            if rule.get("iif") != self.name:
                continue
            words: tuple[str, ...] = ("priority", str(rule["priority"]), "iif", self.name)
            if "dst" in rule:
                length = rule.get("dstlen", ip_address(rule["dst"]).max_prefixlen)
                words = (*words, "to", f"{rule['dst']}/{length}", "lookup", str(rule["table"]))
            else:
                words = (*words, str(rule.get("action", "prohibit")))
            found.append(words)
        return found

    async def _run(self, *words: str, given: bytes | None = None) -> str:
        """Run a command; return what it printed. Raises `DeviceError` with what it said."""
        shown = " ".join(words)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._prefix,
                *words,
                stdin=asyncio.subprocess.PIPE if given is not None else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL if words[0] == "wireguard-go" else asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL if words[0] == "wireguard-go" else asyncio.subprocess.PIPE,
                cwd="/",
                env={"PATH": _PATH, "LOG_LEVEL": "silent", "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"`{shown}` could not be started: {error}") from error
        try:
            async with asyncio.timeout(_COMMAND_S):
                output, said = await process.communicate(given)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise DeviceError(f"`{shown}` did not end within {_COMMAND_S:g} s") from None
        if process.returncode:
            last = (said or b"").decode(errors="replace").strip().splitlines()
            raise DeviceError(f"`{shown}` failed: {last[-1] if last else f'it ended with {process.returncode}'}")
        return (output or b"").decode()


def not_forwarding(subnets: Sequence[str], root: Path = Path("/proc/sys/net")) -> str:
    """Return what keeps this machine from forwarding to its site's subnets, "" where nothing does."""
    names = {4: ("ipv4", "ip_forward"), 6: ("ipv6", "conf/all/forwarding")}
    for family in sorted({ip_network(each).version for each in subnets}):
        folder, name = names[family]
        with contextlib.suppress(OSError):
            if (root / folder / name).read_text().strip() == "0":
                return f"this machine forwards nothing: net.{folder}.{name.replace('/', '.')} is 0"
    return ""


def parse(dump: str) -> Shown:
    """Return what `wg show INTERFACE dump` says: a line of the interface, one of each peer. Pure."""
    lines = [line.split("\t") for line in dump.splitlines()]
    _private, public, port, _mark = lines[0]
    peers = {}
    for key, _shared, endpoint, allowed, seen, received, sent, keepalive in lines[1:]:
        peers[key] = PeerState(
            key=key,
            endpoint="" if endpoint == "(none)" else endpoint,
            allowed=() if allowed == "(none)" else tuple(allowed.split(",")),
            seen_at=float(seen),
            received=int(received),
            sent=int(sent),
            keepalive=0 if keepalive == "off" else int(keepalive),
        )
    return Shown("" if public == "(none)" else public, int(port), peers)


def _words(each: PeerChange) -> list[str]:
    if each.remove:
        return ["peer", each.key, "remove"]
    words = ["peer", each.key]
    words += ["endpoint", each.endpoint] if each.endpoint else []
    words += ["persistent-keepalive", str(each.keepalive)] if each.keepalive is not None else []
    words += ["allowed-ips", ",".join(each.allowed)] if each.allowed is not None else []
    return words


def _addresses(link: dict[str, Any], scope: str = "global") -> list[str]:
    return [
        f"{each['local']}/{each['prefixlen']}"
        for each in link.get("addr_info", [])
        if "local" in each and scope in ("", each.get("scope"))
    ]


def _has_ipv6(root: Path = Path("/proc/sys/net/ipv6")) -> bool:
    """Say whether interfaces that are made here get IPv6: many containers have none."""
    with contextlib.suppress(OSError):
        return (root / "conf/default/disable_ipv6").read_text().strip() == "0"
    return False


def _of(family: int, networks: Sequence[str]) -> list[str]:
    return [str(found) for found in map(ip_network, networks) if found.version == family]
