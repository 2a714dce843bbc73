"""Slots that fall free: when, for whom they are kept, and what others may do until then."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.offer import Demand, OfferKind, Outcome
from atoll.states import Reason
from federation.routing.reserve import FILL_S
from federation.routing.rules import Rules
from federation.routing.schedule import schedule
from federation.routing.timeline import OVERDUE_S, Running, Timeline, common
from tests.federation.routing.builders import demand, launchable, request, seat, shape, slots
from tests.federation.routing.simple import Cluster, Job, index, waits

NOW = 1000.0


def runs(
    agent: str, end: float | None, cpu: float = 4, *, began: float = 900.0, gpu: str = "", count: float = 0
) -> Running:
    return Running(
        session=f"r-{agent}-{end}", members=((agent, slots(cpu, 1, gpu, count)),), ends_at=end, started_at=began
    )


def ask(
    session: str, cpu: float = 4, *, lasts: float = 600.0, queued: float = NOW, most: int | None = None, nodes: int = 1
) -> Demand:
    return replace(demand(session, request(cpu), expected_s=lasts, max_price=most, nodes=nodes), queued_at=queued)


# -- when -----------------------------------------------------------------------------------------


def test_an_end_is_the_estimate_or_a_guess_from_how_long_it_has_run() -> None:
    assert runs("a", 1500.0).end(NOW) == (1500.0, False)
    assert runs("a", None, began=0.0).end(NOW) == (1500.0, True)
    assert runs("a", 950.0, began=800.0).end(NOW) == (1100.0, True)
    assert runs("a", 1000.0, began=999.0).end(NOW) == (NOW + OVERDUE_S, True)


def test_a_timeline_tells_the_least_over_a_time() -> None:
    line = Timeline(0.0, slots(1), [(10.0, slots(2, 0)), (10.0, slots(1, 0)), (20.0, slots(4, 0))])
    assert [line.least(at, at).cpu for at in (0, 9, 10, 20, 99)] == [1000, 1000, 4000, 8000, 8000]
    line.hold(slots(3, 0), 15.0, 30.0)
    assert [line.least(at, at).cpu for at in (10, 15, 20, 30)] == [4000, 1000, 5000, 8000]
    assert (line.least(10, 15).cpu, line.least(10, 15.5).cpu, line.least(20, 1e9).cpu) == (4000, 1000, 5000)
    line.free(slots(2, 0), 12.0, 20.0)
    assert [line.least(at, at).cpu for at in (10, 12, 15, 20)] == [4000, 6000, 3000, 5000]


def test_the_least_of_two_amounts_is_by_kind() -> None:
    one, other = slots(4, 1, "L4", 2), slots(1, 8, "L4", 1)
    assert common(one, other) == slots(1, 1, "L4", 1)
    assert common(slots(4), other).gpu_milli == 0


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 4)), max_size=8),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.integers(1, 4)), max_size=8),
    st.integers(0, 60),
    st.integers(0, 40),
)
def test_a_timeline_is_what_adding_up_second_by_second_gives(
    ends: list[tuple[int, int]], holds: list[tuple[int, int, int]], start: int, length: int
) -> None:
    line = Timeline(0.0, slots(2), [(float(at), slots(cpu, 0)) for at, cpu in sorted(ends)])
    for at, lasts, cpu in holds:
        line.hold(slots(cpu, 0), at, at + lasts)

    def free(second: int) -> int:
        held = sum(cpu for at, lasts, cpu in holds if at <= second < at + lasts)
        return 2 + sum(cpu for at, cpu in ends if at <= second) - held

    least = min(free(second) for second in range(start, max(start + length, start + 1)))
    assert line.least(start, start + length).cpu == 1000 * least


# -- for whom -------------------------------------------------------------------------------------


def test_who_waits_is_told_where_and_when() -> None:
    index_ = index(seat("a-1", slots(8, 32, "L4", 2), slots(8, 32)), launch=[launchable(shape(), room=0)])
    asks = replace(demand(asks=request(1, 1, 2)), queued_at=0.0)
    (found,) = schedule([asks], index_, now=NOW, running=[runs("a-1", NOW + 720, 0, gpu="L4", count=2)])
    assert (found.outcome, found.reason) == (Outcome.WAIT, Reason.SLOTS_EXPECTED)
    assert found.message == "1 cpu, 1.0 GiB, 2 x L4 free in about 12 min on agent a-1 at hall, and kept for it"
    (offer,) = waits(found)
    assert (offer.kind, offer.target, offer.start_s) == (OfferKind.WAIT, "a-1", 720.0)
    assert offer.cost == offer.parts.total == offer.parts.delay == 7200


def test_a_guess_is_called_one() -> None:
    (found,) = schedule([ask("s-1")], index(seat("a-1", free=slots(0))), now=NOW, running=[runs("a-1", None)])
    assert "in about 60 s" in found.message
    assert "a guess" in found.message


def test_what_would_start_it_is_the_hint() -> None:
    launch = [launchable(shape("m4", price=800_100))]
    dear = index(seat("a-1", free=slots(0)), seat("a-2", price=810_010), launch=launch)
    (found,) = schedule([ask("s-1", most=500_000)], dear, now=NOW, running=[runs("a-1", 9999.0)])
    assert found.hint == "raise max_price to 0.8101 USD to start at once"
    (found,) = schedule(
        [ask("s-1", most=500_000)],
        index(seat("a-1", free=slots(0)), launch=launch),
        now=NOW,
        running=[runs("a-1", 9e3)],
    )
    assert found.hint == "raise max_price to 0.8001 USD to have m4/z1/on-demand launched for it"


def test_others_fill_the_time_until_then_or_take_what_is_over() -> None:
    index_ = index(seat("a-1", free=slots(2)))
    asks = [
        ask("s-1", 3, queued=0),
        ask("s-2", 2, queued=1, lasts=500.0),
        ask("s-3", 1, queued=2, lasts=501.0),
        ask("s-4", 1, queued=3, lasts=500.0),
        ask("s-5", 1, queued=4, lasts=9999.0),
    ]
    running = [runs("a-1", 1500.0, 2)]
    found = {one.session: one for one in schedule(asks[:2], index_, now=NOW, running=running)}
    assert found["s-2"].outcome is Outcome.PLACE, "it ends in time"
    found = {one.session: one for one in schedule([asks[0], *asks[2:]], index_, now=NOW, running=running)}
    assert found["s-3"].outcome is Outcome.PLACE, "one core is over even then"
    assert found["s-4"].outcome is Outcome.PLACE
    assert found["s-5"].outcome is Outcome.WAIT
    wide = replace(asks[4], request=request(2))
    (kept,) = schedule([asks[0], wide], index_, now=NOW, running=running)[1].rejected
    assert (kept.reason, kept.target) == (Reason.RESERVED, "a-1")
    assert kept.message == "has room now, but is kept for s-1 in 8 min"
    foreign = [replace(asks[0], project="theirs"), wide]
    (kept,) = schedule(foreign, index_, now=NOW, running=running)[1].rejected
    assert kept.message == "has room now, but is kept for an earlier session in 8 min"


def test_no_one_is_promised_what_another_was() -> None:
    asks = [ask(f"s-{n}", queued=n) for n in range(3)]
    found = schedule(asks, index(seat("a-1", free=slots(0))), now=NOW, running=[runs("a-1", 1100.0)])
    assert [waits(one)[0].start_s for one in found] == [100.0, 700.0, 1300.0]


def test_a_start_after_start_by_is_no_offer_and_one_past_the_deadline_is_said_to_be() -> None:
    index_, running = index(seat("a-1", free=slots(0))), [runs("a-1", 1100.0)]
    (found,) = schedule([replace(ask("s-1"), start_by=1099.0)], index_, now=NOW, running=running)
    assert (found.reason, waits(found)) == (Reason.NO_FREE_SLOTS, [])
    (found,) = schedule([replace(ask("s-1"), due_at=1699.0)], index_, now=NOW, running=running)
    assert found.message.endswith("too late for its deadline")


def test_closed_agents_are_not_waited_for() -> None:
    (found,) = schedule(
        [ask("s-1")], index(seat("a-1", free=slots(0), closed=Reason.LINK_DOWN)), now=NOW, running=[runs("a-1", 1100.0)]
    )
    assert waits(found) == []


# -- waiting although it could start --------------------------------------------------------------

LAUNCH = shape(price=3_600_000)
"""One unit a second's worth for each thousand: 600 s cost 0.6, and 60 s to start."""


