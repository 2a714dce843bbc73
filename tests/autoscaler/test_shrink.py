"""Scale-in: who is drained, who is ended, and why all others are kept."""

import pytest

from atoll.plan import Action, Plan
from atoll.states import Reason
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
