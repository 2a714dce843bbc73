"""Databases for the tests of the store in SQL."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.postgres import postgres_server as postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_server").new_database())
    return f"sqlite:///{tmp_path}/atoll.db"


@pytest.fixture(autouse=True)
async def _threads_end() -> AsyncIterator[None]:
    """Let the SQLite driver's threads end while their loop lives: a connection that failed closes behind our back."""
    yield
    for _ in range(200):
        if not any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            return
        await asyncio.sleep(0.01)