@pytest.mark.parametrize(
    ("end", "queued", "rules", "waits_"),
    [
        (1060.0, NOW, Rules(), True),  # costs nothing, and is no later
        (1110.0, NOW, Rules(), True),
        (1130.0, NOW, Rules(), False),  # beyond its patience
        (1110.0, 980.0, Rules(), False),  # beyond its patience in all
        (1110.0, NOW, Rules(wait_value=20_000), False),  # 110 s are worth 2.2 units, the launch costs 0.66 and 1.2
        (1110.0, NOW, Rules(wait_value=10_000), True),
        (1900.0, NOW, Rules(patience_s=1000.0), True),
        (None, NOW, Rules(), False),  # a guess
    ],
)
def test_a_launch_is_chosen_unless_a_short_sure_wait_costs_less(
    end: float | None, queued: float, rules: Rules, waits_: bool
) -> None:
    index_ = index(seat("a-1", free=slots(0)), launch=[launchable(LAUNCH)])
    (found,) = schedule([ask("s-1", queued=queued)], index_, now=NOW, rules=rules, running=[runs("a-1", end)])
    assert found.outcome is (Outcome.WAIT if waits_ else Outcome.LAUNCH)
    if waits_:
        assert found.reason is Reason.SLOTS_EXPECTED
        assert found.ranked[0].kind is OfferKind.WAIT
        assert found.ranked[1].kind is OfferKind.LAUNCH
        assert found.ranked[0].cost < found.ranked[1].cost
        assert found.hint.startswith("m4/z1/on-demand could start it in 60 s, for an expected 0.")


