"""What the API needs of the control plane to open and close apps."""

from typing import Protocol

from atoll.session import AppAccess, Session, SessionSpec


class SharingPort(Protocol):
    """Whom apps let in."""

    def check(self, spec: SessionSpec) -> None:
        """Raise `Forbidden` where a session asks for more than the installation allows."""
        ...

    async def share(self, project: str, ref: str, app: str, access: AppAccess, *, by: str) -> Session:
        """Change it."""
        ...
