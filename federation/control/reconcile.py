"""The loop under every reconciler: a hint or a timer wakes it; it takes no input and retries only by its next round."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger("control")

REST = 3.0
"""After a round hints wait for so many times as long as it took: rounds leave most of the process to others."""
REST_MOST_S = 0.25
"""But no longer than this: what takes long waits for others, for a cloud perhaps."""


class Reconciler:
    """Runs `work` again and again: at once when hinted, else every `every` seconds.

    `work` may return a shorter pause in seconds until its next round. An error in a round is logged with
    its name and ends that round only.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[float | None]], *, every: float) -> None:
        self.name = name
        self.rounds = 0
        self.failures = 0
        self._work = work
        self._every = every
        self._hint = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._done_at: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the last good round ended; None before the first."""
        return None if self._done_at is None else asyncio.get_running_loop().time() - self._done_at

    def hint(self) -> None:
        """Ask for a round soon; many hints make one round."""
        self._hint.set()

    def start(self) -> None:
        """Begin; the first round runs at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"reconcile {self.name}")

    async def stop(self) -> None:
        """End between rounds or at the next await; well if it never began."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            pause, began = self._every, loop.time()
            self._hint.clear()
            try:
                sooner = await self._work()
                pause = self._every if sooner is None else min(sooner, self._every)
                self._done_at = loop.time()
            except Exception as error:
                self.failures += 1
                log.error("round failed", reconciler=self.name, error=repr(error), exc_info=True)
            self.rounds += 1
            rest = min(REST * (loop.time() - began), REST_MOST_S, pause)
            await asyncio.sleep(rest)
            try:
                async with asyncio.timeout(pause - rest):
                    await self._hint.wait()
            except TimeoutError:
                continue
