"""Waits between dials."""

from tests.tunnel.ends import SeededChance
from tunnel.backoff import FIRST_S, LONGEST_S, Backoff


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
