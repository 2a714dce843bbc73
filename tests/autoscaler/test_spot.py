"""Spot under a deadline: uniform progress, its safety net, and the fallback's words."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.group import Group
from atoll.instance import Shape
from atoll.plan import Action
from atoll.states import Reason
from autoscaler.spot import Pace, Paid, choose, fallback, offers_spot, with_deadline
from tests.autoscaler.builders import agent, decide, demand, group, shape, steps, view

HOUR = 3600.0
PACE = Pace(since=0.0, due_at=15 * HOUR, work_s=10 * HOUR, left_s=10 * HOUR, changeover_s=300.0, rework_s=600.0)
SPOT, DEAR = shape(4, 30_000, spot=True), shape(4, 100_000)


def after(hours: float, done_h: float = 0.0) -> tuple[Pace, float]:
    return dataclasses.replace(PACE, left_s=PACE.work_s - done_h * HOUR), hours * HOUR


def test_the_safety_net_counts_both_changeovers_and_the_work_lost() -> None:
    last = PACE.due_at - PACE.left_s - 2 * 300 - 600
    assert PACE.may_risk(last)
    assert not PACE.may_risk(last + 1)
    for on, spot in ((Paid.NOT, True), (Paid.NOT, False), (Paid.ON_DEMAND, True)):
        assert choose(PACE, last + 1, on=on, spot=spot) is Paid.ON_DEMAND
    assert choose(PACE, last + 1, on=Paid.SPOT, spot=True) is Paid.SPOT, "to run on burns no slack"


@pytest.mark.parametrize(
    ("hours", "done", "on", "spot", "then"),
    [
        (0, 0, Paid.NOT, True, Paid.SPOT),
        (1, 0, Paid.NOT, False, Paid.NOT),  # the line has not begun yet
        (3, 0, Paid.NOT, False, Paid.ON_DEMAND),
        (3, 0, Paid.NOT, True, Paid.SPOT),  # behind, and taking risks
        (6, 6, Paid.NOT, False, Paid.NOT),
        (6, 3.26, Paid.ON_DEMAND, True, Paid.ON_DEMAND),  # on the line, but not as far as it will be soon
        (6, 3.5, Paid.ON_DEMAND, True, Paid.SPOT),
        (6, 6, Paid.ON_DEMAND, False, Paid.ON_DEMAND),
        (6, 1, Paid.SPOT, True, Paid.SPOT),
    ],
)
def test_uniform_progress(hours: float, done: float, on: Paid, spot: bool, then: Paid) -> None:
    pace, now = after(hours, done)
    assert choose(pace, now, on=on, spot=spot) is then


def test_one_that_cannot_be_moved_waits_to_the_last_and_stays_on_demand() -> None:
    pace, now = after(4.5)
    assert choose(pace, now, on=Paid.NOT, spot=False) is Paid.ON_DEMAND
    fixed = dataclasses.replace(pace, movable=False)
    assert choose(fixed, now, on=Paid.NOT, spot=False) is Paid.NOT
    assert choose(dataclasses.replace(fixed, left_s=1.0), now, on=Paid.ON_DEMAND, spot=True) is Paid.ON_DEMAND


def test_a_deadline_rules_out_what_it_must() -> None:
    asked = demand()
    assert with_deadline(asked, None, 0.0, offered=True) is asked
    assert with_deadline(asked, PACE, 0.0, offered=True) == dataclasses.replace(asked, on_demand=False)
    assert with_deadline(asked, PACE, 0.0, offered=False) == asked, "no use in waiting for what nobody offers"
    assert with_deadline(asked, PACE, 3 * HOUR, offered=True) == asked
    assert with_deadline(asked, PACE, 4.9 * HOUR, offered=True) == dataclasses.replace(asked, spot=False)
    assert with_deadline(asked, PACE, 99 * HOUR, offered=True).spot is False, "late already: as soon as can be"
    proud = demand(spot=False)
    assert with_deadline(proud, PACE, 0.0, offered=True) is proud


def test_the_planner_obeys() -> None:
    waits = dataclasses.replace(demand(), on_demand=False)
    both = view(shapes=(SPOT, DEAR))
    assert [step.shape for step in decide(both, [waits]).steps] == [SPOT]
    assert decide(view(shapes=(SPOT, DEAR), blocked={SPOT.key: "no capacity"}), [waits]).steps == ()
    assert [step.shape for step in decide(both, [demand(spot=False), waits]).steps] in ([SPOT, DEAR], [DEAR, SPOT])


def test_spot_is_offered_where_a_shape_fits_even_if_it_is_blocked() -> None:
    here: list[tuple[Group, tuple[Shape, ...]]] = [(group(), (DEAR, SPOT))]
    assert offers_spot(demand(), here)
    assert not offers_spot(demand(cpu=5), here)
    assert not offers_spot(demand(), [(group(), (DEAR, shape(4, None, spot=True)))])
    assert not offers_spot(demand(groups=("other",)), here)


def test_a_fallback_is_said() -> None:
    other_zone = dataclasses.replace(SPOT, zone="z2", price=25_000)
    both = {SPOT.key: "no capacity", other_zone.key: "limit"}
    assert fallback(DEAR, (SPOT, other_zone, DEAR), both) == f"instead of {other_zone.key}: limit"
    assert fallback(DEAR, (SPOT, DEAR), {}) == ""
    assert fallback(SPOT, (SPOT, DEAR), both) == ""
    assert fallback(shape(4, 20_000), (SPOT,), both) == "", "it is no worse"
    [step] = decide(view(shapes=(SPOT, DEAR), blocked={SPOT.key: "no capacity in z1"}), [demand()]).steps
    assert (step.action, step.shape, step.reason) == (Action.LAUNCH, DEAR, Reason.SPOT_FALLBACK)
    assert step.message.endswith(f"instead of {SPOT.key}: no capacity in z1")
    [step] = decide(view(shapes=(SPOT, DEAR), blocked={SPOT.key: "no capacity"}), [demand(spot=False)]).steps
    assert step.reason is Reason.DEMAND, "it would not have had spot anyway"


def ends_at(pace: Pace, has: list[bool], tick: float, lost: float) -> float:
    """Play a session on spot that comes and goes as in `has`, then is gone; return when it is done."""
    now, done, saved, starting, on = 0.0, 0.0, 0.0, 0.0, Paid.NOT
    for spot in [*has, *([False] * 100_000)]:
        if on is Paid.SPOT and not spot:
            done, on = max(saved, done - lost), Paid.NOT
        to = choose(dataclasses.replace(pace, left_s=pace.work_s - done), now, on=on, spot=spot)
        if to is not on:
            saved, starting, on = done, pace.changeover_s - tick, to
        if on is not Paid.NOT:
            done += max(0.0, tick - starting)
            starting = max(0.0, starting - tick)
        now += tick
        if done >= pace.work_s:
            return now - (done - pace.work_s)
    raise AssertionError("never done")


@settings(max_examples=150)
@given(
    st.integers(0, 1 << 30),
    st.floats(0.01, 2.0),
    st.sampled_from((0.0, 120.0, 600.0)),
    st.booleans(),
    st.sampled_from((0.5, 0.9, 0.99)),
)
def test_whatever_spot_does_nobody_is_late(seed: int, slack: float, lost: float, movable: bool, stays: float) -> None:
    work, tick = 3 * HOUR, 60.0
    chance, has = random.Random(seed), [True]
    while len(has) < 1000:
        has.append(has[-1] if chance.random() < stays else not has[-1])
    due = work * (1 + slack) + 2 * 300.0 + lost
    pace = Pace(since=0.0, due_at=due, work_s=work, left_s=work, changeover_s=300.0, rework_s=lost, movable=movable)
    assert ends_at(pace, has, tick, lost) <= due


def test_a_machine_that_may_be_taken_is_not_stopped_for_the_cold_pool_nor_kept_for_the_deadline() -> None:
    made = decide(view(agent(on=SPOT), of=group(cold=1), shapes=(SPOT, DEAR)))
    assert len(steps(made, Action.DRAIN)) == 1
