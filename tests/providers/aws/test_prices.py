import json
from datetime import UTC, datetime
from typing import Any

import pytest

from atoll.price import Price
from atoll.slots import GIB
from providers.aws.account import pricing_region
from providers.aws.prices import current, on_demand


def document(price: str = "0.5260000000", unit: str = "Hrs", currency: str = "USD", **attributes: str) -> str:
    told = {
        "instanceType": "g4dn.xlarge", "vcpu": "4", "memory": "16 GiB", "gpu": "1", "operatingSystem": "Linux",
        "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
    }  # fmt: skip
    dimension = {"unit": unit, "pricePerUnit": {currency: price}}
    terms = {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}}
    return json.dumps({"product": {"attributes": told | attributes, "sku": "A"}, "terms": terms})


def test_a_product_is_a_price() -> None:
    assert on_demand([document()]) == [
        Price(shape="g4dn.xlarge", amount=526_000, cpu=4000, memory=16 * GIB, gpus=1)
    ]  # fmt: skip


def test_large_memories_have_commas() -> None:
    assert on_demand([document(memory="1,952 GiB")])[0].memory == 1952 * GIB


@pytest.mark.parametrize(
    "wrong",
    [
        document(price="0.0000000000"),
        document(unit="Quantity"),
        document(price="dear"),
        document(operatingSystem="Windows"),
        document(tenancy="Dedicated"),
        document(capacitystatus="UnusedCapacityReservation"),
        document(preInstalledSw="SQL Std"),
        document(instanceType="m5"),
        json.dumps({"product": {}, "terms": {}}),
        json.dumps({}),
    ],
)
def test_what_is_no_price_of_ours(wrong: str) -> None:
    assert on_demand([wrong]) == []


def test_of_two_that_differ_the_dearer_counts() -> None:
    assert [price.amount for price in on_demand([document("0.6"), document("0.5")])] == [600_000]


def test_other_currencies() -> None:
    told = [document(currency="CNY", price="3.0")]
    assert [price.amount for price in on_demand(told, "CNY")] == [3_000_000]
    assert on_demand(told) == []


def test_the_newest_spot_price_of_each_zone_counts() -> None:
    def row(zone: str, price: str, hour: int) -> dict[str, Any]:
        at = datetime(2026, 11, 1, hour, tzinfo=UTC)
        return {"InstanceType": "t3.micro", "AvailabilityZone": zone, "SpotPrice": price, "Timestamp": at}

    found = current([row("a", "0.9", 1), row("a", "0.003120", 3), row("a", "0.8", 2), row("b", "0.004", 1)])
    assert found == [
        Price(shape="t3.micro", zone="a", spot=True, amount=3120),
        Price(shape="t3.micro", zone="b", spot=True, amount=4000),
    ]
    assert current([row("a", "0.000000", 1)]) == []


@pytest.mark.parametrize(
    ("region", "asks"),
    [
        ("us-west-2", "us-east-1"),
        ("eu-west-1", "eu-central-1"),
        ("ap-northeast-1", "ap-south-1"),
        ("cn-north-1", "cn-northwest-1"),
        ("sa-east-1", "us-east-1"),
    ],
)
def test_the_price_list_is_asked_where_there_is_one(region: str, asks: str) -> None:
    assert pricing_region(region) == asks
