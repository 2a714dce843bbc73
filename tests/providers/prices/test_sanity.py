from dataclasses import replace

import pytest

from atoll.money import micros
from atoll.price import Price, PriceList
from atoll.slots import GIB
from providers.prices.sanity import sift

PLAIN = tuple(Price(shape=f"c{n}", amount=n * micros(0.04), cpu=n * 1000) for n in (1, 2, 4, 8, 16, 32))
L4 = Price(shape="g6", amount=micros(0.8), cpu=4000, gpus=1, gpu_model="L4", gpu_memory=24 * GIB)


def listed(*prices: Price) -> PriceList:
    return PriceList(provider="aws", source="a list", prices=prices)


def reasons(sifted: PriceList) -> dict[str, str]:
    return {remark.price.shape: remark.reason for remark in sifted.remarks}


def test_good_rows_are_kept_and_nothing_is_said() -> None:
    sifted = sift(listed(*PLAIN, L4))
    assert sifted.prices == (*PLAIN, L4)
    assert sifted.remarks == ()


@pytest.mark.parametrize("amount", [0, -1])
def test_zero_and_less_are_no_price(amount: int) -> None:
    sifted = sift(listed(*PLAIN, Price(shape="free", amount=amount)))
    assert sifted.prices == PLAIN
    assert "zero or negative" in reasons(sifted)["free"]


def test_gpus_that_are_not_in_the_price_make_it_none() -> None:
    bare = replace(L4, amount=micros(0.04 * 4 * 0.7))
    sifted = sift(listed(*PLAIN, bare))
    assert sifted.prices == PLAIN
    assert "less than its 4 cores would" in reasons(sifted)["g6"]
    assert sift(listed(*PLAIN, replace(L4, amount=micros(0.04 * 4)))).remarks == ()


def test_spot_may_be_cheaper_than_cores_but_not_next_to_nothing() -> None:
    spot = replace(L4, spot=True, zone="a", amount=micros(0.08))
    assert sift(listed(*PLAIN, L4, spot)).remarks == ()
    cheap = replace(spot, amount=micros(0.039))
    sifted = sift(listed(*PLAIN, L4, cheap))
    assert sifted.prices == (*PLAIN, L4)
    assert "less than a twentieth of on-demand, which is 0.8000" in reasons(sifted)["g6"]


def test_a_device_is_never_as_good_as_free_also_where_nothing_can_be_compared() -> None:
    sifted = sift(listed(replace(L4, gpus=8, amount=micros(0.01))))
    assert sifted.prices == ()
    assert "no price of 8 x L4" in reasons(sifted)["g6"]


@pytest.mark.parametrize(
    ("model", "gib", "kept"),
    [("L4", 24, True), ("L4", 3, True), ("L4", 192, False), ("V100", 32, True), ("A100", 80, True), ("Q9", 999, True)],
)
def test_a_devices_memory_is_plausible_for_its_model(model: str, gib: int, kept: bool) -> None:
    sifted = sift(listed(*PLAIN, replace(L4, amount=micros(3), gpu_model=model, gpu_memory=gib * GIB)))
    assert (len(sifted.prices) == len(PLAIN) + 1) == kept
    assert ("GiB a device" in reasons(sifted).get("g6", "")) != kept


def test_spot_above_on_demand_is_pointed_out_and_kept() -> None:
    dear = replace(PLAIN[0], spot=True, zone="a", amount=PLAIN[0].amount * 2)
    near = replace(PLAIN[1], spot=True, zone="a", amount=round(PLAIN[1].amount * 1.04))
    sifted = sift(listed(*PLAIN, dear, near))
    assert {dear, near} <= set(sifted.prices)
    assert [(r.price, r.dropped) for r in sifted.remarks] == [(dear, False)]


def test_a_large_fall_is_dropped_for_as_long_as_nobody_accepts_it() -> None:
    before = sift(listed(*PLAIN, L4))
    fallen = listed(*PLAIN, replace(L4, amount=micros(0.161)))
    assert L4.amount / fallen.prices[-1].amount < 5
    assert sift(fallen, before).remarks == ()
    fallen = listed(*(replace(p, amount=p.amount // 6) if p.shape == "c4" else p for p in PLAIN))
    once = sift(fallen, before)
    assert "fell from 0.1600 to 0.0267" in reasons(once)["c4"]
    again = sift(fallen, once)
    assert "c4" not in {price.shape for price in again.prices}
    assert again.remarks[0].before == micros(0.16)
    accepted = sift(fallen, again, accept_jumps=True)
    assert accepted.prices == fallen.prices
    assert sift(fallen, accepted).remarks == ()


def test_a_large_rise_is_used_and_pointed_out() -> None:
    before = sift(listed(*PLAIN))
    risen = listed(*(replace(p, amount=p.amount * 6) if p.shape == "c4" else p for p in PLAIN))
    sifted = sift(risen, before)
    assert sifted.prices == risen.prices
    assert [(r.price.shape, r.dropped) for r in sifted.remarks] == [("c4", False)]


def test_another_currency_is_not_compared() -> None:
    yen = replace(listed(*(replace(p, amount=p.amount * 150) for p in PLAIN)), currency="JPY")
    assert sift(yen, sift(listed(*PLAIN))).remarks == ()


def test_of_repeated_rows_the_last_counts() -> None:
    sifted = sift(listed(*PLAIN, replace(PLAIN[0], amount=micros(0.05))))
    assert [price.amount for price in sifted.prices if price.shape == "c1"] == [micros(0.05)]
