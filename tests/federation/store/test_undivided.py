"""Cancelled work on the database comes to its end first: no connection is thrown away with a transaction open."""

import asyncio
import random
from pathlib import Path

import pytest
from sqlalchemy import event

from atoll.host.system import SystemClock
from atoll.site import Site
from federation.store.database import SqlStore, open_store
from federation.store.undivided import undivided


async def test_who_is_cancelled_waits_for_the_end() -> None:
    begun, go, done = asyncio.Event(), asyncio.Event(), []

    async def work() -> int:
        begun.set()
        await go.wait()
        done.append(True)
        return 7

    task = asyncio.create_task(undivided(work()))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]
    assert await undivided(work()) == 7


async def test_an_error_passes() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await undivided(work())


async def test_cancelled_transactions_cost_no_connections(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path / 'a.db'}", SystemClock())
    assert isinstance(store, SqlStore)
    made: list[object] = []
    event.listen(store._engine.sync_engine, "connect", lambda *_: made.append(1))
    chance = random.Random(1)

    async def look() -> None:
        async with store.transaction() as tx:
            await tx.get(Site, "x")
        await store.last_rev()

    for _ in range(100):
        tasks = [asyncio.create_task(look()) for _ in range(4)]
        for _ in range(3):
            await asyncio.sleep(chance.random() * 0.001)
            for task in tasks:
                if chance.random() < 0.5:
                    task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(made) <= 5  # as many as are used at a time, and no more for those that were cut off
    await store.close()
