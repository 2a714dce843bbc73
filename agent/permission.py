"""What the agent lets in: streams with a grant that it has checked itself, by the control plane's time."""

from atoll.clock import Clock
from tunnel import wire
from tunnel.grant import BadGrant, Grant, for_agent, permits


class Permission:
    """The key and the time of the last welcome. Before the first one nothing is let in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = b""
        self._ahead = 0.0
        self._needed = True

    def welcomed(self, welcome: wire.Welcome) -> None:
        """Take the control plane's word for the key and the time; one of an older protocol makes no grants."""
        self._needed = welcome.protocol >= wire.GRANTS
        self._key = welcome.grant_key
        self._ahead = welcome.now - self._clock.monotonic()

    def check(self, opening: wire.OpenStream) -> Grant | None:
        """Return the grant that permits this very stream now, None where none is needed; raise `BadGrant` without."""
        if not self._needed:
            return None
        if not self._key:
            raise BadGrant("the control plane has given this agent no key yet")
        grant = for_agent(opening.grant, self._key, self._clock.monotonic() + self._ahead)
        if not permits(grant, opening):
            raise BadGrant("the grant is for another stream")
        return grant
