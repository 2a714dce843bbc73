"""Where the members of a gang are put together."""

from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from atoll.offer import DEARER, Demand, Offer, Outcome
from atoll.states import Reason
from federation.routing.capacity import Capacity, Seat
from federation.routing.place import route
from federation.routing.schedule import schedule
from federation.routing.timeline import Running
from tests.federation.routing.builders import demand, launchable, request, seat, shape, slots
from tests.federation.routing.simple import index, waits

REGIONS = {"hall": "north", "lab": "north", "aws": "south", "gcp": "south"}


def gang(nodes: int, *, together: bool = False, spread: bool = False, cpu: float = 4) -> Demand:
    return replace(demand("s-gang", request(cpu), nodes=nodes), together=together, spread=spread, queued_at=0.0)


def sites(offers: tuple[Offer, ...]) -> list[str]:
    return sorted(offer.site for offer in offers)


def cluster(**free: int) -> Capacity:
    return index(
        *(
            seat(f"{site}-{n}", site=site, price=100_000 + 1000 * (site in ("aws", "gcp")))
            for site, count in free.items()
            for n in range(count)
        ),
        regions=REGIONS,
    )


def test_one_site_before_a_region_before_anywhere() -> None:
    (one,) = route([gang(2)], cluster(hall=1, lab=1, aws=2))
    assert sites(one.taken) == ["aws", "aws"], "a little dearer, but together"
    (near,) = route([gang(2)], cluster(hall=1, aws=1, gcp=1))
    assert sites(near.taken) == ["aws", "gcp"]
    (far,) = route([gang(2)], cluster(hall=1, aws=1))
    assert sites(far.taken) == ["aws", "hall"]


def test_nearness_may_cost_only_so_much() -> None:
    most = round(120_000 * (1 + DEARER))
    seats = [seat("a-1", price=120_000), seat("b-1", site="lab", price=120_000)]
    for price, found in ((most + 600, ["hall", "lab"]), (most, ["aws", "aws"])):
        index_ = index(*seats, *(seat(f"c-{n}", site="aws", price=price) for n in range(2)))
        assert sites(route([gang(2)], index_)[0].taken) == found


def test_together_is_a_condition() -> None:
    (found,) = route([gang(2, together=True)], cluster(hall=1, lab=1))
    assert (found.outcome, found.taken) == (Outcome.WAIT, ())
    assert sites(route([gang(2, together=True)], cluster(hall=1, lab=2))[0].taken) == ["lab", "lab"]


def test_spread_takes_as_many_sites_as_there_are() -> None:
    assert sites(route([gang(3, spread=True)], cluster(hall=5, lab=1, aws=1))[0].taken) == ["aws", "hall", "lab"]
    assert sites(route([gang(4, spread=True)], cluster(hall=5, aws=1))[0].taken) == ["aws", "hall", "hall", "hall"]


def test_what_is_missing_is_launched_at_the_same_site_where_it_can_be() -> None:
    launch = [launchable(shape(), group="hall", room=2), launchable(shape(price=99_000), group="cheap", room=2)]
    index_ = index(seat("a-1", price=100_000), launch=launch)
    (found,) = route([gang(2)], index_)
    assert found.outcome is Outcome.LAUNCH
    assert sites(found.taken) == ["hall"]


def test_the_free_members_of_a_gang_are_kept_until_its_launch_is_there() -> None:
    index_ = index(seat("a-1"), launch=[launchable(shape(), group="hall", room=1)])
    long, short = (replace(demand(name, request(4)), queued_at=5.0) for name in ("s-long", "s-short"))
    decisions = schedule([gang(2), long, replace(short, expected_s=30.0)], index_, now=10.0)
    assert [one.outcome for one in decisions] == [Outcome.LAUNCH, Outcome.WAIT, Outcome.PLACE]
    assert decisions[1].rejected[0].reason is Reason.RESERVED


def test_a_gang_waits_for_enough_agents_at_once() -> None:
    index_ = index(seat("a-1"), seat("a-2", free=slots(0)))
    runs = [running_on("a-2", 500.0)]
    (found,) = schedule([gang(2)], index_, now=100.0, running=runs)
    assert (found.outcome, found.reason) == (Outcome.WAIT, Reason.SLOTS_EXPECTED)
    assert {offer.start_s for offer in waits(found)} == {400.0}
    assert "its 2 members at hall is expected in about 7 min" in found.message


def test_a_gang_is_told_why_others_have_no_room_for_a_member() -> None:
    index_ = index(seat("a-1"), seat("a-2", free=slots(0)), seat("a-3", price=90_000, free=slots(0)))
    (found,) = schedule([gang(2)], index_, now=100.0)
    assert [offer.target for offer in found.ranked] == ["a-1"]
    assert [(no.target, no.reason) for no in found.rejected] == [
        ("a-2", Reason.NO_FREE_SLOTS),
        ("a-3", Reason.NO_FREE_SLOTS),
    ]


def running_on(agent: str, end: float) -> Running:
    return Running(session=f"r-{agent}", members=((agent, slots()),), ends_at=end, started_at=0.0)


def best(seats: list[Seat], one: Demand) -> int | None:
    """The least cost of any choice of distinct agents by the rules for where they may be, tried one by one."""

    def cost(chosen: tuple[Seat, ...]) -> int:
        return sum(on.price for on in chosen)

    ways = list(combinations([on for on in seats if on.free.take(one.request)], one.nodes))
    same = [way for way in ways if len({on.site for on in way}) == 1]
    near = [way for way in ways if len({REGIONS[on.site] for on in way}) == 1]
    if one.together:
        return min(map(cost, same), default=None)
    if not ways:
        return None
    most = min(map(cost, ways)) * (1 + DEARER)
    for allowed in (same, near, ways):
        least = min(map(cost, allowed), default=None)
        if least is not None and least <= most:
            return least
    raise AssertionError("unreachable: the cheapest anywhere is within its own limit")


@given(
    st.lists(st.tuples(st.sampled_from(sorted(REGIONS)), st.integers(1, 9), st.booleans()), max_size=8),
    st.integers(2, 4),
    st.booleans(),
)
def test_the_chosen_set_is_the_cheapest_within_the_preferred_topology(
    rows: list[tuple[str, int, bool]], nodes: int, together: bool
) -> None:
    # Prices are multiples of 6: at 600 s their cost is exact, so that sums of prices and of costs agree.
    seats = [
        seat(f"a-{n}", site=site, price=price * 60_000, free=slots() if free else slots(0))
        for n, (site, price, free) in enumerate(rows)
    ]
    one = gang(nodes, together=together)
    (found,) = route([one], index(*seats, regions=REGIONS))
    least = best(seats, one)
    assert (found.outcome is Outcome.PLACE) is (least is not None)
    if least is not None:
        assert sum(offer.price for offer in found.taken) == least
        assert len({offer.target for offer in found.taken}) == nodes
