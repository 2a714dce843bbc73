"""Who makes room for a session of higher priority."""

from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from atoll.offer import Decision, Demand, Outcome
from atoll.slots import total
from atoll.states import Reason
from federation.routing.preempt import choose, lost_s, make_room, may_preempt
from federation.routing.schedule import NOTICE_S, schedule
from federation.routing.timeline import Running
from tests.federation.routing.builders import demand, launchable, request, seat, shape, slots
from tests.federation.routing.simple import index, waits

NOW = 10_000.0


def runs(
    session: str,
    agent: str = "a-1",
    cpu: float = 4,
    *,
    priority: int = 0,
    began: float = 9000.0,
    end: float = 20_000.0,
    preemptible: bool = True,
    checkpoint: bool = False,
    protected: bool = False,
    leaving: bool = False,
) -> Running:
    return Running(
        session=session,
        members=tuple((on, slots(cpu, 1)) for on in agent.split()),
        priority=priority,
        preemptible=preemptible,
        checkpoint=checkpoint,
        protected=protected,
        leaving=leaving,
        started_at=began,
        ends_at=end,
    )


def ask(session: str = "s-1", cpu: float = 4, *, priority: int = 5, nodes: int = 1) -> Demand:
    return replace(demand(session, request(cpu), nodes=nodes), priority=priority, queued_at=NOW)


def decide(*running: Running, asks: tuple[Demand, ...] = (), agents: int = 1) -> list[Decision]:
    held = {
        f"a-{n + 1}": total(amount for one in running for on, amount in one.members if on == f"a-{n + 1}")
        for n in range(agents)
    }
    return schedule(
        asks or (ask(),), index(*(seat(on, free=slots() - used) for on, used in held.items())), now=NOW, running=running
    )


def test_a_lower_priority_makes_room_and_the_slots_are_kept() -> None:
    other = replace(ask("s-2", 1, priority=0), queued_at=NOW + 1)
    found, behind = decide(runs("r-1"), asks=(ask(), other))
    assert (found.outcome, found.reason, found.preempts) == (Outcome.WAIT, Reason.PREEMPTS, ("r-1",))
    assert waits(found)[0].start_s == NOTICE_S
    assert behind.preempts == ()
    assert waits(behind)[0].start_s == NOTICE_S + 600.0


def test_not_equals_nor_protected_nor_those_who_did_not_opt_in_nor_those_who_go() -> None:
    for spared in (
        runs("r-1", priority=5),
        runs("r-1", protected=True),
        runs("r-1", preemptible=False),
        runs("r-1", leaving=True),
    ):
        assert not may_preempt(ask(), spared)
        (found,) = decide(spared)
        assert (found.preempts, found.reason) == ((), Reason.SLOTS_EXPECTED)


def test_no_one_goes_where_slots_fall_free_soon_or_are_being_made_free() -> None:
    soon = runs("r-1", end=NOW + NOTICE_S)
    (found,) = decide(soon, runs("r-2", "a-2"), agents=2)
    assert found.preempts == ()
    (found,) = decide(runs("r-1", end=NOW + 500, leaving=True), runs("r-2", "a-2"), agents=2)
    assert found.preempts == ()
    (found,) = decide(runs("r-1", end=NOW + 500), runs("r-2", "a-2"), agents=2)
    assert found.preempts == ("r-1",)


def test_nobody_goes_when_it_would_not_fit_even_then_or_can_be_launched() -> None:
    (found,) = decide(runs("r-1", cpu=2), runs("r-2", cpu=2, preemptible=False))
    assert found.preempts == ()
    index_ = index(seat("a-1", free=slots(0)), launch=[launchable(shape())])
    (found,) = schedule([ask()], index_, now=NOW, running=[runs("r-1")])
    assert (found.outcome, found.preempts) == (Outcome.LAUNCH, ())


def test_checkpoints_go_first_then_the_youngest_and_only_as_many_as_needed() -> None:
    (found,) = decide(runs("r-old", began=0.0), runs("r-new", "a-2", began=9990.0), agents=2)
    assert found.preempts == ("r-new",)
    (found,) = decide(runs("r-old", began=0.0, checkpoint=True), runs("r-new", "a-2", began=9990.0), agents=2)
    assert found.preempts == ("r-old",)
    (found,) = decide(runs("r-1", cpu=1), runs("r-2", cpu=1), runs("r-3", cpu=2), asks=(ask(cpu=2),))
    assert found.preempts == ("r-3",)


