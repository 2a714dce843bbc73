"""The ground every room stands on: Atoll's nouns and rules, and the client's side.

`from atoll import Client` gives the SDK; importing a noun loads nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name in {"AsyncClient", "Client"}:
        from atoll import client

        return getattr(client, name)
    raise AttributeError(f"module 'atoll' has no attribute {name!r}")
