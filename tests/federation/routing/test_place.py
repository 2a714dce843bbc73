"""What the router decides, one rule a test."""

from dataclasses import replace

import pytest

from atoll.offer import Demand, OfferKind, Outcome
from atoll.slots import GIB, GpuRequest, Request
from atoll.states import Reason
from federation.routing.capacity import Capacity, Launchable, Seat
from federation.routing.place import SHOWN, rank, route
from federation.routing.rules import Candidate, Rules, Ruling
from tests.federation.routing.builders import demand, launchable, request, seat, shape, slots


def capacity(*seats: Seat, launch: tuple[Launchable, ...] = ()) -> Capacity:
    index = Capacity()
    for one in seats:
        index.put_seat(one)
    for group in {found.group for found in launch}:
        index.set_launchables(group, [found for found in launch if found.group == group])
    return index


def test_cheapest_capable_agent_wins() -> None:
    index = capacity(seat("a-dear", price=400_000), seat("a-cheap", price=100_000), seat("a-tiny", slots(0.5)))
    (decision,) = route([demand()], index)
    assert decision.outcome is Outcome.PLACE
    assert decision.reason is Reason.PLACED
    assert [offer.target for offer in decision.taken] == ["a-cheap"]
    assert decision.taken[0].price == 25_000
    assert [offer.target for offer in decision.ranked] == ["a-cheap", "a-dear"]
    assert [(no.target, no.reason) for no in decision.rejected] == [("a-tiny", Reason.NO_CAPABLE_SITE)]
    assert decision.considered == 3


def test_a_placement_takes_slots_within_the_call_and_leaves_the_index_alone() -> None:
    index = capacity(seat("a-1", slots(2)))
    first, second, third = route([demand(f"s-{n}") for n in range(3)], index)
    assert [d.outcome for d in (first, second, third)] == [Outcome.PLACE, Outcome.PLACE, Outcome.WAIT]
    assert third.reason is Reason.NO_FREE_SLOTS
    assert route([demand()], index)[0].outcome is Outcome.PLACE
    found = index.seat("a-1")
    assert found is not None
    assert found.free == slots(2)


def test_free_on_prem_beats_cloud_and_a_session_without_gpu_avoids_gpu_machines() -> None:
    index = capacity(
        seat("a-gpu", slots(8, 32, "L4", 1)), seat("a-cpu", slots(4)), seat("a-cloud", price=50_000, site="aws")
    )
    (decision,) = route([demand()], index)
    assert decision.taken[0].target == "a-cpu"


def test_a_cheap_launch_beats_a_dear_agent_only_when_the_saving_exceeds_the_delay() -> None:
    index = capacity(seat("a-dear", slots(1), price=200_000), launch=(launchable(shape(has=slots(1), price=20_000)),))
    long, short = route([demand("s-long", expected_s=3600), demand("s-short", expected_s=10)], index)
    assert long.outcome is Outcome.LAUNCH
    assert long.reason is Reason.WAITING_FOR_INSTANCE
    assert long.taken[0].kind is OfferKind.LAUNCH
    assert short.outcome is Outcome.PLACE


def test_at_an_equal_price_the_sooner_wins() -> None:
    index = capacity(seat("a-1", slots(1), price=100_000), launch=(launchable(shape(has=slots(1), price=100_000)),))
    assert route([demand(expected_s=86_400)], index)[0].outcome is Outcome.PLACE


def test_a_launch_is_priced_alone_and_joined_by_the_next() -> None:
    index = capacity(launch=(launchable(shape(has=slots(2)), room=1),))
    first, second, third = route([demand(f"s-{n}") for n in range(3)], index)
    assert first.outcome is second.outcome is Outcome.LAUNCH
    assert first.taken[0].cost > second.taken[0].cost
    assert (third.outcome, third.reason) == (Outcome.WAIT, Reason.GROUP_FULL)


@pytest.mark.parametrize("price", [None, 0])
def test_a_shape_without_a_price_never_wins(price: int | None) -> None:
    index = capacity(launch=(launchable(shape("free", price=price)), launchable(shape("priced"))))
    (decision,) = route([demand()], index)
    assert decision.taken[0].target.startswith("priced/")
    assert "price is unknown" in decision.rejected[0].message


def test_gangs_take_distinct_agents_or_nothing() -> None:
    index = capacity(seat("a-1"), seat("a-2"))
    pair, trio = route([demand("s-2", nodes=2), demand("s-3", nodes=3)], index)
    assert {offer.target for offer in pair.taken} == {"a-1", "a-2"}
    assert (trio.outcome, trio.taken) == (Outcome.WAIT, ())


