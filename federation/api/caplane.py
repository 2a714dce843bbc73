"""The installation's CA as the API sees it: `federation.control.rotation.Rotation` fits."""

from typing import Protocol

from federation.control.rotation import CaStanding


class RotationPort(Protocol):
    """The CA and its rotation."""

    async def standing(self) -> CaStanding:
        """Return the CAs that are trusted, and who has yet to move."""
        ...

    async def rotate(self, by: str) -> CaStanding:
        """Begin to sign with a new one; raise `Conflict` while there are two."""
        ...

    async def retire(self, by: str, *, force: bool = False) -> CaStanding:
        """Trust the new one alone; raise `Conflict` where that locks agents out."""
        ...
