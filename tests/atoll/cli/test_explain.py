"""What `atoll why` tells of a decision."""

from atoll.cli.explain import story
from atoll.client.views import CostView, DecisionView, OfferView, SlotsView, WhyView


def offer(kind: str, target: str) -> OfferView:
    slots = SlotsView(cpu=1.0, memory=1, disk=0, gpu=[])
    return OfferView(
        kind=kind,
        site="hall",
        group="local",
        target=target,
        slots=slots,
        price=0.1,
        cost=0.2,
        start_s=0.0,
        spot=False,
        parts=CostView(),
    )


def told(taken: list[OfferView], ranked: list[OfferView]) -> str:
    decision = DecisionView(
        at=0.0,
        outcome="place",
        reason="PLACED",
        message="cheapest capable",
        hint="",
        taken=taken,
        ranked=ranked,
        rejected=[],
        considered=2,
    )
    return story(
        WhyView(
            kind="session",
            id="s-1",
            name="train",
            state="running",
            reason="STARTED",
            message="",
            hint="",
            decisions=[decision],
        )
    )


def test_what_was_taken_is_not_among_the_other_offers() -> None:
    first, second = offer("agent", "a-1"), offer("pending", "i-1")
    text = told([first], [first, second])
    assert text.count("a-1") == 1
    assert "i-1" in text.partition("other offers (2 considered)")[2]
    assert "other offers" not in told([first], [first])