def test_a_gang_launches_what_is_missing_only_when_there_is_room_for_all() -> None:
    index = capacity(seat("a-1"), launch=(launchable(shape(), room=2),))
    pair, five, single = route([demand("s-2", nodes=2), demand("s-5", nodes=5), demand("s-1", request(4))], index)
    assert (pair.outcome, len(pair.taken)) == (Outcome.LAUNCH, 1)
    assert (five.outcome, five.reason) == (Outcome.WAIT, Reason.GROUP_FULL)
    assert single.outcome is Outcome.PLACE


def test_an_impossible_request_is_held_with_the_nearest_miss() -> None:
    index = capacity(seat("a-1"), launch=(launchable(shape("p4", slots(96, 1000, "A100", 8))),))
    (decision,) = route([demand(asks=request(gpu=9000))], index)
    assert (decision.outcome, decision.reason) == (Outcome.HOLD, Reason.NO_CAPABLE_SITE)
    assert decision.message == "asks 9000 GPUs; the largest agent has 0, the largest shape 8"
    assert decision.hint.startswith("ask for at most 8")


def test_an_unknown_gpu_model_is_held_and_told_which_there_are() -> None:
    index = capacity(seat("a-1", slots(8, 32, "L4", 1)))
    (decision,) = route([demand(asks=request(gpu=1, models=("H100",)))], index)
    assert decision.reason is Reason.NO_CAPABLE_SITE
    assert "H100" in decision.message
    assert "L4" in decision.hint


def test_nothing_at_all_is_held_with_a_way_out() -> None:
    (decision,) = route([demand()], Capacity())
    assert (decision.outcome, decision.reason) == (Outcome.HOLD, Reason.NO_CAPABLE_SITE)
    assert "atoll agent join" in decision.hint


def test_only_cost_limits_in_the_way_is_price_limit() -> None:
    index = capacity(seat("a-1", price=400_000), launch=(launchable(shape(spot=True)),))
    (decision,) = route([demand(max_price=1000, spot=False)], index)
    assert (decision.outcome, decision.reason) == (Outcome.HOLD, Reason.PRICE_LIMIT)
    assert {no.reason for no in decision.rejected} == {Reason.PRICE_LIMIT}


@pytest.mark.parametrize(
    ("asked", "prices", "hint"),
    [
        (demand(max_price=50_000), (324_040, None), "raise max_price to 0.0811 USD"),
        (demand(max_price=50_000, spot=False), (None, 100_000), "allow spot"),
        (demand(spot=False), (None, 100_000), "allow spot"),
        (demand(max_price=50_000, spot=False), (400_000, 100_000), "raise max_price to 0.1000 USD, or allow spot"),
        (demand(max_price=10_000, spot=False), (None, 100_000), "allow spot and raise max_price to 0.0250 USD"),
        (
            demand(max_price=10_000, spot=False),
            (400_000, 100_000),
            "raise max_price to 0.1000 USD, or allow spot and raise max_price to 0.0250 USD",
        ),
        (demand(max_price=10_000, spot=False), (80_000, 100_000), "raise max_price to 0.0200 USD"),
        (replace(demand(), max_total=1000), (400_000, None), "raise max_total to 0.0167 USD, or lower the expected"),
    ],
)
def test_the_hint_names_the_limit_that_would_do(
    asked: Demand, prices: tuple[int | None, int | None], hint: str
) -> None:
    paid, spot = prices
    index = capacity(
        *([seat("a-1", price=paid)] if paid else []),
        launch=(launchable(shape(price=spot, spot=True)),) if spot else (),
    )
    (decision,) = route([asked], index)
    assert decision.outcome is Outcome.HOLD
    assert decision.hint.startswith(hint)
    assert " or allow" not in decision.hint.removeprefix(hint)


def test_the_hint_is_of_places_that_nothing_else_is_against() -> None:
    index = capacity(seat("a-1", price=200_000), seat("a-2", price=400_000, site="lab"))
    rules = Rules(judge=lambda _, place: Ruling(denied="" if place.site == "lab" else "not here"))
    (decision,) = route([demand(max_price=10_000)], index, rules=rules)
    assert decision.message == "the cheapest capable offer, at site hall, costs 0.0500 USD an hour; " + (
        "the session's limit is 0.0100 USD"
    )
    assert decision.hint == "raise max_price to 0.1000 USD"


