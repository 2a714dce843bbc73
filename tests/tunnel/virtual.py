"""A loop whose clock jumps to the next timer instead of waiting: hours in milliseconds, no real time read."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _JumpingSelector(selectors.SelectSelector):
    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is scheduled: the test waits for ever"
        # A hair more than asked, so that rounding never leaves a timer just ahead.
        self.now += timeout + 1e-9 if timeout > 0 else 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """The stock loop on a jumping clock."""

    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run on a fresh virtual loop; an exception in any callback fails."""
    loop = VirtualLoop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        result = loop.run_until_complete(main)
        assert failures == []
        return result
    finally:
        loop.close()