def test_no_one_is_a_victim_twice() -> None:
    first, second, third = decide(runs("r-1"), runs("r-2", "a-2"), asks=(ask("s-1"), ask("s-2"), ask("s-3")), agents=2)
    assert sorted(first.preempts + second.preempts) == ["r-1", "r-2"]
    assert (third.preempts, third.reason) == ((), Reason.SLOTS_EXPECTED)


def test_who_was_promised_a_victims_slots_keeps_them() -> None:
    first, second = decide(runs("r-1", end=NOW + 50), asks=(ask("s-1"), ask("s-2")))
    assert waits(first)[0].start_s == 50.0
    assert (second.preempts, waits(second)[0].start_s) == ((), 650.0)


def test_what_a_victim_leaves_over_is_for_the_next_one() -> None:
    asks = (ask("s-high", cpu=2), ask("s-low", cpu=2, priority=0))
    high, low = decide(runs("r-1", end=NOW + 5000), asks=asks)
    assert high.preempts == ("r-1",)
    assert waits(low)[0].start_s == NOTICE_S


def test_the_next_pass_sees_who_is_leaving_and_asks_no_one_else() -> None:
    (first,) = decide(runs("r-1"), runs("r-2", "a-2", began=0.0), agents=2)
    assert first.preempts == ("r-1",)
    (then,) = decide(runs("r-1", leaving=True, end=NOW + 300), runs("r-2", "a-2", began=0.0), agents=2)
    assert (then.preempts, waits(then)[0].start_s) == ((), 300.0)


def test_a_gang_takes_free_agents_first_and_a_victim_on_several_counts_once() -> None:
    (found,) = decide(runs("r-1", "a-1 a-2"), runs("r-3", "a-3", preemptible=False), asks=(ask(nodes=3),), agents=4)
    assert found.preempts == ("r-1",)
    assert len(waits(found)) == 3


def test_a_preempted_session_does_not_preempt_in_turn() -> None:
    asks = (ask("s-high", priority=9), ask("s-mid", priority=5))
    high, mid = decide(runs("r-mid", priority=5), runs("r-low", "a-2", preemptible=False), asks=asks, agents=2)
    assert (high.preempts, mid.preempts) == (("r-mid",), ())


def test_together_victims_are_at_one_site() -> None:
    one = replace(ask(nodes=2), together=True)
    rooms = [
        make_room(one, agent, site, slots(0), [(runs(f"r-{agent}", agent, began=began), slots())], NOW)
        for agent, site, began in (("a-1", "hall", 9999.0), ("a-2", "lab", 100.0), ("a-3", "lab", 100.0))
    ]
    found = choose(one, [room for room in rooms if room], NOW)
    assert found
    assert {room.site for room in found} == {"lab"}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 500), st.booleans(), st.booleans()), max_size=6))
def test_the_victims_on_an_agent_lose_little_more_than_the_best_choice_would(
    rows: list[tuple[int, int, bool, bool]],
) -> None:
    there = [
        (runs(f"r-{n}", cpu=cpu, began=NOW - elapsed, preemptible=able, checkpoint=saves), slots(cpu, 1))
        for n, (cpu, elapsed, able, saves) in enumerate(rows)
    ]
    one = ask()
    room = make_room(one, "a-1", "hall", slots(1), there, NOW)
    able = [pair for pair in there if may_preempt(one, pair[0])]
    ways = [
        way
        for count in range(len(able) + 1)
        for way in combinations(able, count)
        if 1000 + sum(amount.cpu for _, amount in way) >= 4000
    ]
    assert (room is None) is (not ways)
    if room:
        lost = sum(lost_s(victim, NOW) for victim in room.victims)
        least = min(sum(lost_s(victim, NOW) for victim, _ in way) for way in ways)
        assert least <= lost <= 3 * least
        cores = [victim.members[0][1].cpu for victim in room.victims]
        assert all(1000 + sum(cores) - each < 4000 for each in cores), "one of them is not needed"