def test_outside_the_hours_of_all_that_could_run_it_it_is_told_when_they_begin() -> None:
    shut = replace(seat("a-1", closed=Reason.OUTSIDE_HOURS, group="desks"), message="takes sessions only at night")
    later = replace(seat("a-2", closed=Reason.OUTSIDE_HOURS, group="labs"), opens_at=7200.0)
    down = seat("a-3", closed=Reason.DISCONNECTED)
    (decision,) = route([demand()], capacity(replace(shut, opens_at=3600.0), later, down, seat("a-4", slots(0.5))))
    assert (decision.outcome, decision.reason) == (Outcome.WAIT, Reason.OUTSIDE_HOURS)
    assert decision.message == (
        "the 2 agents that could run it are outside their owner's hours; group desks takes sessions only at night"
    )
    assert decision.hint.startswith("it may start in about 60 min; ")
    (never,) = route([demand()], capacity(shut))
    assert never.message.startswith("the agent that could run it is outside")
    assert "change the group's hours" in never.hint
    (full,) = route([demand()], capacity(shut, seat("a-5", free=slots(0, 0))))
    assert full.reason is Reason.NO_FREE_SLOTS
    (grows,) = route([demand()], capacity(shut, launch=(launchable(shape(), room=0),)))
    assert grows.reason is Reason.GROUP_FULL


def test_full_or_blocked_is_a_wait_not_a_hold() -> None:
    blocked = launchable(shape(), blocked=Reason.NO_CAPACITY)
    full = launchable(shape(), room=0)
    for found, reason in ((blocked, Reason.NO_CAPACITY_NOW), (full, Reason.GROUP_FULL)):
        (decision,) = route([demand()], capacity(launch=(found,)))
        assert (decision.outcome, decision.reason) == (Outcome.WAIT, reason)
        assert len(decision.rejected) == 1


def test_closed_agents_take_nothing_but_count_as_capable() -> None:
    (decision,) = route([demand()], capacity(seat("a-1", closed=Reason.LINK_DOWN)))
    assert (decision.outcome, decision.reason) == (Outcome.WAIT, Reason.NO_FREE_SLOTS)
    assert decision.rejected[0].reason is Reason.LINK_DOWN


def test_placement_limits_are_kept() -> None:
    index = capacity(seat("a-1", site="hall"), seat("a-2", site="lab", price=900_000))
    assert route([demand(sites=("lab",))], index)[0].taken[0].target == "a-2"
    assert route([demand(groups=("nowhere",))], index)[0].reason is Reason.NO_CAPABLE_SITE


def test_the_on_demand_price_is_the_cheapest_of_launchable_shapes() -> None:
    index = capacity(
        seat("a-1"), launch=(launchable(shape("s", price=10_000, spot=True)), launchable(shape("o", price=80_000)))
    )
    assert route([demand()], index)[0].on_demand_price == 20_000


def test_of_several_gpu_models_the_least_is_taken_and_none_twice() -> None:
    mixed = slots(8, 32, "L4", 1, 24) + slots(0, 0, "A100", 1, 80)
    index = capacity(seat("a-1", mixed))
    one, two, three = route([demand(f"s-{n}", request(gpu=1)) for n in range(3)], index)
    assert [d.taken[0].slots.gpu[0].model for d in (one, two)] == ["L4", "A100"]
    assert three.outcome is Outcome.WAIT


def test_rank_is_a_dry_run_with_more_alternatives() -> None:
    index = capacity(*(seat(f"a-{n:02}", price=n) for n in range(30)))
    assert len(rank(demand(), index).ranked) == 30
    assert len(route([demand()], index)[0].ranked) == SHOWN


def test_data_is_brought_at_the_price_of_the_site_it_leaves_and_limits_count_it() -> None:
    index = capacity(seat("a-near", price=400_000, site="hall"), seat("a-far", price=100_000, site="lab"))
    index.set_site("hall", egress=90_000)
    asked = replace(demand(expected_s=3600), near="hall", data=4 * GIB)
    (decision,) = route([asked], index)
    assert decision.taken[0].target == "a-near"
    assert [(o.target, o.parts.run, o.parts.egress) for o in decision.ranked] == [
        ("a-near", 100_000, 0),
        ("a-far", 25_000, 360_000),
    ]
    (held,) = route([replace(asked, max_total=90_000)], index)
    assert (held.outcome, held.reason) == (Outcome.HOLD, Reason.TOTAL_LIMIT)
    assert {no.reason for no in held.rejected} == {Reason.TOTAL_LIMIT}
    assert "0.3850 USD in all; the session's limit is 0.0900 USD" in " ".join(no.message for no in held.rejected)


