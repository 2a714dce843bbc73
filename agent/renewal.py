"""Renewing the agent's certificate at half of its life, with the same key and next to no memory."""

from pathlib import Path

from atoll.clock import Clock
from atoll.host.child import output_of
from tunnel.identity import AgentIdentity


class IdentityRenewal:
    """Renews the identity kept in `directory`. The request is made by a short-lived process.

    That process loads the cryptography library, which would weigh on this one for ever.
    """

    def __init__(self, identity: AgentIdentity, directory: Path, clock: Clock) -> None:
        self._identity = identity
        self._directory = directory
        self._clock = clock

    def due_in(self) -> float:
        """Return the seconds until half of the certificate's life is over."""
        half = (self._identity.issued_at + self._identity.expires_at) / 2
        return half - self._clock.now()

    def ended(self) -> bool:
        """Say whether the certificate has ended, so that no link can be made with it."""
        return self._identity.expires_at <= self._clock.now()

    async def restore(self) -> None:
        """Get a new certificate with the key alone, after the last one has ended. Raises `OSError`."""
        self.install(await self._ask("renew"))

    async def request(self) -> str:
        """Return a certificate request (PEM). Raises `OSError`."""
        return await self._ask("csr")

    async def _ask(self, verb: str) -> str:
        return await output_of("agent", verb, "--home", str(self._directory))

    def authorities(self) -> list[str]:
        """Return the CAs that are trusted (SHA-256 in hex). Raises `OSError` or `Invalid`."""
        return self._identity.authorities

    def trust(self, ca: str) -> None:
        """Trust these CAs (PEM), and no others, from the next dial on. Raises `OSError` or `Invalid`."""
        self._identity.trust(ca)

    def install(self, certificate: str) -> None:
        """Use a new certificate (PEM) from the next dial on. Raises `OSError` or `Invalid`."""
        self._identity.renew(certificate)
