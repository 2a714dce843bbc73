"""Waiting for a condition with a deadline, for tests of real processes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, *, within: float = 30.0, story: Callable[[], str] | None = None) -> T:
    """Call `condition` until it is true and return what it said; fail with `what` and `story` after `within` s."""
    end = time.monotonic() + within
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {what}" + (f"\n{story()}" if story else ""))
        time.sleep(0.05)
