"""Relays as the API sees them: `federation.control.relays.Relays` fits."""

from collections.abc import Sequence
from typing import Protocol

from atoll.relay import Relay
from tunnel.wire import Serving


class EnrolledPort(Protocol):
    """What enrolling returns."""

    @property
    def relay(self) -> Relay:
        """The relay."""
        ...

    @property
    def certificate(self) -> str:
        """Its certificate, PEM."""
        ...


class RelaysPort(Protocol):
    """Use cases of relays; `ref` is a name or an id."""

    async def list(self) -> Sequence[Relay]:
        """Return all, oldest first."""
        ...

    async def get(self, ref: str) -> Relay:
        """Return one, or raise `NotFound`."""
        ...

    def live(self, relay: str) -> Serving | None:
        """Return what a relay last said of itself, or None while it is not connected."""
        ...

    def rtt(self, relay: str) -> float | None:
        """Return the round trip over a relay's link, in seconds; None while there is none."""
        ...

    async def create(self, name: str, url: str, *, ttl_s: float, owner: str) -> tuple[Relay, str]:
        """Return the row and its token's secret, or raise `Conflict`."""
        ...

    async def enrol(self, secret: str, csr: str) -> EnrolledPort:
        """Use up a relay's token."""
        ...

    async def drain(self, ref: str, *, deadline_s: float, by: str) -> Relay:
        """Let one end within so many seconds."""
        ...

    async def remove(self, ref: str, *, by: str) -> Relay:
        """Take one out of the installation."""
        ...
