"""Growth: what is filled, taken back, started and launched for waiting sessions."""

from atoll.group import GroupKind
from atoll.plan import Action
from atoll.states import Reason
from autoscaler.view import ColdView, GroupView, PendingView
from tests.autoscaler.builders import (
    agent,
    decide,
    demand,
    demands,
    draining,
    group,
    notes,
    request,
    shape,
    slots,
    steps,
    view,
)


def test_a_session_gets_the_cheapest_capable_shape_over_all_groups() -> None:
    made = decide(
        [
            view(of=group("dear"), shapes=(shape(4, 200_000),)),
            view(of=group("cheap"), shapes=(shape(4, 90_000), shape(64, 900_000), shape(0.5, 1000))),
        ],
        [demand()],
    )
    (step,) = made.steps
    assert (step.action, step.group, step.instance) == (Action.LAUNCH, "cheap", "i-abc-1")
    assert step.shape == shape(4, 90_000)
    assert step.sessions == ("s-1",)
    assert made.awaits == (("s-1", "i-abc-1"),)


def test_several_sessions_share_a_machine_when_that_is_cheaper() -> None:
    small, large = shape(1, 100_000), shape(8, 400_000)
    made = decide(view(shapes=(small, large)), demands(8))
    assert [step.shape for step in made.steps] == [large]
    assert [step.shape for step in decide(view(shapes=(small, large)), demands(3)).steps] == [small] * 3


def test_pending_is_filled_before_anything_is_launched() -> None:
    made = decide(view(pending=(PendingView(instance="i-1", shape=shape(4)),)), demands(6))
    assert [step.action for step in made.steps] == [Action.LAUNCH]
    assert [instance for _, instance in made.awaits] == ["i-1"] * 4 + ["i-abc-1"] * 2


def test_sessions_stay_with_the_instance_launched_for_them() -> None:
    pending = (
        PendingView(instance="i-1", shape=shape(4), sessions=("s-3",)),
        PendingView(instance="i-2", shape=shape(4), sessions=("s-0", "s-1", "s-2")),
    )
    made = decide(view(pending=pending), demands(4))
    assert made.steps == ()
    assert dict(made.awaits) == {"s-0": "i-2", "s-1": "i-2", "s-2": "i-2", "s-3": "i-1"}


def test_a_cold_instance_is_started_before_a_launch() -> None:
    made = decide(view(cold=(ColdView(instance="i-cold", shape=shape()),)), [demand()])
    (step,) = made.steps
    assert (step.action, step.instance, step.sessions) == (Action.START, "i-cold", ("s-1",))
    assert made.awaits == (("s-1", "i-cold"),)


def test_a_draining_agent_is_taken_back_when_demand_fits_it() -> None:
    made = decide(view(draining(acknowledged=5)), [demand()])
    (step,) = made.steps
    assert (step.action, step.agent, step.epoch, step.reason) == (Action.UNDRAIN, "a-1", 7, Reason.DEMAND_RETURNED)


def test_a_draining_agent_with_notice_or_drained_by_a_person_is_not_taken_back() -> None:
    for gone in (draining(notice=True), draining(by_user=True)):
        assert [step.action for step in decide(view(gone), [demand()]).steps] == [Action.LAUNCH]


def test_a_dear_draining_agent_is_left_when_a_launch_saves_more() -> None:
    dear = draining(on=shape(1, 5_000_000))
    made = decide(view(dear, shapes=(shape(1, 100_000),)), [demand()])
    assert [step.action for step in made.steps] == [Action.LAUNCH]


def test_a_group_never_grows_over_its_size_and_says_so() -> None:
    busy = agent(sessions=("s-x",))
    pending = (PendingView(instance="i-1", shape=shape(1)),)
    made = decide(view(busy, of=group(most=4), shapes=(shape(1),), pending=pending, ending=1), demands(5))
    assert len(steps(made, Action.LAUNCH)) == 1
    assert ("cloud", Reason.MAX_SIZE) in notes(made)
    assert [session for session, _ in made.awaits] == ["s-0", "s-1"], "the first in order are served"


