from typing import Any

import pytest

from atoll.document import dump_provider, dump_site, provider, site
from atoll.errors import Invalid
from atoll.money import micros
from atoll.price import Commitment, PriceRules, Stale, Upkeep

RULES: dict[str, Any] = {
    "discount": 0.1,
    "overrides": {"g5.xlarge": 0.9},
    "commitments": [{"shape": "m5.large", "count": 4, "price": 0.05}],
    "stale_after": "3d",
    "stale": "block",
    "update": "12h",
    "rate": 1.08,
}


def test_price_rules_are_read_and_written_back() -> None:
    row = provider({"type": "aws", "prices": RULES})
    assert row.prices == PriceRules(
        discount=0.1,
        overrides={"g5.xlarge": micros(0.9)},
        commitments=(Commitment(shape="m5.large", count=4, price=micros(0.05)),),
        stale_after_s=3 * 86400.0,
        stale=Stale.BLOCK,
        update_s=43200.0,
        rate=1.08,
    )
    assert dump_provider(row)["prices"] == RULES
    assert "prices" not in dump_provider(provider({"type": "aws"}))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"discont": 0.1}, "unknown key 'discont' in provider.prices"),
        ({"discount": 1.5}, "provider.prices.discount cannot be 1.5"),
        ({"overrides": {"m5": 0}}, "provider.prices.overrides.m5 must be above 0"),
        ({"overrides": {"m5": "dear"}}, "provider.prices.overrides.m5 must be an amount of money"),
        ({"commitments": {"shape": "m5"}}, "commitments must be a list"),
        ({"commitments": [{"count": 1, "price": 1}]}, "commitments[0].shape is missing"),
        ({"commitments": [{"shape": "m5", "price": 0}]}, "commitments[0].price must be above 0"),
        ({"commitments": [{"shape": "m5", "price": 1}] * 2}, "names 'm5' twice"),
        ({"stale": "panic"}, "provider.prices.stale cannot be 'panic'"),
        ({"update": "1s"}, "provider.prices.update is 1 seconds"),
    ],
)
def test_wrong_price_rules_are_named(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        provider({"type": "aws", "prices": rules})
    assert message in caught.value.message
    assert caught.value.hint


def test_a_sites_price_follows_from_power_and_purchase() -> None:
    document = {"name": "hall", "price": {"power": "400W", "tariff": 0.25, "purchase": 12000, "years": 4}}
    row = site(document)
    assert row.upkeep == Upkeep(watts=400, tariff=micros(0.25), purchase=micros(12000), years=4.0)
    assert row.price == micros(0.4 * 0.25) + round(micros(12000) / (4 * 8766)) == 442_231
    assert site(dump_site(row)) == row
    assert row.upkeep.formula == "400 W x 0.25/kWh + 12000 over 4 years"


def test_a_sites_price_may_be_given_as_it_is() -> None:
    assert site({"name": "hall", "price": 0.12}).price == micros(0.12)
    assert site({"name": "hall", "price": {"per_hour": 0.12}}).price == micros(0.12)
    assert dump_site(site({"name": "hall", "price": {"per_hour": 0.12}}))["price"] == 0.12
    assert site({"name": "hall", "price": {"power": "1.2kW", "tariff": 0.2}}).price == micros(0.24)
    assert site({"name": "hall"}).price == 0


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ({}, "site.price.per_hour is missing"),
        ({"per_huor": 1}, "unknown key 'per_huor'"),
        ({"power": "much"}, "site.price.power cannot be 'much'"),
        ({"power": "-5W"}, "site.price.power cannot be '-5W'"),
        ({"power": "400W", "per_hour": 1}, "site.price.per_hour cannot be given"),
        ({"power": "400W", "years": 0}, "site.price.years cannot be 0"),
        ("dear", "site.price must be a mapping"),
    ],
)
def test_wrong_site_prices_are_named(price: Any, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        site({"name": "hall", "price": price})
    assert message in caught.value.message