def test_who_waits_for_spot_takes_no_on_demand_machine_but_own_ones_and_spot() -> None:
    own, paid = seat("a-own", price=500_000), replace(seat("a-paid", price=1_000), owned=False)
    spot = replace(seat("a-spot", price=90_000, spot=True), owned=False)
    shapes = (launchable(shape("dear", price=1_000)), launchable(shape("spot", price=1_000, spot=True), room=0))
    waits = replace(demand(), on_demand=False)
    first, second = route([waits, demand("s-2")], capacity(own, paid, spot, launch=shapes))
    assert [offer.target for offer in first.ranked] == ["a-spot", "a-own"]
    assert [offer.target for offer in second.taken] == ["a-paid"]
    (none,) = route([waits], capacity(paid, launch=shapes))
    assert (none.outcome, none.reason) == (Outcome.WAIT, Reason.GROUP_FULL)
    against = {no.target: (no.reason, no.message) for no in none.rejected}
    text = "is an on-demand machine; the session waits for spot while its deadline allows it"
    assert against["a-paid"] == against[shapes[0].shape.key] == (Reason.WORTH_WAITING, text)
    (held,) = route([waits], capacity(paid))
    assert (held.outcome, held.reason) == (Outcome.HOLD, Reason.WORTH_WAITING)


def test_spot_is_dearer_by_the_work_that_interruptions_cost() -> None:
    index = capacity(seat("a-spot", slots(1), price=97_000, spot=True), seat("a-sure", slots(1), price=100_000))
    (long,) = route([demand(expected_s=36_000)], index)
    assert [offer.target for offer in long.ranked] == ["a-sure", "a-spot"]
    (saves,) = route([replace(demand(expected_s=36_000), checkpoint=True)], index)
    assert [offer.target for offer in saves.ranked] == ["a-spot", "a-sure"]
    assert saves.taken[0].parts.risk == round(0.05 * 10 * (1617 + 10 * 60))


def test_labels_and_drivers_are_conditions_and_an_unknown_driver_is_not_capable() -> None:
    gpus = slots(8, 32, "L4", 1)
    index = capacity(
        replace(seat("a-none", gpus), labels=(("disk", "nvme"),)),
        replace(seat("a-old", gpus), labels=(("disk", "nvme"),), driver=(535, 183)),
        replace(seat("a-bare", gpus), driver=(550, 54)),
    )
    asked = replace(demand(asks=Request(1000, GIB, 0, GpuRequest(1000, driver=(550,)))), labels=(("disk", "nvme"),))
    (decision,) = route([asked], index)
    assert (decision.outcome, decision.reason) == (Outcome.HOLD, Reason.NO_CAPABLE_SITE)
    assert {no.target: no.message for no in decision.rejected} == {
        "a-none": "its GPU driver is unknown; asks 550 or newer",
        "a-old": "its GPU driver is 535.183; asks 550 or newer",
        "a-bare": "has no label disk=nvme",
    }
    index.put_seat(replace(seat("a-good", gpus), labels=(("disk", "nvme"),), driver=(550, 54)))
    assert route([asked], index)[0].taken[0].target == "a-good"


def test_a_policy_denies_in_its_own_words_and_weighs_and_is_asked_once_a_kind() -> None:
    asked: list[tuple[str, str]] = []

    def judge(one: Demand, place: Candidate) -> Ruling:
        asked.append((one.project, place.site))
        if place.site == "hall":
            return Ruling(denied="project x keeps out of the hall" if one.project == "x" else "")
        return Ruling(factor=3.0)

    rules = Rules(version="1", reads=("project",), judge=judge)
    index = capacity(
        *(seat(f"a-hall-{n}", price=200_000, site="hall") for n in range(3)), seat("a-lab", price=100_000, site="lab")
    )
    first, second, other = route(
        [replace(demand(f"s-{n}"), project=project) for n, project in enumerate("xxy")], index, rules=rules
    )
    assert [d.taken[0].target for d in (first, second, other)] == ["a-lab", "a-lab", "a-hall-0"]
    assert first.taken[0].parts.policy == 2 * first.taken[0].parts.run
    assert (first.rejected[0].reason, first.rejected[0].message) == (Reason.POLICY, "project x keeps out of the hall")
    assert sorted(asked) == [("x", "hall"), ("x", "lab"), ("y", "hall"), ("y", "lab")]


def test_a_machine_may_have_too_much_device_memory() -> None:
    index = capacity(
        seat("a-big", slots(8, 32, "A100", 1, 80)), seat("a-small", slots(8, 32, "L4", 1, 24), price=9_000)
    )
    asks = Request(1000, GIB, 0, GpuRequest(1000, memory=16 * GIB, memory_max=24 * GIB))
    (decision,) = route([demand(asks=asks)], index)
    assert decision.taken[0].target == "a-small"
    assert decision.rejected[0].message.endswith("asks 1 cpu, 1.0 GiB, 1 x GPU of 16 to 24 GiB")
