"""Scale-in: who is drained, who is ended, and why all others are kept."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.plan import Action, Plan
from atoll.states import AgentState, Reason
from autoscaler.limits import Ceiling
from autoscaler.shrink import WIND_UP_S
from autoscaler.view import AgentView, ColdView
from tests.autoscaler.builders import agent, decide, demand, draining, group, notes, request, shape, steps, view


def only(made: Plan) -> tuple[Action, str, str, int, Reason]:
    (step,) = made.steps
    return step.action, step.agent, step.instance, step.epoch, step.reason


def test_an_idle_agent_is_drained_first_and_ended_once_it_acknowledged() -> None:
    assert only(decide(view(agent()))) == (Action.DRAIN, "a-1", "i-old-1", 7, Reason.IDLE)
    waiting = decide(view(draining(cordon=8, acknowledged=7)))
    assert (waiting.steps, notes(waiting)) == ((), [("a-1", Reason.AWAITING_ACKNOWLEDGEMENT)])
    done = decide(view(draining(cordon=8, acknowledged=8)))
    assert only(done) == (Action.TERMINATE, "a-1", "i-old-1", 7, Reason.EMPTY_DRAINED)


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (agent(sessions=("s-1",)), Reason.BUSY),
        (agent(sessions=("s-1",), protected=True), Reason.PROTECTED),
        (agent(connected=False), Reason.DISCONNECTED),
        (agent(idle_s=59), Reason.NOT_IDLE_LONG_ENOUGH),
        (draining(sessions=("s-1",), acknowledged=9), Reason.BUSY),
        (draining(sessions=("s-1",), acknowledged=9, protected=True), Reason.PROTECTED),
        (draining(cordon=0, acknowledged=0), Reason.AWAITING_ACKNOWLEDGEMENT),
        (draining(connected=False), Reason.DISCONNECTED),
    ],
)
def test_an_agent_is_kept_for_a_reason(kept: AgentView, reason: Reason) -> None:
    made = decide(view(kept))
    assert (made.steps, notes(made)) == ((), [("a-1", reason)])


def test_nothing_is_drained_or_ended_until_the_control_plane_has_settled() -> None:
    made = decide(view(agent("a-1"), draining("a-2", acknowledged=9), agent("a-3", notice=True), settled=False))
    assert made.steps == ()
    assert {reason for _, reason in notes(made)} == {Reason.SETTLING}


def test_cooldown_after_growth_and_when_the_same_plan_grows() -> None:
    assert notes(decide(view(agent(), since_growth_s=29))) == [("a-1", Reason.COOLDOWN)]
    made = decide(view(agent(), shapes=(shape(8),)), [demand(cpu=8)])
    assert [step.action for step in made.steps] == [Action.LAUNCH]
    assert notes(made) == [("a-1", Reason.COOLDOWN)]


def test_min_size_and_hot_pool_keep_agents() -> None:
    made = decide(view(agent("a-1"), agent("a-2"), of=group(least=1)))
    assert len(steps(made, Action.DRAIN)) == 1
    assert ("a-2", Reason.MIN_SIZE) in notes(made)
    made = decide(view(agent("a-1"), agent("a-2"), of=group(hot=request(2), hot_count=2)))
    assert len(steps(made, Action.DRAIN)) == 1
    assert ("a-2", Reason.HOT_POOL) in notes(made)


def test_a_session_that_has_run_for_long_protects_its_agent_by_another_name() -> None:
    for kept in (agent(sessions=("s-1",), protected=True), draining(sessions=("s-1",), protected=True, acknowledged=9)):
        aged = dataclasses.replace(kept, protected_why=Reason.LONG_RUNNING)
        [note] = decide(view(aged)).notes
        assert note.reason is Reason.LONG_RUNNING
        assert "so long" in note.message


def test_a_machine_that_is_paid_for_is_kept_until_shortly_before() -> None:
    paid = dataclasses.replace(agent(), paid_s=WIND_UP_S + 1)
    [note] = decide(view(paid)).notes
    assert (note.reason, note.message) == (
        Reason.PAID_FOR,
        "paid for another 2 min: it is ended shortly before",
    )
    assert len(steps(decide(view(dataclasses.replace(paid, paid_s=WIND_UP_S))), Action.DRAIN)) == 1


def test_a_paid_machine_goes_where_there_is_a_reason() -> None:
    paid = dataclasses.replace(agent("a-1"), paid_s=3000.0)
    assert only(decide(view(dataclasses.replace(paid, notice=True))))[4] is Reason.SPOT_NOTICE
    too_many = [dataclasses.replace(paid, id=name, instance=name) for name in ("a-1", "a-2", "a-3")]
    made = decide(view(*too_many, of=group(most=2)))
    assert len(steps(made, Action.DRAIN)) == 1
    assert [reason for _, reason in notes(made)] == [Reason.PAID_FOR] * 2
    full = Ceiling(provider="sim", name="cpus", limit=4, committed=4, counts="cpu")
    made = decide(view(paid, shapes=(shape(8),), limits=(full,)), [demand(cpu=8)])
    assert [step.action for step in made.steps] == [Action.DRAIN], "sessions wait for its share of the limit"


def test_a_drain_with_a_deadline_says_what_comes_of_it() -> None:
    slow = draining(sessions=("s-1",), by_user=True)
    texts = [
        decide(view(dataclasses.replace(slow, drain_left_s=left))).notes[0].message for left in (None, 300.0, -1.0)
    ]
    assert "moved" not in texts[0]
    assert "are moved in 300 s" in texts[1]
    assert "its time is over" in texts[2]


def test_the_dearest_goes_first() -> None:
    made = decide(view(agent("a-1"), agent("a-2", on=shape(4, 300_000)), of=group(least=1)))
    assert [step.agent for step in made.steps] == ["a-2"]


def test_a_drained_agent_is_stopped_while_the_cold_pool_is_short() -> None:
    both = (draining("a-1", acknowledged=5), draining("a-2", acknowledged=5))
    made = decide(view(*both, of=group(cold=2), cold=(ColdView(instance="i-c", shape=shape()),)))
    assert [(s.action, s.reason) for s in made.steps] == [
        (Action.STOP, Reason.COLD_POOL),
        (Action.TERMINATE, Reason.EMPTY_DRAINED),
    ]


def test_a_spot_machine_is_never_kept_stopped() -> None:
    made = decide(view(draining(on=shape(spot=True), acknowledged=5), of=group(cold=1)))
    assert only(made)[0] is Action.TERMINATE


def test_a_notice_drains_at_once_and_plans_replacements() -> None:
    made = decide(view(agent(sessions=("s-9",), notice=True)), [demand()])
    assert [(s.action, s.reason) for s in made.steps] == [
        (Action.LAUNCH, Reason.DEMAND),
        (Action.DRAIN, Reason.SPOT_NOTICE),
    ]


def test_draining_agents_do_not_hold_up_others() -> None:
    made = decide(view(draining("a-1", sessions=("s-1",)), agent("a-2"), draining("a-3", acknowledged=5)))
    assert {(s.action, s.agent) for s in made.steps} == {(Action.DRAIN, "a-2"), (Action.TERMINATE, "a-3")}


def test_a_group_below_its_least_size_takes_a_draining_agent_back() -> None:
    made = decide(view(draining(acknowledged=5), of=group(least=1)))
    assert only(made) == (Action.UNDRAIN, "a-1", "i-old-1", 7, Reason.MIN_SIZE)


@settings(max_examples=100)
@given(st.lists(st.sampled_from((True, False, None)), min_size=20, max_size=120), st.sampled_from((5.0, 10.0, 25.0)))
def test_however_demand_flaps_agents_are_not_drained_more_often_than_the_cooldown(
    wanted: list[bool | None], round_s: float
) -> None:
    """`None` is demand that is gone before anything is placed: the agent was taken back for nothing and stays idle."""
    state, now, idle_at, grew_at, drains = AgentState.READY, 0.0, -1000.0, -1e9, []
    for wants in wanted:
        now += round_s
        runs = wants is True and state is AgentState.READY
        idle_at = now if runs else idle_at
        one = agent(sessions=("s-1",) if runs else (), idle_s=now - idle_at, state=state, cordon=5)  # unacknowledged
        waiting = [demand()] if wants is not False and state is AgentState.DRAINING else []
        made = decide(view(one, since_growth_s=now - grew_at), waiting)
        for step in made.steps:
            assert step.action in (Action.DRAIN, Action.UNDRAIN)
            if step.action is Action.DRAIN:
                assert now - grew_at >= 30
                assert now - idle_at >= 60
                drains.append(now)
                state = AgentState.DRAINING
            else:
                state, grew_at = AgentState.READY, now
    assert all(later - sooner >= 30 for sooner, later in pairwise(drains))
