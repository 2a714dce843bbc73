"""Moves off paid agents: for money, back to spot, and because the machine must be left."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.group import Group, GroupKind, ScaleDown
from atoll.offer import OfferKind
from atoll.plan import Move
from atoll.session import Checkpoint
from atoll.slots import Slots
from atoll.states import AgentState, Reason
from autoscaler.consolidate import back_to_spot, consolidate, evacuate, moves
from autoscaler.demand import may_use
from autoscaler.spot import Pace
from autoscaler.view import AgentView, GroupView, PendingView, RunningView
from tests.autoscaler.builders import agent, decide, demand, group, request, shape, steps, view

HOUR = 3600.0
SAVES = Checkpoint(lost=60, grace=30, every=300)


def run(name: str, cpu: float = 1, *, left_s: float = 10 * HOUR, ran_s: float = 1000.0, **more: object) -> RunningView:
    given: dict[str, object] = {"attempt": 2, "checkpoint": SAVES, **more}
    return RunningView(session=name, demand=demand(name, cpu), left_s=left_s, ran_s=ran_s, **given)  # type: ignore[arg-type]


def busy(name: str, *runs: RunningView, cpu: float = 4, price: int = 100_000, **more: object) -> AgentView:
    made = shape(cpu, price)
    free = made.slots
    for one in runs:
        taken = free.take(one.demand.request)
        assert taken is not None
        free = free - taken
    found = agent(name, on=made, sessions=tuple(one.session for one in runs), free=free, **more)  # type: ignore[arg-type]
    return dataclasses.replace(found, running=runs)


def asks(*, least: int = 0, **pools: object) -> Group:
    return dataclasses.replace(
        group(least=least, **pools),  # type: ignore[arg-type]
        scale_down=ScaleDown(idle_s=60, cooldown_s=30, consolidate=True),
    )


def crowd(*, least: int = 0, **more: object) -> GroupView:
    """One agent with a small session, one with room for it."""
    both = view(busy("a-1", run("s-1")), busy("a-2", run("s-2", 3)), of=asks(least=least))
    return dataclasses.replace(both, **more)  # type: ignore[arg-type]


def targets(made: tuple[Move, ...]) -> list[tuple[str, str]]:
    return [(move.session, move.to[0].target if move.to else "") for move in made]


def test_the_least_used_agent_is_emptied_onto_another() -> None:
    [move] = consolidate(crowd())
    assert (move.session, move.attempt, move.reason) == ("s-1", 2, Reason.CONSOLIDATION)
    [offer] = move.to
    assert (offer.kind, offer.target, offer.group, offer.price) == (OfferKind.AGENT, "a-2", "cloud", 25_000)
    assert offer.slots.cpu == 1000
    assert move.saving == 100_000 * 10 - 100_000 * 90 // 3600 - -(-100_000 * 90 // 3600)
    assert move.lost == -(-25_000 * 60 // 3600) + 90 * 10
    assert "a-1" in move.message
    assert "saves" in move.message


def test_only_where_it_was_asked_for_and_the_plan_carries_it() -> None:
    assert decide(crowd()).moves == consolidate(crowd())
    assert decide(dataclasses.replace(crowd(), group=group())).moves == ()


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": None},
        {"protected": True},
        {"moving": True},
        {"ran_s": 299.0},
        {"left_s": 60.0},
        {"demand": dataclasses.replace(demand("s-1"), nodes=2)},
    ],
)
def test_all_sessions_can_be_moved_or_none_is(change: dict[str, object]) -> None:
    fixed = dataclasses.replace(run("s-1"), **change)  # type: ignore[arg-type]
    both = busy("a-1", fixed, run("s-3"))
    full = busy("a-2", run("s-2", 2))
    assert targets(consolidate(view(busy("a-1", run("s-1"), run("s-3")), full, of=asks()))) in (
        [("s-1", "a-2"), ("s-3", "a-2")],
        [("s-2", "a-1")],
    )
    keep = view(
        both, dataclasses.replace(full, running=(dataclasses.replace(run("s-2", 2), protected=True),)), of=asks()
    )
    if "left_s" in change:
        assert targets(consolidate(keep)) == [("s-1", "a-2"), ("s-3", "a-2")], "one of them stays for long"
    else:
        assert consolidate(keep) == ()


def test_a_session_that_the_views_do_not_know_keeps_its_agent() -> None:
    unknown = dataclasses.replace(busy("a-1", run("s-1")), sessions=("s-1", "s-9"))
    sealed = dataclasses.replace(busy("a-2", run("s-2", 3)), protected=True)
    assert consolidate(view(unknown, sealed, of=asks())) == ()


def test_nothing_is_moved_where_the_group_must_stay_as_it_is() -> None:
    assert consolidate(crowd(least=2)) == ()
    assert consolidate(crowd(since_growth_s=29.0)) == ()
    assert (
        consolidate(view(busy("a-1", run("s-1")), busy("a-2", run("s-2", 3)), of=asks(hot=request(1), hot_count=4)))
        == ()
    )
    assert consolidate(view(busy("a-1", run("s-1")), agent("a-2"), of=asks())) == (), "an empty one is ended itself"
    assert consolidate(view(busy("a-1", run("s-1")), busy("a-2", run("s-2", 4)), of=asks())) == (), "no room"


def test_moves_wait_for_calm() -> None:
    calm = moves([crowd()], (), 0.0)
    assert calm
    assert moves([crowd()], ("cloud",), 0.0) == ()
    assert moves([crowd(settled=False)], (), 0.0) == ()
    assert moves([crowd(pending=(PendingView(instance="i-1", shape=shape()),))], (), 0.0) == ()
    going = busy("a-3", run("s-3", 4, moving=True))
    assert moves([dataclasses.replace(crowd(), agents=(*crowd().agents, going))], (), 0.0) == ()


def test_a_longer_life_of_the_other_agent_is_no_saving() -> None:
    short = busy("a-2", run("s-2", 3, left_s=180, checkpoint=None))
    assert consolidate(view(busy("a-1", run("s-1")), short, of=asks())) == (), "both run for another 3 min only"
    cheap = busy("a-2", run("s-2", 3, left_s=600, checkpoint=None), price=20_000)
    [move] = consolidate(view(busy("a-1", run("s-1")), cheap, of=asks()))
    assert move.saving == 997_500 - 197_167


def test_time_that_is_paid_for_is_no_saving() -> None:
    paid = dataclasses.replace(busy("a-1", run("s-1", left_s=HOUR)), paid_s=3590.0)
    fixed = busy("a-2", run("s-2", 3, checkpoint=None))
    assert consolidate(view(dataclasses.replace(paid, paid_s=0.0), fixed, of=asks()))
    assert consolidate(view(paid, fixed, of=asks())) == ()


def test_an_overdue_drain_moves_what_can_be_moved_and_the_rest_stays() -> None:
    drains = dataclasses.replace(
        busy("a-1", run("s-1", ran_s=0), run("s-2", protected=True), run("s-3", checkpoint=None), run("s-4")),
        state=AgentState.DRAINING, by_user=True, drain_left_s=0.0,
    )  # fmt: skip
    room = busy("a-2", run("s-5", 3))
    made = evacuate(view(drains, room))
    assert targets(made) == [("s-1", "a-2"), ("s-4", "")], "the second finds no room: it goes to the queue"
    assert {move.reason for move in made} == {Reason.USER}
    assert evacuate(view(dataclasses.replace(drains, drain_left_s=1.0), room)) == ()
    assert evacuate(view(dataclasses.replace(drains, drain_left_s=None), room)) == ()
    assert evacuate(view(dataclasses.replace(drains, state=AgentState.READY), room)) == (), "cancelled"
    assert evacuate(view(dataclasses.replace(drains, connected=False), room)) == (), "nobody to ask"


def test_own_machines_can_be_drained_by_a_deadline_too() -> None:
    own = group(kind=GroupKind.FIXED)
    drains = dataclasses.replace(busy("a-1", run("s-1")), state=AgentState.DRAINING, by_user=True, drain_left_s=-5.0)
    assert targets(moves([view(drains, agent("a-2"), of=own)], (), 0.0)) == [("s-1", "a-2")]
    calm = dataclasses.replace(crowd(), group=dataclasses.replace(asks(), kind=GroupKind.FIXED))
    assert moves([calm], (), 0.0) == (), "nothing is saved by emptying them"


def test_a_notice_saves_protected_sessions_too() -> None:
    noticed = busy("a-1", run("s-1", protected=True, ran_s=0), run("s-2", checkpoint=None), notice=True)
    [move] = moves([view(noticed)], (), 0.0)
    assert (move.session, move.to, move.reason) == ("s-1", (), Reason.SPOT_NOTICE)


PACE = Pace(since=0.0, due_at=30 * HOUR, work_s=20 * HOUR, left_s=10 * HOUR, changeover_s=300.0)


def test_a_session_with_time_enough_goes_back_to_spot() -> None:
    spot, dear = shape(4, 30_000, spot=True), shape(4, 100_000)
    one = view(busy("a-1", run("s-1", 4, pace=PACE)), shapes=(spot, dear))
    [move] = back_to_spot(one, [one], 10 * HOUR)
    assert (move.session, move.to, move.reason) == ("s-1", (), Reason.SPOT_RETURN)
    assert move.saving == 70_000 * 10
    assert moves([one], (), 10 * HOUR) == (move,)
    behind = dataclasses.replace(PACE, left_s=19 * HOUR)
    for other in (
        dataclasses.replace(one, blocked={spot.key: "no capacity"}),
        dataclasses.replace(one, ending=3),
        view(busy("a-1", run("s-1", 4, pace=behind)), shapes=(spot, dear)),
        view(busy("a-1", run("s-1", 4)), shapes=(spot, dear)),
        view(busy("a-1", run("s-1", 4, pace=PACE, checkpoint=None)), shapes=(spot, dear)),
        view(busy("a-1", run("s-1", 4, pace=PACE)), shapes=(shape(4, 99_000, spot=True), dear)),
    ):
        assert back_to_spot(other, [other], 10 * HOUR) == ()


RUNS = st.builds(
    lambda cpu, left, ran, able, protected, moving: (cpu, left, ran, able, protected, moving),
    st.sampled_from((0.5, 1, 2, 4)), st.sampled_from((60.0, HOUR, 20 * HOUR)), st.sampled_from((0.0, 1000.0)),
    st.sampled_from((True, True, True, False)), st.sampled_from((False, False, False, True)),
    st.sampled_from((False,) * 6 + (True,)),
)  # fmt: skip


@st.composite
def fleets(draw: st.DrawFn) -> GroupView:
    agents = []
    for n in range(draw(st.integers(1, 5))):
        cpu = draw(st.sampled_from((4.0, 8.0)))
        free, runs = shape(cpu).slots, list[RunningView]()
        for m, (need, left, ran, able, protected, moving) in enumerate(draw(st.lists(RUNS, max_size=3))):
            one = run(
                f"s-{n}-{m}", need, left_s=left, ran_s=ran, protected=protected, moving=moving,
                checkpoint=SAVES if able else None,
            )  # fmt: skip
            taken = free.take(one.demand.request)
            if taken is not None:
                free, runs = free - taken, [*runs, one]
        found = busy(f"a-{n}", *runs, cpu=cpu, price=draw(st.sampled_from((50_000, 100_000, 300_000))))
        agents.append(
            dataclasses.replace(
                found,
                protected=any(one.protected for one in runs),
                state=draw(st.sampled_from((AgentState.READY,) * 3 + (AgentState.DRAINING,))),
                notice=draw(st.sampled_from((False,) * 5 + (True,))),
                drain_left_s=draw(st.sampled_from((None, None, 0.0, 60.0))),
                paid_s=draw(st.sampled_from((0.0, 3000.0))),
            )
        )
    least, hot = draw(st.integers(0, 2)), draw(st.integers(0, 3))
    return GroupView(group=asks(least=least, hot=request(2), hot_count=hot), agents=tuple(agents), shapes=(shape(),))


@settings(max_examples=300)
@given(fleets())
def test_no_move_breaks_a_promise(found: GroupView) -> None:
    made = moves([found], (), 0.0)
    assert made == moves([found], (), 0.0)
    home = {one.session: (where, one) for where in found.agents for one in where.running}
    free: dict[str, Slots] = {where.id: where.free for where in found.agents}
    for move in made:
        where, one = home[move.session]
        assert one.checkpoint
        assert not one.moving
        assert not one.protected or where.notice
        for offer in move.to:
            there = next(each for each in found.agents if each.id == offer.target)
            assert there.state is AgentState.READY
            assert not there.notice
            assert there is not where
            assert may_use(one.demand, found.group, there.shape)
            free[there.id] = free[there.id] - offer.slots
            assert free[there.id].covers(Slots()), "more than it has"
    assert len({move.session for move in made}) == len(made)
    for_money = [move for move in made if move.reason is Reason.CONSOLIDATION]
    if for_money:
        [source] = {home[move.session][0].id for move in for_money}
        emptied = next(each for each in found.agents if each.id == source)
        assert {move.session for move in for_money} == set(emptied.sessions), "all of them or none"
        assert sum(move.saving for move in for_money) > sum(move.lost for move in for_money)
        assert len(made) == len(for_money)
        staying = [each for each in found.agents if each.state is AgentState.READY and not each.notice]
        assert len(staying) > found.group.size.min


def test_a_consolidated_agent_goes_the_usual_way() -> None:
    [move] = consolidate(crowd())
    after = view(
        agent("a-1", on=shape(4, 100_000), idle_s=61), busy("a-2", run("s-2", 3), run(move.session)), of=asks()
    )
    made = decide(after)
    assert [step.agent for step in made.steps] == ["a-1"]
    assert made.moves == ()
    assert steps(made, made.steps[0].action)[0].reason is Reason.IDLE
