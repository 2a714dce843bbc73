"""What a gateway checks before it does as it is told, and what then changes about its peers."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from agent.meshpermit import Permit
from atoll.errors import Forbidden, Invalid
from atoll.mesh import check_address, check_apart, check_endpoint, check_key, check_subnet, covered, endpoint
from tunnel import wire
from tunnel.wireguard import KEEPALIVE_S, PeerChange, PeerState

_RESOLVE_S = 5.0


def check(wanted: wire.MeshWanted, permit: Permit) -> None:
    """Raise `Invalid` or `Forbidden` unless this may be done here, whoever asks for it."""
    for peer in wanted.peers:
        for key in peer.keys:
            check_key(key)
        if peer.endpoint and (around := _within(check_endpoint(peer.endpoint)[0], peer.allowed)):
            raise Invalid(f"the endpoint {peer.endpoint} of site {peer.site} lies in its own {around}")
    keys = [key for peer in wanted.peers for key in peer.keys]
    if len(set(keys)) < len(keys):
        raise Invalid("two sites cannot have the same key")
    for subnet in wanted.subnets:
        if not covered(check_subnet(subnet), permit.subnets):
            raise Forbidden(f"this machine's owner does not permit {subnet} to be reached through it")
    for network in (*wanted.addresses, *(each for peer in wanted.peers for each in peer.allowed)):
        check_subnet(network)
    behind = [(f"site {peer.site}", network) for peer in wanted.peers for network in peer.allowed]
    check_apart([*(("this gateway", each) for each in (*wanted.addresses, *wanted.subnets)), *behind])


def _within(host: str, networks: Sequence[str]) -> str:
    with contextlib.suppress(ValueError):
        address = ip_address(host)
        return next((text for text in networks if address in ip_network(text, strict=False)), "")
    return ""


def check_here(wanted: wire.MeshWanted, taken: Sequence[tuple[str, str]]) -> None:
    """Raise `Invalid` where a peer's networks would take from this machine what it reaches by itself."""
    for peer in wanted.peers:
        for network in map(ip_network, peer.allowed):
            for whose, text in taken:
                other = ip_network(text)
                if other.version == network.version and other.overlaps(network):
                    raise Invalid(f"{network} of site {peer.site} overlaps {other} of this machine ({whose})")


def changes(
    peers: Sequence[wire.MeshPeer], shown: Mapping[str, PeerState], endpoints: Mapping[str, str]
) -> list[PeerChange]:
    """Return what makes the shown peers the wanted ones.

    Of a peer's keys the one that shook hands last has its networks; one that is to follow is only known, and sends
    nothing: WireGuard would not try again for 5 s when the other end is not there yet.
    """
    made = []
    for peer in peers:
        active = max(peer.keys, key=lambda key: shown[key].seen_at if key in shown else 0.0)
        seen = next((shown[key].endpoint for key in peer.keys if key in shown and shown[key].endpoint), "")
        for key in peer.keys:
            have = shown.get(key, PeerState(key=key))
            to = endpoints.get(peer.site, "" if key in shown else seen)
            allowed = tuple(str(ip_network(each)) for each in peer.allowed) if key == active else ()
            keepalive = KEEPALIVE_S if key == active else 0
            change = PeerChange(
                key=key,
                endpoint=to if to and to != have.endpoint else None,
                allowed=allowed if set(allowed) != set(have.allowed) else None,
                keepalive=keepalive if keepalive != have.keepalive else None,
            )
            if key not in shown or change != PeerChange(key=key):
                made.append(change)
    known = {key for peer in peers for key in peer.keys}
    return [*made, *(PeerChange(key=key, remove=True) for key in shown if key not in known)]


async def resolve(text: str) -> str:
    """Return an endpoint by address. Raises `OSError`, or `Invalid` for one at which no gateway can be."""
    host, port = check_endpoint(text)
    with contextlib.suppress(ValueError):
        return endpoint(str(ip_address(host)), port)
    async with asyncio.timeout(_RESOLVE_S):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    address = found[0][4][0]
    check_address(ip_address(address))
    return endpoint(str(address), port)
