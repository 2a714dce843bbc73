"""Waiting for slow clouds, but not for long: nobody else is held up by one (L2)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog

log = structlog.get_logger("control")


class Patience:
    """Runs one piece of work a key at a time, and waits for it `seconds` at most.

    What is not done by then goes on behind the caller's back; `on_late` is called once it is done.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._late: set[str] = set()
        self.on_late: Callable[[], None] = lambda: None

    async def wait(self, works: Mapping[str, Callable[[], Awaitable[None]]]) -> set[str]:
        """Begin each work whose key has none under way; return the keys that are not done in time."""
        for key in sorted(works):
            if key not in self._tasks:
                self._tasks[key] = task = asyncio.get_running_loop().create_task(
                    _quiet(key, works[key]), name=f"ask {key}"
                )
                task.add_done_callback(partial(self._arrived, key))
        asked = {key: self._tasks[key] for key in works}
        if asked:
            await asyncio.wait(asked.values(), timeout=self._seconds)
        late = {key for key, task in asked.items() if not task.done()}
        self._late |= late
        return late

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _arrived(self, key: str, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
            if key in self._late:
                self._late.discard(key)
                self.on_late()


async def _quiet(key: str, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception as error:  # a task's boundary: nobody may be waiting any more
        log.error("a provider could not be looked at", provider=key, error=repr(error), exc_info=True)