def test_a_capped_group_serves_the_first_even_if_others_pack_better() -> None:
    first = demand("s-first", 4)
    made = decide(view(of=group(most=1), shapes=(shape(1, 10_000), shape(4, 100_000))), [first, *demands(3)])
    assert [step.sessions for step in made.steps] == [("s-first",)]


def test_a_blocked_shape_is_passed_over_and_noted() -> None:
    cheap, dear = shape(4, 10_000, "cheap"), shape(4, 90_000, "dear")
    made = decide(view(shapes=(cheap, dear), blocked={cheap.key: "no capacity in z1"}), [demand()])
    assert [step.shape for step in made.steps] == [dear]
    assert [(n.reason, n.message) for n in made.notes if not n.agent] == [
        (Reason.BACKOFF, f"{cheap.key}: no capacity in z1")
    ]


def test_unpriced_free_and_disallowed_shapes_are_never_launched() -> None:
    shapes = (shape(4, None, "none"), shape(4, 0, "zero"), shape(4, 5, "spot", spot=True))
    assert decide(view(shapes=shapes), [demand(spot=False)]).steps == ()


def test_max_price_is_the_members_share() -> None:
    assert len(decide(view(shapes=(shape(4, 100_000),)), [demand(max_price=25_000)]).steps) == 1
    assert decide(view(shapes=(shape(4, 100_000),)), [demand(max_price=24_999)]).steps == ()


def test_a_gang_gets_a_machine_for_each_member_or_none() -> None:
    assert len(decide(view(of=group(most=3)), [demand(nodes=3)]).steps) == 3
    made = decide(view(of=group(most=2)), [demand(nodes=3)])
    assert made.steps == ()
    assert ("cloud", Reason.MAX_SIZE) in notes(made)


def test_a_gang_counts_free_agents_of_all_groups_and_they_are_kept_for_it() -> None:
    local = view(agent("a-local"), of=group("local", kind=GroupKind.FIXED), shapes=())
    made = decide([local, view(agent("a-cloud"))], [demand(nodes=3)])
    assert [step.action for step in made.steps] == [Action.LAUNCH]
    assert notes(made) == [("a-cloud", Reason.DEMAND)]


def test_min_size_and_hot_pool_grow_without_demand() -> None:
    made = decide(view(of=group(least=2), shapes=(shape(4, 90_000), shape(8, 95_000))))
    assert [(s.reason, s.shape) for s in made.steps] == [(Reason.MIN_SIZE, shape(8, 95_000))] * 2 or [
        (s.reason, s.shape) for s in made.steps
    ] == [(Reason.MIN_SIZE, shape(4, 90_000))] * 2
    made = decide(view(of=group(hot=request(4), hot_count=2), shapes=(shape(4, 90_000),)))
    assert [step.reason for step in made.steps] == [Reason.HOT_POOL] * 2
    hot = view(agent(), of=group(hot=request(2), hot_count=2))
    assert decide(hot).steps == ()


def test_the_hot_pool_stays_free_beside_demand() -> None:
    made = decide(view(of=group(hot=request(4), hot_count=1)), [demand(cpu=4)])
    assert [step.reason for step in made.steps] == [Reason.DEMAND, Reason.HOT_POOL]


def test_gpu_sessions_are_packed_on_gpu_machines_only() -> None:
    gpu = shape(has=slots(8, 64, "L4", 2), price=700_000, name="g2")
    made = decide(view(shapes=(shape(64, 100_000), gpu)), [demand("s-1", gpu=1), demand("s-2", gpu=0.5)])
    assert [step.shape for step in made.steps] == [gpu]


def test_an_idle_world_is_steady_and_equal_input_gives_an_equal_plan() -> None:
    made = decide(view())
    assert (made.steps, notes(made)) == ((), [("cloud", Reason.STEADY)])
    crowd = [demand(f"s-{n}", 1 + n % 3, nodes=1 + (n % 7 == 0)) for n in range(60)]
    world: list[GroupView] = [view(agent(), draining("a-2"), of=group(most=50), shapes=(shape(4), shape(8, 180_000)))]
    assert decide(world, crowd) == decide(world, crowd)