def test_a_wait_beats_a_dear_free_agent_too_and_leaves_that_to_others() -> None:
    index_ = index(seat("a-1", free=slots(0)), seat("a-2", price=3_600_000))
    asks = [ask("s-1"), ask("s-2", queued=NOW + 1)]
    found = schedule(asks, index_, now=NOW, running=[runs("a-1", 1050.0)])
    assert [one.outcome for one in found] == [Outcome.WAIT, Outcome.PLACE]
    assert found[0].hint == "a-2 could start it at once, for an expected 0.5995 USD more"


def test_no_wait_past_the_deadline_when_it_can_be_met_by_a_launch() -> None:
    index_ = index(seat("a-1", free=slots(0)), launch=[launchable(LAUNCH)])
    for due, outcome in ((1700.0, Outcome.WAIT), (1699.0, Outcome.LAUNCH)):
        (found,) = schedule([replace(ask("s-1"), due_at=due)], index_, now=NOW, running=[runs("a-1", 1100.0)])
        assert found.outcome is outcome


def test_a_launch_that_is_waited_out_is_not_counted() -> None:
    index_ = index(seat("a-1", free=slots(0)), launch=[launchable(LAUNCH, room=1)])
    found = schedule([ask("s-1"), ask("s-2")], index_, now=NOW, running=[runs("a-1", 1050.0)])
    assert [one.outcome for one in found] == [Outcome.WAIT, Outcome.LAUNCH]


# -- in virtual time ------------------------------------------------------------------------------


def test_a_large_session_starts_under_an_endless_stream_of_small_ones() -> None:
    cluster = Cluster([seat(f"a-{n}") for n in range(3)])
    small = [Job(n * 12.0, demand(f"s-{n:04}", request(1 + n % 2), expected_s=60.0 + n % 50)) for n in range(400)]
    large = [Job(100.0, demand("s-whole", request(4), expected_s=50.0)),
             Job(200.0, demand("s-gang", request(4), nodes=3, expected_s=50.0))]  # fmt: skip
    cluster.run(small + large)
    assert cluster.started["s-whole"] - 100 <= 110
    assert cluster.started["s-gang"] - 200 <= 220
    assert len(cluster.started) == 402
    assert max(cluster.started[job.demand.session] - job.at for job in small) <= 400


def test_large_sessions_start_even_where_every_estimate_is_wrong() -> None:
    cluster = Cluster([seat(f"a-{n}") for n in range(2)])
    small = [
        Job(n * 9.0, demand(f"s-{n:04}", request(1), expected_s=30.0), really=20.0 + 37 * n % 101) for n in range(300)
    ]
    cluster.run([*small, Job(100.0, demand("s-gang", request(4), nodes=2, expected_s=50.0))])
    assert cluster.started["s-gang"] - 100 <= FILL_S + 120, "others fill its time until then, and run for 120 s at most"
    assert len(cluster.started) == 301


JOBS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 4), st.integers(1, 200), st.sampled_from((1, 1, 1, 2))),
    min_size=1,
    max_size=14,
)


@settings(max_examples=120)
@given(JOBS)
def test_backfill_never_delays_the_head_and_everyone_starts(rows: list[tuple[int, int, int, int]]) -> None:
    jobs = [
        Job(float(at), demand(f"s-{n:02}", request(cpu, 0), expected_s=float(lasts), nodes=nodes))
        for n, (at, cpu, lasts, nodes) in enumerate(rows)
    ]
    cluster = Cluster([seat("a-1"), seat("a-2")])
    cluster.run(jobs)
    assert len(cluster.started) == len(jobs)
    assert not cluster.waiting
    bound = sum(job.demand.expected_s for job in jobs)
    for job in jobs:
        assert cluster.started[job.demand.session] - job.at <= bound
    for before in cluster.headed.values():
        assert before == sorted(before, reverse=True), "the head of the queue was put off"
    for session, promised in cluster.headed.items():
        assert cluster.started[session] <= promised[-1]
