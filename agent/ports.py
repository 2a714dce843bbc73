"""What an agent's shell needs of its machine besides a runtime: notices, certificates, a gateway of meshes."""

from collections.abc import Callable
from typing import Protocol

from tunnel import wire


class Notices(Protocol):
    """Where a machine learns that it will be taken away."""

    def check(self) -> tuple[float, str] | None:
        """Return `(seconds left, message)` once there is a notice, else None."""
        ...


class Renewal(Protocol):
    """How an agent's certificate is kept valid."""

    def due_in(self) -> float:
        """Return the seconds until half of the certificate's life is over; negative when it is."""
        ...

    def ended(self) -> bool:
        """Say whether the certificate has ended: no link can be made with it."""
        ...

    async def restore(self) -> None:
        """Get a new one for an ended certificate. Raises `OSError`."""
        ...

    async def request(self) -> str:
        """Return a certificate request (PEM). Raises `OSError`."""
        ...

    def install(self, certificate: str) -> None:
        """Use a new certificate (PEM) from the next dial on. Raises `OSError` or `AtollError`."""
        ...

    def authorities(self) -> list[str]:
        """Return the CAs that are trusted (SHA-256 in hex). Raises `OSError` or `AtollError`."""
        ...

    def trust(self, ca: str) -> None:
        """Trust these CAs (PEM), and no others, from the next dial on. Raises `OSError` or `AtollError`."""
        ...


class MeshGateway(Protocol):
    """This machine as a gateway of meshes; it is there only where its owner permits that, or did."""

    async def run(self) -> None:
        """Keep its interface as it is wanted, until cancelled."""
        ...

    def linked(self, send: Callable[[wire.Message], None], control: str, /) -> None:
        """The control plane takes messages by `send`, over a link that goes to the address `control`."""
        ...

    def wanted(self, message: wire.MeshWanted, /) -> None:
        """Take what is wanted from now on."""
        ...

    async def close(self, *, keep: bool) -> None:
        """End; without `keep` the interface goes too."""
        ...
