"""An account's limits: no plan asks for more than it may have, and says so."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.offer import Demand
from atoll.plan import Action, Plan
from atoll.states import Reason
from autoscaler.limits import Ceiling, Limits
from autoscaler.view import ColdView, GroupView
from tests.autoscaler.builders import decide, demand, demands, group, request, shape, slots, steps, view
from tests.autoscaler.test_properties import SHAPES, crowds, views

SMALL, BIG = shape(4, 100_000, "c4"), shape(16, 300_000, "c16")
GPU = shape(has=slots(8, 32, "L4", 2), price=600_000, name="g2")


def ceiling(limit: int, committed: int = 0, **more: object) -> Ceiling:
    given = {"provider": "sim", "name": "vcpus", "counts": "cpu", **more}
    return Ceiling(limit=limit, committed=committed, **given)  # type: ignore[arg-type]


def quota_notes(made: Plan) -> list[str]:
    return [note.message for note in made.notes if note.reason is Reason.QUOTA]


@pytest.mark.parametrize(("counts", "takes"), [("cpu", 8), ("gpu", 2), ("memory", 32 * 1024), ("instances", 1)])
def test_what_a_machine_takes(counts: str, takes: int) -> None:
    assert ceiling(99, counts=counts).takes(GPU) == takes


def test_a_limit_concerns_its_shapes_and_way_of_paying() -> None:
    spot = replace(SMALL, spot=True)
    assert [ceiling(1, shapes=("c*", "m?")).concerns(each) for each in (SMALL, GPU)] == [True, False]
    assert [ceiling(1, spot=True).concerns(each) for each in (SMALL, spot)] == [False, True]
    assert ceiling(1, shapes=("g*",)).takes(SMALL) == 0


def test_limits_go_down_with_each_launch_and_copies_do_not_share() -> None:
    limits = Limits((ceiling(20, 5), ceiling(2, 0, counts="instances", name="machines")))
    assert (limits.count("sim", SMALL), limits.count("other", SMALL)) == (2, 1 << 30)
    tried = limits.copy()
    tried.take("sim", SMALL)
    tried.take("sim", SMALL)
    assert (tried.count("sim", SMALL), limits.count("sim", SMALL)) == (0, 2)
    assert limits.short("sim", BIG) is limits.ceilings[0]
    assert limits.short("sim", SMALL) is None


def test_more_committed_than_allowed_leaves_nothing() -> None:
    limits = Limits((ceiling(8, 12),))
    assert limits.count("sim", SMALL) == 0
    assert limits.short("sim", SMALL) is not None


def test_a_plan_stops_at_the_limit_and_says_so() -> None:
    made = decide(view(shapes=(SMALL,), limits=(ceiling(12, 4),)), demands(4, 4))
    assert len(steps(made, Action.LAUNCH)) == 2
    assert quota_notes(made) == [f"{SMALL.key}: limit 'vcpus' of the account: 4 of 12 cpu are in use or on their way"]
    assert Reason.MAX_SIZE not in [note.reason for note in made.notes], "a larger size would not help"


def test_what_the_limit_does_not_concern_is_launched_instead() -> None:
    made = decide(view(shapes=(SMALL, GPU), limits=(ceiling(0, 0, shapes=("c*",)),)), demands(2, 4))
    assert {step.shape for step in steps(made, Action.LAUNCH)} == {GPU}
    assert len(quota_notes(made)) == 1


def test_a_cheaper_shape_without_room_hides_no_other() -> None:
    better = replace(BIG, price=90_000)
    made = decide(view(shapes=(SMALL, better), limits=(ceiling(4, 0),)), demands(1, 4))
    assert [step.shape for step in steps(made, Action.LAUNCH)] == [SMALL]


def test_groups_of_one_provider_share_the_account() -> None:
    limits = (ceiling(4, 0),)
    both = [view(of=group(name), shapes=(SMALL,), limits=limits) for name in ("one", "two")]
    waiting = [demand("s-1", 4, groups=("one",)), demand("s-2", 4, groups=("two",))]
    assert len(steps(decide(both, waiting), Action.LAUNCH)) == 1


def test_a_gang_is_launched_whole_or_not_at_all() -> None:
    one = view(shapes=(SMALL,), limits=(ceiling(8, 0),))
    assert steps(decide(one, [demand("s-1", 4, nodes=3)]), Action.LAUNCH) == []
    assert len(steps(decide(one, [demand("s-1", 4, nodes=2)]), Action.LAUNCH)) == 2


def test_pools_keep_to_the_limit() -> None:
    least = view(of=group(least=3), shapes=(SMALL,), limits=(ceiling(8, 0),))
    assert len(steps(decide(least), Action.LAUNCH)) == 2
    hot = view(of=group(hot=request(4), hot_count=3), shapes=(SMALL,), limits=(ceiling(4, 0),))
    assert len(steps(decide(hot), Action.LAUNCH)) == 1


def test_a_plan_that_uses_the_limit_up_and_serves_all_has_nothing_to_say() -> None:
    made = decide(view(shapes=(SMALL,), limits=(ceiling(8, 0),)), demands(2, 4))
    assert len(steps(made, Action.LAUNCH)) == 2
    assert quota_notes(made) == []


def test_a_closed_group_keeps_no_cold_machine() -> None:
    closed = group(most=0, cold=2)
    made = decide(view(of=closed, cold=(ColdView(instance="i-1", shape=SMALL),)))
    assert [step.instance for step in steps(made, Action.TERMINATE)] == ["i-1"]


def test_a_cold_machine_that_holds_up_waiting_sessions_is_ended() -> None:
    cold = (ColdView(instance="i-big", shape=GPU),)
    one = view(of=group(cold=1), shapes=(SMALL,), cold=cold, limits=(ceiling(16, 8),))
    assert steps(decide(one, [demand("s-1", 4, nodes=2)]), Action.TERMINATE) == []
    [end] = steps(decide(one, [demand("s-1", 4, nodes=4)]), Action.TERMINATE)
    assert (end.instance, end.reason) == ("i-big", Reason.QUOTA)
    other = replace(one, limits=(ceiling(16, 8, shapes=("c4",)),))
    assert steps(decide(other, [demand("s-1", 4, nodes=4)]), Action.TERMINATE) == []


@settings(max_examples=80)
@given(
    views("x"),
    views("y"),
    crowds(),
    st.lists(
        st.builds(
            lambda limit, committed, counts, shapes, spot: Ceiling(
                provider="sim", name=f"{counts}{shapes}{spot}", limit=limit, committed=committed, counts=counts,
                shapes=shapes, spot=spot,
            ),
            st.integers(0, 40), st.integers(0, 40), st.sampled_from(("cpu", "gpu", "instances", "memory")),
            st.sampled_from(((), ("m*",), ("m4", "g1"))), st.sampled_from((None, None, True, False)),
        ),
        max_size=3, unique_by=lambda c: c.name,
    ),
)  # fmt: skip
def test_no_plan_asks_for_more_than_the_account_may_have(
    x: GroupView, y: GroupView, waiting: list[Demand], ceilings: list[Ceiling]
) -> None:
    made = decide([replace(each, limits=tuple(ceilings)) for each in (x, y)], waiting)
    launched = [step.shape for step in steps(made, Action.LAUNCH)]
    for each in ceilings:
        taken = sum(each.takes(one) for one in launched if one)
        assert taken == 0 or each.committed + taken <= each.limit
    assert set(launched) <= set(SHAPES)
