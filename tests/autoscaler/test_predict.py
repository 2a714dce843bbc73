"""The hot pool's size from history."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from atoll.group import Pools
from atoll.money import HOUR
from autoscaler.pools import predict
from autoscaler.predict import WEEK_S, Arrivals, Habits, Ready, ready_slots, units
from tests.autoscaler.builders import group, request, shape, view

PRICE = 3600 * 30  # 30 micro-units a second


def test_as_many_as_come_often_enough_for_their_price() -> None:
    samples = [3] * 70 + [1] * 20 + [0] * 10
    # launched ahead while P >= 30 / (30 + w), kept while P >= 30 / (60 + w)
    assert ready_slots(samples, PRICE, wait_value=10) == Ready(1, 3)  # 0.75 and 0.43
    assert ready_slots(samples, PRICE, wait_value=30) == Ready(3, 3)  # 0.5
    assert ready_slots(samples, PRICE, wait_value=1) == Ready(0, 3)  # 0.97 and 0.49
    assert ready_slots(samples, PRICE, wait_value=0) == Ready(0, 3)
    assert ready_slots([0] * 55 + [2] * 45, PRICE, wait_value=0) == Ready(0, 0)


def test_too_little_history_or_no_price_says_nothing() -> None:
    assert ready_slots([5] * 19, PRICE) == Ready()
    assert ready_slots([5] * 20, PRICE, wait_value=1e6) == Ready(5, 5)
    assert ready_slots([5] * 20, 0) == Ready()
    assert ready_slots([], PRICE, least=0) == Ready()


@given(st.lists(st.integers(0, 9), min_size=20, max_size=60), st.integers(1, 10_000_000), st.floats(0, 1e4))
def test_no_other_number_would_have_cost_less(samples: list[int], price: int, value: float) -> None:
    ready = ready_slots(samples, price, wait_value=value)
    assert ready.ahead <= ready.keep
    a_second = price / HOUR

    def regret(n: int, spared: float) -> float:
        """What n ready machines cost over all samples, a second: each idle one its price, each one short the wait."""
        return sum(a_second * max(0, n - came) + (value + spared) * max(0, came - n) for came in samples)

    for number, spared in ((ready.ahead, 0.0), (ready.keep, a_second)):
        least = min(regret(n, spared) for n in range(11))
        assert regret(number, spared) <= least * (1 + 1e-9) + 1e-6


def weekly(weeks: int, at: float, sessions: int) -> Arrivals:
    seen = Arrivals(Habits(step_s=60, reach=2, weeks=3, recent=4))
    seen.note(0.0)
    for week in range(weeks):
        seen.note(week * WEEK_S + at, sessions)
    return seen


def test_the_same_time_of_other_weeks_and_the_last_hour_are_looked_at() -> None:
    at = 100_000.0
    found = weekly(3, at, 7).samples(3 * WEEK_S + at, 60)
    assert len(found) == 3 * 5 + 3 * 4
    assert found.count(7) == 3
    assert weekly(3, at, 7).samples(3 * WEEK_S + at + 180, 60).count(7) == 0, "out of reach"
    wide = weekly(3, at, 7).samples(3 * WEEK_S + at, 180)
    assert wide.count(7) == 9, "three windows of three minutes hold it, each week"
    recent = weekly(3, at, 7)
    recent.note(3 * WEEK_S + at - 90, 5)
    assert recent.samples(3 * WEEK_S + at, 60).count(5) == 3, "as often as there are weeks"


def test_nothing_from_before_the_records_and_nothing_from_now_on_counts() -> None:
    assert Arrivals().samples(0.0, 60) == []
    young = weekly(1, 5000.0, 7)
    assert len(young.samples(WEEK_S / 2, 60)) == 3 * 4, "the last minutes only"
    ahead = weekly(0, 0.0, 0)
    ahead.note(WEEK_S + 30.0, 9)
    assert 9 not in ahead.samples(WEEK_S + 10.0, 60), "the minute is not over"


def test_a_larger_session_counts_as_several() -> None:
    hot = request(2, 8)
    assert [units(asked, hot) for asked in (request(1), request(2, 8), request(5), request(1, 17))] == [1, 1, 3, 3]
    assert units(request(1, gpu=1), hot) == 0
    assert units(request(1, gpu=4), request(2, 8, gpu=1)) == 4


def test_a_group_that_asked_for_it_is_predicted_at_the_price_of_a_slot() -> None:
    seen = Arrivals(Habits(step_s=60, recent=20, weeks=1))
    for minute in range(60):
        seen.note(minute * 60.0, 3)
    asked = dataclasses.replace(group(), pools=Pools(hot=request(1), predict=True))
    cheap, dear = shape(4, 4 * 3600), shape(4, 4_000_000)  # a slot: 1 and 278 micro-units a second
    assert predict(view(of=asked, shapes=(dear, cheap)), seen, 3600.0) == Ready(3, 3)
    assert predict(view(of=asked, shapes=(dear, cheap)), Arrivals(), 3600.0) == Ready()
    assert predict(view(shapes=(cheap,)), seen, 3600.0) == Ready(), "off unless it is asked for"
    assert predict(view(of=asked, shapes=(shape(0.5, 10),)), seen, 3600.0) == Ready()
    for minute in range(0, 60, 3):
        seen.counts[minute] = 0  # in two of three minutes only
    assert predict(view(of=asked, shapes=(dear, cheap)), seen, 3600.0) == Ready(3, 3)
    assert predict(view(of=asked, shapes=(dear,)), seen, 3600.0, 1) == Ready(0, 3)
    assert predict(view(of=asked, shapes=(dear,)), seen, 3600.0, 1000) == Ready(3, 3)
    refused = {cheap.key: "no capacity"}
    other = dataclasses.replace(dear, name="dear")
    assert predict(view(of=asked, shapes=(other, cheap), blocked=refused), seen, 3600.0) == Ready(0, 3)


def test_what_is_forgotten_is_never_looked_at() -> None:
    seen = weekly(6, 100_000.0, 7)
    now = 6 * WEEK_S + 100_000.0
    before, size = seen.samples(now, 180), len(seen.counts)
    seen.forget(now)
    assert seen.samples(now, 180) == before
    assert len(seen.counts) < size
