"""A control plane over real SQLite that dies at a named step: nothing it does afterwards reaches the disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from atoll.errors import AtollError, Unavailable
from atoll.event import Event
from federation.control.steps import Steps
from federation.ports import Store, Transaction
from federation.store.database import open_store
from tests.federation.control.test_rotation import Hall
from tunnel.identity import Authority

Act: TypeAlias = Callable[[], Awaitable[object]]


class Killed(asyncio.CancelledError):
    """What SIGKILL is to a process: its tasks end, and nobody hears why."""


class MortalStore:
    """A store that serves its process until that is dead."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.dead = False

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        self._check()
        return self._store.transaction()

    async def events(self, since: int, limit: int = 500, kinds: Sequence[str] = ()) -> list[Event]:
        self._check()
        return await self._store.events(since, limit, kinds)

    async def last_rev(self) -> int:
        self._check()
        return await self._store.last_rev()

    async def close(self) -> None:
        self.dead = True
        await self._store.close()

    def _check(self) -> None:
        if self.dead:
            raise Unavailable("this process is dead")


class Lives(Hall):
    """One installation and the lives of its control plane, one after the other."""

    mortal: MortalStore

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._point = ""
        self._died = asyncio.Event()
        self.steps = Steps(self._hook)

    def _hook(self, when: str, step: str) -> None:
        if self.mortal.dead:
            raise Killed
        if self._point == f"{when}:{step}":
            self.mortal.dead = True
            self._died.set()
            raise Killed

    async def begin(self) -> None:
        """Start a control plane over what is on the disk."""
        self.authority = Authority.load_or_create(self.folder / "keys", now=self.clock.now())
        self.config = replace(self.config, authority=self.authority)
        self.mortal = MortalStore(await open_store(f"sqlite:///{self.folder}/atoll.db", self.clock))
        self.store = self.mortal  # type: ignore[assignment]
        self.control = self._new()
        await self.start()

    async def end(self) -> None:
        """End this life, if it did not end before; agents and relays see their links go."""
        self.mortal.dead = True
        await self.control.stop()
        await self.mortal.close()

    async def killed(self, point: str, act: Act) -> None:
        """Do what leads to `point`, die there, and live again."""
        self._point = point
        self._died.clear()
        doing = asyncio.ensure_future(act())
        try:
            async with asyncio.timeout(10):
                await self._died.wait()
        except TimeoutError:
            raise AssertionError(f"{point} was never reached") from None
        finally:
            self._point = ""
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
        await self.end()
        await self.begin()

    async def sweep(self, step: str, act: Act, see: Act, *, again: type[AtollError] | None = None) -> None:
        """Die before and after `step`: it is undone or done, never half, and doing it again is well.

        `see` is what readers see of it. Who does again what is done hears `again`; None: it is done, and no more of it.
        """
        first = await see()
        await self.killed(f"before:{step}", act)
        assert await see() == first, f"half of {step}"
        await self.killed(f"after:{step}", act)
        done = await see()
        assert done != first, f"{step} is lost"
        if again is None:
            await act()
        else:
            with pytest.raises(again):
                await act()
        assert await see() == done, f"{step} is doubled"


@asynccontextmanager
async def lives(folder: Path) -> AsyncIterator[Lives]:
    """An installation in its first life; ended at the end."""
    made = Lives(folder)
    await made.begin()
    try:
        yield made
    finally:
        await made.close()
        await made.mortal.close()
