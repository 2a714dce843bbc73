"""The public price list: what of it is a price of ours, read from pages as the service sends them."""

from pathlib import Path

from atoll.price import Price
from providers.azure.prices import read
from providers.azure.setup import feed
from tests.clouds.azure import catalogue
from tests.clouds.azure.harness import AzureHarness


def test_only_hourly_linux_prices_are_read() -> None:
    prices = {(price.shape, price.spot): price.amount for price in read(catalogue.retail())}
    assert prices[("Standard_D2s_v5", False)] == 115_000
    assert prices[("Standard_D2s_v5", True)] == 21_600
    assert ("Standard_B2s", True) not in prices
    assert not any(shape == "Standard_D8s_v5" for shape, _ in prices), "a price of zero is none"
    assert len(prices) == 9


def test_of_several_prices_the_lowest_counts() -> None:
    entry = next(iter(catalogue.retail()))
    assert list(read([entry, {**entry, "retailPrice": 0.04}])) == [Price(shape="Standard_B2s", amount=40_000)]
    assert list(read([{**entry, "unitOfMeasure": "1 Month"}, {**entry, "tierMinimumUnits": 100.0}])) == []


async def test_the_feed_reads_every_page_over_the_wire(tmp_path: Path) -> None:
    cloud = AzureHarness(tmp_path)
    cloud.start()
    try:
        listed = await feed(cloud.provider(), cloud.context()).fetch()
    finally:
        cloud.stop()
    assert listed.prices == tuple(read(catalogue.retail()))
    assert (listed.provider, listed.currency, listed.source) == (
        "azure-eu", "USD", "Azure retail prices, westeurope",
    )  # fmt: skip
    assert listed.at > 1.7e9
