"""The loop under the reconcilers: who hints gets a round soon, but rounds do not take all of the process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from federation.control.reconcile import REST, REST_MOST_S, Reconciler

VIRTUAL_TIME = True


@asynccontextmanager
async def running(work: Callable[[], Awaitable[float | None]], every: float = 60.0) -> AsyncIterator[Reconciler]:
    made = Reconciler("test", work, every=every)
    made.start()
    yield made
    await made.stop()


class Work:
    """Takes `seconds`, and notes when each round began."""

    def __init__(self, seconds: float, sooner: float | None = None) -> None:
        self.seconds = seconds
        self.sooner = sooner
        self.began: list[float] = []

    async def round(self) -> float | None:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        return self.sooner

    @property
    def pauses(self) -> list[float]:
        """From the end of one round to the begin of the next."""
        pairs = zip(self.began, self.began[1:], strict=False)
        return [later - before - self.seconds for before, later in pairs]


async def hint_for(made: Reconciler, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        made.hint()
        await asyncio.sleep(0.001)


async def test_a_hint_after_a_while_is_heard_at_once() -> None:
    work = Work(0.02)
    async with running(work.round) as made:
        await asyncio.sleep(1.0)
        made.hint()
        hinted = asyncio.get_running_loop().time()
        await asyncio.sleep(0.001)
        assert work.began[-1] == hinted


async def test_rounds_that_are_hinted_all_the_time_leave_three_quarters_to_others() -> None:
    work = Work(0.02)
    async with running(work.round) as made:
        await hint_for(made, 2.0)
    assert made.rounds >= 20
    assert min(work.pauses) == pytest.approx(REST * work.seconds)
    assert max(work.pauses) <= REST * work.seconds + 0.002  # and no hint is lost


async def test_a_round_that_waited_for_somebody_else_does_not_hold_up_the_next() -> None:
    work = Work(5.0)
    async with running(work.round) as made:
        await hint_for(made, 30.0)
    assert work.pauses == pytest.approx([REST_MOST_S] * len(work.pauses), abs=0.002)
    assert len(work.pauses) >= 4


async def test_a_round_that_asks_for_the_next_one_gets_it_in_time() -> None:
    work = Work(1.0, sooner=0.1)
    async with running(work.round):
        await asyncio.sleep(10.0)
    assert work.pauses == pytest.approx([0.1] * len(work.pauses))


async def test_a_round_that_fails_ends_alone() -> None:
    rounds = 0

    async def fail() -> None:
        nonlocal rounds
        rounds += 1
        raise RuntimeError("on purpose")

    async with running(fail, every=1.0) as made:
        await asyncio.sleep(3.5)
    assert rounds == made.rounds == made.failures == 4
    assert made.age is None
