"""The stores that every contract test runs against."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from federation.ports import LogStore, Store
from federation.store.database import open_store
from federation.store.logs import FileLogs
from tests.fakes.store import MemoryLogs, MemoryStore
from tests.postgres import postgres_server as postgres_server


class StoppedClock:
    """A clock that stands."""

    def now(self) -> float:
        return 1_000_000.0

    def monotonic(self) -> float:
        return 0.0


Reopen = Callable[[Store], Awaitable[Store]]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Store, Reopen]]:
    """An empty store, and the way to close it and open it again."""
    if request.param == "memory":
        memory = MemoryStore()

        async def restart(store: Store) -> Store:
            assert isinstance(store, MemoryStore)
            return store.restarted()

        yield memory, restart
        return
    url = f"sqlite:///{tmp_path}/atoll.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    stores = [await open_store(url, StoppedClock())]

    async def reopen(store: Store) -> Store:
        await store.close()
        stores.append(await open_store(url, StoppedClock()))
        return stores[-1]

    yield stores[0], reopen
    for store in stores:
        await store.close()


@pytest.fixture
async def store(opened: tuple[Store, Reopen]) -> Store:
    """An empty store of each kind."""
    return opened[0]


@pytest.fixture(params=["memory", "files"])
async def logs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogStore]:
    """An empty log store of each kind."""
    if request.param == "memory":
        yield MemoryLogs()
        return
    files = FileLogs(tmp_path / "logs")
    yield files
    await files.close()
