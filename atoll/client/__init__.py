"""The typed SDK over the REST API: `Client` for scripts, `AsyncClient` for asyncio programs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.client.asynchronous import AsyncClient
    from atoll.client.synchronous import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from atoll.client.synchronous import Client

        return Client
    if name == "AsyncClient":
        from atoll.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module 'atoll.client' has no attribute {name!r}")
