"""A mesh: the networks of two sites joined by WireGuard between one agent of each, and which addresses it may carry."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from atoll.errors import Invalid

Network: TypeAlias = IPv4Network | IPv6Network

PRIVATE = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
"""What a mesh may carry lies in one of these (RFC 1918, 6598, 4193): never a default route, loopback, link-local."""
METADATA = tuple(ip_network(text) for text in ("100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128"))
"""Addresses among those at which clouds tell machines their credentials; the others are link-local or public."""
_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")
_SITE_BITS = {4: 24, 6: 64}
"""Length of a site's prefix, by IP version."""


class MeshState(StrEnum):
    """How two sites are joined. Any state may follow any other: each is what was last seen."""

    PENDING = "pending"  # a gateway, its key or the first handshake is awaited
    UP = "up"  # bytes flow, and both gateways are connected to the control plane
    DEGRADED = "degraded"  # bytes flow, but something is wrong that will hurt later
    DOWN = "down"  # bytes do not flow


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One site of a mesh.

    `networks` are the prefixes that the installation gave the site, one of each IP version in use; `subnets` are the
    site's own that the other may reach.
    `agent` is its gateway ("" while there is none), `key` that one's public key since `keyed_at` (Unix seconds; 0: to
    be changed now), `next` the key that is to follow. `endpoint` is the address for UDP, `given` by its owner or else
    the one that the control plane sees.
    """

    site: str
    networks: tuple[str, ...]
    subnets: tuple[str, ...] = ()
    agent: str = ""
    key: str = ""
    next: str = ""
    keyed_at: float = 0.0
    endpoint: str = ""
    given: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """The gateway's own addresses in the mesh."""
        return tuple(str(ip_network(each)[1]) for each in self.networks)

    @property
    def reached(self) -> tuple[str, ...]:
        """Everything that lies behind this end."""
        return (*self.networks, *self.subnets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Two sites that are to be joined, in the order of their names, and how that stands since `since`."""

    name: str
    ends: tuple[End, End]
    state: MeshState = MeshState.PENDING
    message: str = ""
    hint: str = ""
    since: float = 0.0
    created_at: float = 0.0
    version: int = 0


def mesh_name(site: str, other: str) -> str:
    """Return the key of the mesh between two sites, whichever is named first; raise `Invalid` for one site."""
    if site == other:
        raise Invalid(f"a mesh joins two sites, not {site!r} with itself", hint="atoll mesh up SITE SITE")
    return "+".join(sorted((site, other)))


def base_network(text: str, installation: str = "") -> Network:
    """Return the range that sites' prefixes are cut from; raise `Invalid` for one that cannot be.

    With no `text` it is a ULA /48 of this installation's own (RFC 4193).
    """
    if text:
        found = _private(text)
        if _SITE_BITS[found.version] - found.prefixlen < 4:
            raise Invalid(f"{text} is too small for sites' prefixes", hint="as in 100.64.0.0/10 or fd12:3456:789a::/48")
        return found
    digest = hashlib.sha256(f"atoll mesh {installation}".encode()).digest()
    return IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48))


def site_network(base: Network, site: str, taken: Sequence[str]) -> str:
    """Return a prefix for a site: the first that is not `taken`, from where its name points."""
    bits = _SITE_BITS[base.version]
    count = 2 ** (bits - base.prefixlen)
    first = int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big") % count
    used = {ip_network(text) for text in taken}
    for step in range(count):
        number = (first + step) % count
        start = int(base.network_address) + (number << (base.max_prefixlen - bits))
        found = IPv4Network((start, bits)) if base.version == 4 else IPv6Network((start, bits))
        if found not in used and not _overlaps(found, METADATA):
            return str(found)
    raise Invalid(f"{base} has no prefix left for site {site!r}", hint="set a larger [mesh] network")


def check_subnet(text: str) -> str:
    """Return a network that a mesh may carry as it is written normally; raise `Invalid` saying why one may not."""
    found = _private(text)
    if hidden := _overlaps(found, METADATA):
        raise Invalid(f"{found} holds {hidden}, where a cloud tells its machines secrets", hint="name smaller networks")
    return str(found)


def _private(text: str) -> Network:
    try:
        found = ip_network(text)
    except ValueError as error:
        raise Invalid(f"{text!r} is not a network: {error}", hint="write it like 10.20.0.0/16") from None
    if not any(_within(found, each) for each in PRIVATE):
        private = " ".join(str(each) for each in PRIVATE)
        raise Invalid(f"a mesh carries private networks only, and {found} is not one", hint=f"within {private}")
    return found


def check_versions(subnets: Sequence[str], networks: Sequence[str]) -> None:
    """Raise `Invalid` for a subnet of an IP version in which sites have no prefixes: nobody there could answer."""
    versions = {ip_network(each).version for each in networks}
    for text in subnets:
        if (version := ip_network(text).version) not in versions:
            raise Invalid(
                f"{text} needs IPv{version} in the mesh", hint="set `[mesh] network4` for IPv4: 100.64.0.0/10"
            )


def check_apart(networks: Sequence[tuple[str, str]]) -> None:
    """Raise `Invalid` when networks of two of `(whose, network)` overlap: a packet must have one way to go."""
    known: list[tuple[str, Network]] = []
    for whose, text in networks:
        found = ip_network(text)
        for other, each in known:
            if other != whose and each.version == found.version and each.overlaps(found):
                raise Invalid(f"{found} of {whose} overlaps {each} of {other}", hint="join networks that differ")
        known.append((whose, found))


def check_key(text: str) -> str:
    """Return a WireGuard public key unchanged; raise `Invalid` for what is none."""
    if not _KEY.fullmatch(text):
        raise Invalid(f"{text!r} is no WireGuard key")
    return text


def check_endpoint(text: str) -> tuple[str, int]:
    """Return host and port of where a gateway is reached by UDP; raise `Invalid` for what cannot be one."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Invalid(f"{text!r} is not HOST:PORT", hint="write it like site-a.example.com:51820")
    if "/" in host or " " in host or len(host) > 253:
        raise Invalid(f"{host!r} is no host name or address", hint="write it like site-a.example.com:51820")
    try:
        address = ip_address(host)
    except ValueError:
        return host, int(port)
    check_address(address)
    return host, int(port)


def check_address(address: IPv4Address | IPv6Address) -> None:
    """Raise `Invalid` for an address at which no gateway can be."""
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback or mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified or mapped.is_reserved:
        raise Invalid(f"no gateway can be at {address}", hint="give the address that others reach it by")
    if any(mapped in each for each in METADATA if each.version == mapped.version):
        raise Invalid(f"{address} is a cloud's metadata service", hint="give the address that others reach it by")


def endpoint(host: str, port: int) -> str:
    """Return `HOST:PORT`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def covered(network: str, by: Sequence[str]) -> bool:
    """Say whether a network lies within one of others."""
    found = ip_network(network)
    return any(_within(found, ip_network(each)) for each in by)


def _within(found: Network, outer: Network) -> bool:
    if isinstance(found, IPv4Network):
        return isinstance(outer, IPv4Network) and found.subnet_of(outer)
    return isinstance(outer, IPv6Network) and found.subnet_of(outer)


def _overlaps(found: Network, others: Sequence[Network]) -> Network | None:
    return next((each for each in others if each.version == found.version and each.overlaps(found)), None)
