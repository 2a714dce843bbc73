"""What one address may do before it has shown who it is: connections a second, and how many at a time. Pure.

Behind one address there may be a whole site: the caps are generous, and keep one from using up what is for all.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_PREFIX = 64
"""Of IPv6 a whole network of this length is one source: its owner has all of it."""


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """For each source: `rate` connections a second after a `burst`, so many `handshakes` and `connections` at a time.

    At most `sources` are remembered; of more, those are forgotten that were longest quiet and hold nothing.
    """

    rate: float = 200.0
    burst: float = 2000.0
    handshakes: int = 192
    connections: int = 4096
    sources: int = 20_000


@dataclass(slots=True)
class _Source:
    left: float
    at: float
    handshakes: int = 0
    connections: int = 0


class Sources:
    """Counts by source, which `name` tells of an address ("": not counted). `now` is in seconds, monotonic."""

    def __init__(
        self,
        now: Callable[[], float],
        limits: SourceLimits | None = None,
        name: Callable[[str], str] | None = None,
    ) -> None:
        self.limits = limits or SourceLimits()
        self._now = now
        self._name = name or source_of
        self._known: OrderedDict[str, _Source] = OrderedDict()

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._known)

    def came(self, address: str) -> str:
        """A connection was accepted: return "" and count its handshake, or why it is to be closed."""
        source = self._source(address)
        if source is None:
            return ""
        now = self._now()
        source.left = min(self.limits.burst, source.left + (now - source.at) * self.limits.rate)
        source.at = now
        if source.left < 1:
            return "source_rate"
        if source.handshakes >= self.limits.handshakes:
            return "source_handshakes"
        source.left -= 1
        source.handshakes += 1
        return ""

    def settled(self, address: str) -> None:
        """The handshake of a connection that came is over, well or not."""
        if source := self._source(address):
            source.handshakes -= 1

    def took(self, address: str) -> str:
        """Somebody unknown is to be served: return "" and count the connection, or why not."""
        source = self._source(address)
        if source is None:
            return ""
        if source.connections >= self.limits.connections:
            return "source_connections"
        source.connections += 1
        return ""

    def left(self, address: str) -> None:
        """A connection that was counted is over."""
        if source := self._source(address):
            source.connections -= 1

    def _source(self, address: str) -> _Source | None:
        name = self._name(address)
        if not name:
            return None
        source = self._known.get(name)
        if source is None:
            self._forget()
            source = self._known[name] = _Source(self.limits.burst, self._now())
        self._known.move_to_end(name)
        return source

    def _forget(self) -> None:
        """Make room for one more: a source that holds something stays."""
        for name, source in list(self._known.items()) if len(self._known) >= self.limits.sources else ():
            if not (source.handshakes or source.connections):
                del self._known[name]
                return


def source_of(address: str) -> str:
    """Return what counts as one source with an address: itself, of IPv6 its network; "" for this machine's own."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_loopback:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((ip, _PREFIX), strict=False))
    return str(ip)
