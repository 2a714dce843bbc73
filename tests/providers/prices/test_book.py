from atoll.instance import Shape
from atoll.money import micros
from atoll.price import Commitment, Price, PriceList, PriceRules, Remark
from atoll.slots import Slots
from providers.prices.book import Book, committed

LISTED = PriceList(
    provider="aws",
    source="a list",
    at=1_700_000_000.9,
    prices=(
        Price(shape="m5", amount=micros(0.1)),
        Price(shape="m5", amount=micros(0.04), zone="a", spot=True),
        Price(shape="odd", amount=1),
    ),
    remarks=(
        Remark(price=Price(shape="fell", amount=5), reason="fell"),
        Remark(price=Price(shape="m5", amount=9, zone="b", spot=True), reason="fell"),
        Remark(price=Price(shape="m5", amount=micros(0.1)), reason="rose", dropped=False),
    ),
)


def test_a_price_of_the_zone_wins_over_that_of_the_region() -> None:
    book = Book(LISTED)
    assert book.price("m5", "a", False) == micros(0.1)
    assert book.price("m5", "a", True) == micros(0.04)
    assert book.price("m5", "c", True) is None
    assert book.label == "a list @1700000000"


def test_what_the_cloud_told_is_used_where_the_list_says_nothing_but_not_where_a_row_was_dropped() -> None:
    book = Book(LISTED)
    assert book.price("new", "a", False, told=7) == 7
    assert book.price("fell", "a", False, told=7) is None
    assert book.price("m5", "b", True, told=7) is None
    assert book.price("m5", "a", False, told=7) == micros(0.1)


def test_nothing_and_zero_are_no_price() -> None:
    assert Book().price("m5", "a", False) is None
    assert Book().price("m5", "a", False, told=0) is None
    assert Book().price("m5", "a", False, told=-5) is None


def test_a_discount_is_taken_off_on_demand_alone_and_never_down_to_zero() -> None:
    book = Book(LISTED, PriceRules(discount=0.25))
    assert book.price("m5", "a", False) == micros(0.075)
    assert book.price("m5", "a", True) == micros(0.04)
    assert Book(LISTED, PriceRules(discount=0.99)).price("odd", "a", False) == 1


def test_an_override_wins_over_list_discount_and_dropped_rows() -> None:
    book = Book(LISTED, PriceRules(discount=0.25, overrides={"m5": micros(0.09), "fell": 3}))
    assert book.price("m5", "a", False) == micros(0.09)
    assert book.price("fell", "a", False) == 3


def test_a_rate_turns_the_lists_currency_into_ours() -> None:
    assert Book(LISTED, PriceRules(rate=2.0)).price("m5", "a", False) == micros(0.2)
    assert Book(LISTED, PriceRules(rate=2.0)).price("new", "a", False, told=7) == 7


def test_a_commitment_is_the_price_while_fewer_are_live() -> None:
    rules = PriceRules(commitments=(Commitment(shape="m5", count=2, price=micros(0.01)),))
    shape = Shape(provider="aws", name="m5", zone="a", slots=Slots(1), price=micros(0.1))
    spot = Shape(provider="aws", name="m5", zone="a", slots=Slots(1), price=micros(0.04), spot=True)
    assert committed(shape, rules, {}).price == micros(0.01)
    assert committed(shape, rules, {"m5": 1}).price == micros(0.01)
    assert committed(shape, rules, {"m5": 2}) == shape
    assert committed(spot, rules, {}) == spot
