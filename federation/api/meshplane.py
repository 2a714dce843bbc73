"""Meshes as the API sees them: `federation.control.mesh.Meshes` fits."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from federation.control.mesh import Standing


class MeshesPort(Protocol):
    """Meshes. All raise `NotFound` with a hint for a mesh or site that is not there."""

    async def list(self) -> "list[Standing]":
        """Return how all are."""
        ...

    async def get(self, site: str, other: str) -> Standing:
        """Return how one is."""
        ...

    async def up(self, site: str, other: str, subnets: Mapping[str, Sequence[str]], *, by: str) -> Standing:
        """Join two sites, or raise `Invalid`."""
        ...

    async def down(self, site: str, other: str, *, by: str) -> None:
        """Part two sites."""
        ...

    async def rotate(self, site: str, other: str, *, by: str) -> Standing:
        """Change the keys of both gateways."""
        ...
