"""Waiting for a condition with a deadline, for tests of real processes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSES_S = (0.05, 0.5)
"""The shortest and the longest pause between two looks: a look may be a whole command, and others work beside it."""


def until(condition: Callable[[], T], what: str, *, within: float = 60.0, story: Callable[[], str] | None = None) -> T:
    """Call `condition` until it is true and return what it said; fail with `what` and `story` after `within` s.

    It is called less often the longer it takes: after each fifth of the time that has passed.
    """
    shortest, longest = PAUSES_S
    began = time.monotonic()
    while True:
        answer = condition()
        if answer:
            return answer
        passed = time.monotonic() - began
        if passed > within:
            raise AssertionError(f"not within {within:g} s: {what}" + (f"\n{story()}" if story else ""))
        time.sleep(min(max(passed / 5, shortest), longest))
