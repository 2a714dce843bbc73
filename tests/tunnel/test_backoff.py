"""Waits between dials."""

import asyncio

import pytest

from tests.tunnel import virtual
from tests.tunnel.ends import SeededChance
from tunnel.backoff import FIRST_S, HURRY_S, LONGEST_S, Backoff


class Highest(SeededChance):
    """Always the most."""

    def uniform(self, low: float, high: float) -> float:
        return high


def test_the_ceiling_doubles_up_to_the_longest() -> None:
    backoff = Backoff(Highest())
    assert [backoff.next() for _ in range(10)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0]


def test_full_jitter() -> None:
    waits = []
    for seed in range(500):
        backoff = Backoff(SeededChance(seed))
        for _ in range(12):
            wait = backoff.next()
            assert 0 <= wait <= LONGEST_S
        waits.append(wait)
    assert min(waits) < 1
    assert max(waits) > LONGEST_S - 1


def test_only_a_stable_link_starts_anew() -> None:
    backoff = Backoff(Highest())
    for _ in range(9):
        backoff.next()
    backoff.succeeded_for(LONGEST_S - 0.1)
    assert backoff.next() == LONGEST_S
    backoff.succeeded_for(LONGEST_S)
    assert backoff.next() == FIRST_S


def test_retry_after_is_a_floor_for_one_wait() -> None:
    backoff = Backoff(SeededChance())
    backoff.retry_after(7)
    assert 7 <= backoff.next() <= 7 + FIRST_S
    assert backoff.next() <= 2 * FIRST_S


def paused(backoff: Backoff, awaited_after: float | None) -> float:
    """Return how long a pause takes whose dial is awaited from so many seconds on."""

    async def story() -> float:
        loop, awaited = asyncio.get_running_loop(), asyncio.Event()
        if awaited_after is not None:
            loop.call_later(awaited_after, awaited.set)
        began = loop.time()
        await backoff.pause(awaited)
        return loop.time() - began

    return virtual.run(story())


def slowed() -> Backoff:
    backoff = Backoff(Highest())
    while backoff.next() < LONGEST_S:
        pass
    return backoff


def test_a_dial_that_nobody_awaits_takes_its_time() -> None:
    assert paused(slowed(), None) == pytest.approx(LONGEST_S, abs=0.01)


def test_one_that_is_awaited_hurries_from_then_on() -> None:
    assert paused(slowed(), 0.0) == pytest.approx(HURRY_S, abs=0.01)
    assert paused(slowed(), 3.0) == pytest.approx(3.0 + HURRY_S, abs=0.01)


def test_it_never_waits_longer_for_that() -> None:
    assert paused(Backoff(Highest()), 0.0) == pytest.approx(FIRST_S, abs=0.01)
    assert paused(slowed(), LONGEST_S - 0.1) == pytest.approx(LONGEST_S, abs=0.01)


def test_those_who_hurry_are_spread_all_the_same() -> None:
    waits = []
    for seed in range(200):
        backoff = Backoff(SeededChance(seed))
        for _ in range(12):
            backoff.next()
        waits.append(paused(backoff, 0.0))
    assert max(waits) <= HURRY_S + 0.01
    assert max(waits) - min(waits) > 0.8 * HURRY_S


def test_who_asked_for_time_gets_it_in_a_hurry_too() -> None:
    backoff = slowed()
    backoff.retry_after(7)
    assert paused(backoff, 0.0) == pytest.approx(7 + HURRY_S, abs=0.01)
