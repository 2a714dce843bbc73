"""Pools: the hot pool by the time of day and by history, and stopped machines beside launches."""

import dataclasses

from atoll.instance import Shape
from atoll.plan import Action
from atoll.states import Reason
from autoscaler.predict import Ready
from autoscaler.view import ColdView, PendingView
from tests.autoscaler.builders import agent, decide, demand, draining, group, notes, request, shape, steps, view

HOT = group(hot=request(4), hot_count=1)


def cold(of: Shape) -> tuple[ColdView, ...]:
    return (ColdView(instance="i-cold", shape=of),)


def test_the_hot_pool_is_as_large_as_it_is_to_be_now() -> None:
    assert [len(decide(view(of=HOT, hot=hot)).steps) for hot in (None, 0, 3)] == [1, 0, 3]
    made = decide(view(agent("a-1"), agent("a-2"), of=HOT, hot=0))
    assert {step.action for step in made.steps} == {Action.DRAIN}, "outside its hours nothing is kept"


def test_what_history_adds_is_said_apart() -> None:
    made = decide(view(of=HOT, predicted=Ready(2, 3)))
    assert [step.reason for step in made.steps] == [Reason.HOT_POOL, Reason.PREDICTED, Reason.PREDICTED]
    assert "history" in made.steps[-1].message
    made = decide(view(of=group(hot=request(4)), predicted=Ready(1, 1)))
    assert [step.reason for step in made.steps] == [Reason.PREDICTED]


def test_history_keeps_more_than_it_launches() -> None:
    made = decide(view(agent("a-1"), agent("a-2"), agent("a-3"), of=HOT, predicted=Ready(0, 1)))
    assert [(s.action, s.agent) for s in made.steps] == [(Action.DRAIN, "a-1")]
    assert notes(made) == [("a-2", Reason.PREDICTED), ("a-3", Reason.PREDICTED)], "the hot pool could spare either"


def test_the_hot_pool_never_exceeds_the_group() -> None:
    made = decide(view(agent(sessions=("s-1",)), of=group(most=3, hot=request(4)), hot=9, predicted=Ready(9, 9)))
    assert len(steps(made, Action.LAUNCH)) == 2


def test_a_draining_agent_comes_back_for_the_hot_pool() -> None:
    [step] = decide(view(draining(), of=HOT)).steps
    assert (step.action, step.reason) == (Action.UNDRAIN, Reason.HOT_POOL)


def test_a_stopped_machine_is_started_unless_a_launch_is_cheaper() -> None:
    for price, action in ((100_000, Action.START), (30_000, Action.LAUNCH)):
        offered = (shape(4, price, "now"),)
        for found in (
            decide(view(of=HOT, cold=cold(shape(4, 50_000)), shapes=offered)),
            decide(view(of=group(least=1), cold=cold(shape(4, 50_000)), shapes=offered)),
            decide(view(cold=cold(shape(4, 50_000)), shapes=offered), [demand(cpu=4)]),
        ):
            assert [step.action for step in found.steps if step.action is not Action.TERMINATE] == [action]


def test_a_sooner_start_may_cost_more() -> None:
    slow = dataclasses.replace(shape(4, 49_000, "slow"), start_s=600)
    made = decide(view(of=HOT, cold=cold(shape(4, 50_000)), shapes=(slow,)))
    assert [step.action for step in made.steps if step.action is not Action.TERMINATE] == [Action.START]


def test_a_blocked_launch_is_no_reason_to_leave_a_machine_stopped() -> None:
    cheap = shape(4, 30_000, "cheap")
    made = decide(view(of=HOT, cold=cold(shape(4, 50_000)), shapes=(cheap,), blocked={cheap.key: "no capacity"}))
    assert Action.START in {step.action for step in made.steps}


def test_a_gang_stays_with_what_was_launched_for_it_and_leaves_the_hot_pool_alone() -> None:
    both = view(agent("a-1", idle_s=0), agent("a-2", idle_s=0), of=group(hot=request(2), hot_count=1))
    awaited = PendingView(instance="i-1", shape=shape(4), sessions=("s-1",))
    made = decide([view(of=group("other"), pending=(awaited,)), both], [demand(cpu=3, nodes=2)])
    assert made.steps == ()
    assert made.awaits == (("s-1", "i-1"),)
