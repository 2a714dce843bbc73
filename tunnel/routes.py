"""The routes that streams take at a port: agents' data connections and users' doors, bare ones where that can be."""

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tunnel import wire
from tunnel.acceptor import Route
from tunnel.passthrough import POSSIBLE
from tunnel.veil import Veil

if TYPE_CHECKING:
    from tunnel.relay import Relay

Contexts: TypeAlias = Callable[[str], ssl.SSLContext]
"""Makes the server's TLS context for one ALPN protocol; it asks for no client certificate."""


def data_routes(context: Contexts, relay: "Relay") -> dict[str, Route]:
    """Return where agents' data connections to a relay go, by ALPN protocol."""
    routes = {wire.ALPN_DATA: Route(context(wire.ALPN_DATA), relay.accept)}
    if POSSIBLE:
        bare = context(wire.ALPN_DATA_SPLICE)
        routes[wire.ALPN_DATA_SPLICE] = Route(bare, relay.accept_spliced, end=Veil)
    return routes


def user_routes(
    context: Contexts, accept: Callable[[], asyncio.Protocol], *, bare: bool = POSSIBLE
) -> dict[str, Route]:
    """Return where users' streams come in, by ALPN protocol: to what a door's `accept` makes; some may go `bare`."""
    routes = {wire.ALPN_USER: Route(context(wire.ALPN_USER), accept)}
    if bare:
        routes[wire.ALPN_USER_SPLICE] = Route(context(wire.ALPN_USER_SPLICE), accept, end=Veil)
    return routes
