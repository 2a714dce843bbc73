"""Blocking SDKs on threads of their own: a slow cloud holds up nobody but itself."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from providers.errors import Unknown

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """A few threads for the calls of one provider (L2).

    A call that takes longer than its time is given up with `Unknown`: whether it happened is not known.
    Its thread is busy until the SDK's own timeout, so SDK timeouts must be shorter than `timeout`.
    """

    def __init__(self, name: str, *, workers: int = 8, timeout: float = 60.0) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"provider-{name}")
        self._name = name
        self._timeout = timeout

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking call; raise what it raises, or `Unknown` after the time limit."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._pool, partial(call, *args, **kwargs))
        try:
            return await asyncio.wait_for(asyncio.shield(work), self._timeout)
        except TimeoutError as error:
            work.add_done_callback(_forget)
            raise Unknown(f"{self._name} did not answer within {self._timeout:.0f} s") from error

    def close(self) -> None:
        """Let idle threads end; calls in flight end by their own timeouts."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _forget(work: "asyncio.Future[R]") -> None:
    if not work.cancelled():
        work.exception()  # nobody waits for it any more
