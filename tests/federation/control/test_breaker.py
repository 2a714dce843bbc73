"""Buckets and breakers as values: what they promise for any course of events."""

from hypothesis import given
from hypothesis import strategies as st

from federation.control.breaker import PROBE_S, Breaker, Bucket, Pauses

PAUSES = Pauses(after=3, first_s=10.0, longest_s=60.0)
unit = st.floats(0.0, 1.0)
gaps = st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60)


@given(gaps, st.floats(0.1, 10.0), st.integers(1, 10))
def test_no_more_calls_go_out_than_burst_and_rate_allow(steps: list[float], rate: float, burst: int) -> None:
    bucket, now, sent = Bucket.full(rate, burst, 0.0), 0.0, []
    for gap in steps:
        now += gap
        bucket, wait = bucket.take(now)
        sent.append(now + wait)
    assert sent == sorted(sent), "calls keep their order"
    for n, begin in enumerate(sent):
        for m, end in enumerate(sent[n:], start=1):
            assert m <= burst + rate * (end - begin) + 1e-6


@given(gaps)
def test_a_bucket_left_alone_is_full_again_and_never_fuller(steps: list[float]) -> None:
    bucket, now = Bucket.full(2.0, 3.0, 0.0), 0.0
    for gap in steps:
        now += gap
        bucket, _ = bucket.take(now)
    later = now + 1000.0
    waits = []
    for _ in range(4):
        bucket, wait = bucket.take(later)
        waits.append(wait)
    assert waits == [0.0, 0.0, 0.0, 0.5]


def test_a_clock_that_stands_still_or_steps_back_gives_no_tokens() -> None:
    bucket, _ = Bucket.full(1.0, 1.0, 100.0).take(100.0)
    bucket, wait = bucket.take(50.0)
    assert wait == 1.0
    assert bucket.at == 100.0


@given(st.integers(1, 8), unit)
def test_it_opens_at_the_failure_that_was_agreed_and_not_before(after: int, jitter: float) -> None:
    breaker, pauses = Breaker(), Pauses(after=after, first_s=10.0, longest_s=60.0)
    for _ in range(after - 1):
        breaker = breaker.failed(0.0, "no", pauses, jitter=jitter)
        assert breaker.wait(0.0) == 0.0
    breaker = breaker.failed(0.0, "no", pauses, jitter=jitter)
    assert breaker.until == jitter * 10.0
    assert breaker.why == "no"


@given(st.lists(unit, min_size=1, max_size=12))
def test_pauses_grow_to_their_longest_with_full_jitter(draws: list[float]) -> None:
    breaker, now, ceiling = Breaker(), 0.0, 0.0
    for n, jitter in enumerate(draws):
        breaker = breaker.failed(now, "no", Pauses(after=1, first_s=10.0, longest_s=60.0), jitter=jitter)
        ceiling = min(60.0, 10.0 * 2**n)
        assert breaker.until == now + jitter * ceiling
        now += jitter * ceiling
        assert breaker.wait(now) == 0.0
        breaker = breaker.called(now)
    assert breaker.ceiling == ceiling


@given(unit, st.floats(0.1, 1000.0))
def test_what_the_other_side_asks_for_is_kept_to(jitter: float, asked: float) -> None:
    pauses = Pauses(after=1, first_s=10.0, longest_s=60.0)
    breaker = Breaker().failed(5.0, "slow down", pauses, jitter=jitter, at_least=asked)
    assert breaker.wait(5.0) >= asked - 1e-9
    while_open = breaker.failed(5.0, "slow down", pauses, jitter=jitter, at_least=asked + 100.0)
    assert while_open.wait(5.0) >= asked + 100.0 - 1e-9


@given(st.integers(1, 50))
def test_failures_that_were_under_way_count_as_one(count: int) -> None:
    pauses = Pauses(after=1, first_s=10.0, longest_s=60.0)
    breaker = Breaker().failed(0.0, "no", pauses, jitter=1.0)
    for _ in range(count):
        breaker = breaker.failed(1.0, "no", pauses, jitter=1.0)
    assert (breaker.until, breaker.ceiling) == (10.0, 10.0)


def test_half_open_lets_one_through_and_its_outcome_decides() -> None:
    opened = Breaker().failed(0.0, "no", Pauses(after=1, first_s=10.0, longest_s=60.0), jitter=1.0)
    assert opened.wait(9.0) == 1.0
    probing = opened.called(10.0)
    assert probing.wait(10.0) == PROBE_S, "a second one waits for the first"
    assert probing.succeeded(10.5) == Breaker()
    again = probing.failed(10.5, "still no", PAUSES, jitter=1.0)
    assert again.until == 30.5
    assert probing.abandoned().wait(10.5) == 0.0


def test_a_success_that_began_before_it_opened_does_not_close_it() -> None:
    opened = Breaker().failed(0.0, "no", Pauses(after=1, first_s=10.0, longest_s=60.0), jitter=1.0)
    assert opened.succeeded(3.0) == opened


@given(st.lists(st.booleans(), max_size=40))
def test_only_failures_in_a_row_open_it(outcomes: list[bool]) -> None:
    breaker, row = Breaker(), 0
    for well in outcomes:
        breaker = breaker.succeeded(0.0) if well else breaker.failed(0.0, "no", PAUSES, jitter=1.0)
        row = 0 if well else row + 1
        if row >= 3:
            assert breaker.wait(0.0) == 10.0
            return
        assert breaker.wait(0.0) == 0.0
