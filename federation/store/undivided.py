"""Work that is never cut off in the middle."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def undivided(work: Coroutine[Any, Any, T]) -> T:
    """Do it to its end; who was cancelled meanwhile is cancelled then.

    A statement to SQLite runs in a thread. Cut off in the middle, its connection is thrown away while that thread still
    opens a transaction, and nobody is left to end that: the database stays locked.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # nobody else looks at it
        raise cancelled
    return task.result()
