"""Machines on their way and stopped ones as offers: who joins what, in which order, and what is said of it."""

from dataclasses import replace

from atoll import money
from atoll.offer import Decision, OfferKind, Outcome
from atoll.states import Reason
from federation.routing.capacity import Capacity, Launchable, Seat, Standby
from federation.routing.place import Trial, route
from federation.routing.rules import Rules
from tests.federation.routing.builders import demand, launchable, request, seat, shape, slots, standby
from tests.federation.routing.simple import index

COLD, PENDING, LAUNCH = OfferKind.COLD, OfferKind.PENDING, OfferKind.LAUNCH


def there(*standbys: Standby, seats: tuple[Seat, ...] = (), launch: tuple[Launchable, ...] = ()) -> Capacity:
    capacity = index(*seats, launch=launch)
    capacity.set_standbys(standbys)
    return capacity


def taken(*decisions: Decision) -> list[tuple[OfferKind, str]]:
    return [(offer.kind, offer.target) for decision in decisions for offer in decision.taken]


def test_a_session_joins_a_machine_on_its_way_and_pays_its_share() -> None:
    capacity = there(standby("i-1"), launch=(launchable(shape()),))
    (found,) = route([demand()], capacity)
    assert (found.outcome, found.reason) == (Outcome.LAUNCH, Reason.WAITING_FOR_INSTANCE)
    assert found.message == "joins instance i-1 of group cloud, there in about 30 s, 0.0250 USD an hour"
    assert [(offer.kind, offer.cost) for offer in found.ranked] == [
        (PENDING, money.cost(25_000, 630) + 300),
        (LAUNCH, money.cost(100_000, 660) + 600),
    ]
    assert found.taken == found.ranked[:1]
    assert found.for_planner


def test_what_is_over_is_given_once_and_the_next_has_a_machine_made() -> None:
    capacity = there(standby("i-1", free=slots(2)), launch=(launchable(shape()),))
    decisions = route([demand(f"s-{n}") for n in range(4)], capacity)
    assert taken(*decisions) == [(PENDING, "i-1")] * 2 + [(LAUNCH, "m4/z1/on-demand")] * 2
    assert taken(*route([demand()], capacity)) == [(PENDING, "i-1")], "the index is as it was"


def test_a_session_is_told_of_the_machine_that_is_made_for_it_though_nothing_is_over_there() -> None:
    mine = standby("i-2", free=slots(0, 0), sessions=("s-1", "s-2"))
    capacity = there(standby("i-1"), mine)
    decisions = route([demand("s-1"), demand("s-3"), demand("s-2")], capacity)
    assert taken(*decisions) == [(PENDING, "i-2"), (PENDING, "i-1"), (PENDING, "i-2")]
    (late,) = route([demand("s-3", request(5))], capacity)
    assert late.outcome is Outcome.HOLD
    (full,) = route([demand("s-3")], there(mine, launch=(launchable(shape(), room=0),)))
    assert [(no.target, no.reason, no.message) for no in full.rejected][-1] == (
        "i-2",
        Reason.NO_FREE_SLOTS,
        "is on its way with 0 cpu, 0.0 GiB to spare; asks 1 cpu, 1.0 GiB",
    )


def test_a_stopped_machine_is_started_before_one_like_it_is_made_and_others_join_it() -> None:
    capacity = there(standby("i-1", shape(has=slots(2)), kind=COLD), launch=(launchable(shape(has=slots(2))),))
    decisions = route([demand(f"s-{n}") for n in range(3)], capacity)
    assert taken(*decisions) == [(COLD, "i-1")] * 2 + [(LAUNCH, "m4/z1/on-demand")]
    first, second, _ = decisions
    assert first.message.startswith("best served by instance i-1 of group cloud, stopped now: about 30 s to start")
    assert first.taken[0].cost == money.cost(100_000, 630) + 300, "the whole of it, until others join"
    assert second.taken[0].cost == money.cost(50_000, 630) + 300
    (alone,) = route([demand(asks=request(4))], there(standby("i-1", free=slots(2))))
    assert (alone.outcome, alone.reason) == (Outcome.WAIT, Reason.NO_FREE_SLOTS), "capable, if not now"
    full = there(standby("i-1", kind=COLD, room=0), launch=(launchable(shape(), room=0),))
    (found,) = route([demand()], full)
    assert (found.reason, found.ranked) == (Reason.GROUP_FULL, ())
    assert ("i-1", Reason.MAX_SIZE) in {(no.target, no.reason) for no in found.rejected}


def test_a_stopped_machine_is_started_rather_than_one_made_where_a_share_of_it_costs_no_more() -> None:
    large = standby("i-1", shape(has=slots(8), price=200_000), kind=COLD)
    for price, expected in ((100_000, (COLD, "i-1")), (20_000, (LAUNCH, "m4/z1/on-demand"))):
        assert taken(*route([demand()], there(large, launch=(launchable(shape(price=price)),)))) == [expected]
    busy = seat("a-1", price=400_000)
    assert taken(*route([demand()], there(large, seats=(busy,)))) == [(OfferKind.AGENT, "a-1")], (
        "the whole of it counts"
    )


def test_starting_a_machine_uses_up_the_room_of_its_group() -> None:
    capacity = there(
        standby("i-1", shape(has=slots(1)), kind=COLD, room=1), launch=(launchable(shape(has=slots(1)), room=1),)
    )
    first, second = route([demand("s-1"), demand("s-2")], capacity)
    assert taken(first) == [(COLD, "i-1")]
    assert (second.outcome, second.reason) == (Outcome.WAIT, Reason.GROUP_FULL)
    assert second.ranked == (), "what an earlier session takes is no offer"
    assert second.for_planner


def test_free_slots_are_taken_unless_what_comes_is_cheaper_with_the_wait_counted() -> None:
    on_its_way = standby("i-1", start_s=10)
    for price, expected in ((80_000, "a-1"), (400_000, "i-1")):
        capacity = there(on_its_way, seats=(seat("a-1", price=price),))
        (found,) = route([demand()], capacity)
        assert found.taken[0].target == expected
        assert {offer.target for offer in found.ranked} == {"a-1", "i-1"}


def test_a_gang_gets_a_machine_a_member() -> None:
    standbys = (standby("i-1"), standby("i-2", kind=COLD), standby("i-3", free=slots(0, 0)))
    capacity = there(*standbys, seats=(seat("a-1", site="cloud"),), launch=(launchable(shape()),))
    (found,) = route([replace(demand(nodes=4), together=True)], capacity)
    assert taken(found) == [(PENDING, "i-1"), (COLD, "i-2"), (LAUNCH, "m4/z1/on-demand")]
    assert found.message == (
        "best served by instance i-1 of group cloud, on the way and instance i-2 of group cloud, stopped now "
        "and 1 x m4/z1/on-demand of group cloud, not there yet: about 60 s to start, 0.0750 USD an hour"
    )
    own = replace(demand("s-9", nodes=2), together=True)
    promised = [standby(f"i-{n}", free=slots(0, 0), sessions=("s-9",)) for n in range(2)]
    assert taken(*route([demand("s-1"), own], there(*promised, standby("i-5")))) == [
        (PENDING, "i-5"),
        (PENDING, "i-0"),
        (PENDING, "i-1"),
    ]


def test_limits_hold_for_what_comes_as_for_what_is_launched() -> None:
    spot = standby("i-1", shape(spot=True))
    for asked in (demand(spot=False), demand(max_price=24_999), demand(sites=("hall",)), demand(asks=request(5))):
        (found,) = route([asked], there(spot, seats=(seat("a-1", slots(8), free=slots(0, 0)),)))
        assert found.outcome is Outcome.WAIT
        assert found.ranked == ()
    assert taken(*route([demand(max_price=25_000)], there(spot))) == [(PENDING, "i-1")]


def test_what_a_trial_takes_back_is_free_again() -> None:
    trial = Trial(there(standby("i-1", free=slots(1)), standby("i-2", kind=COLD, room=1)), rules=Rules())
    mark = trial.mark()
    before = [trial.decide(demand(f"s-{n}")) for n in range(2)]
    trial.back(mark)
    assert [trial.decide(demand(f"s-{n}")) for n in range(2)] == before
    assert taken(*before) == [(PENDING, "i-1"), (COLD, "i-2")]
    trial.undo()
