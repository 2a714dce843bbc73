"""EC2's prices, live: on-demand from the price list API, spot from the spot price history."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from atoll.clock import Clock
from atoll.price import Price, PriceList
from atoll.slots import parse_bytes
from providers.aws.account import Account, pricing_region
from providers.aws.settings import Settings
from providers.aws.shapes import filters

_ASKED: Mapping[str, str] = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}
_PLAIN: Mapping[str, str] = {**_ASKED, "licenseModel": "No License required", "marketoption": "OnDemand"}
"""What makes a product of `AmazonEC2` the plain Linux machine; dedicated, reserved and Windows ones differ.

Only the first four are asked for: a product that lacks a field passes no filter on it.
"""


class AwsFeed:
    """See `providers.prices.feed.Feed`. Prices of the types and zones that the settings allow."""

    def __init__(self, provider: str, settings: Settings, account: Account, clock: Clock) -> None:
        self._provider = provider
        self._settings = settings
        self._account = account
        self._clock = clock

    async def fetch(self) -> PriceList:
        """Ask both sources; spot prices are left out where the settings want none."""
        region, now = self._settings.region, self._clock.now()
        documents = await self._account.pages(
            "pricing", "get_products", "PriceList", 100, ServiceCode="AmazonEC2", Filters=wanted(region)
        )
        currency = "CNY" if region.startswith("cn-") else "USD"
        listed = on_demand(documents, currency)
        spot = current(await self._history(now)) if self._settings.spot else []
        return PriceList(
            provider=self._provider,
            source=f"AWS price list API ({pricing_region(region)}) and spot history, {region}",
            currency=currency,
            at=now,
            prices=tuple(price for price in [*listed, *spot] if self._settings.sells(price.shape)),
        )

    async def _history(self, now: float) -> list[Any]:
        # History from now on is, of each type and zone, the price that holds now.
        return await self._account.pages(
            "ec2",
            "describe_spot_price_history",
            "SpotPriceHistory",
            1000,
            StartTime=datetime.fromtimestamp(now, UTC),
            ProductDescriptions=["Linux/UNIX"],
            Filters=filters(self._settings.patterns),
        )


def wanted(region: str) -> list[dict[str, str]]:
    """Return the filters of GetProducts for a region's plain Linux machines."""
    fields = {"regionCode": region, **_ASKED}
    return [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in fields.items()]


def on_demand(documents: Iterable[str | Mapping[str, Any]], currency: str = "USD") -> list[Price]:
    """Return the prices in documents of the price list; those of another form, and zeros, say nothing."""
    found: dict[str, Price] = {}
    for each in documents:
        document = json.loads(each) if isinstance(each, str) else each
        attributes = document.get("product", {}).get("attributes", {})
        shape = attributes.get("instanceType", "")
        plain = all(attributes.get(field, value) == value for field, value in _PLAIN.items())
        amount = _hourly(document.get("terms", {}).get("OnDemand", {}), currency)
        if "." in shape and plain and amount:
            known = found.get(shape)
            found[shape] = _price(shape, max(amount, known.amount if known else 0), attributes)
    return list(found.values())


def current(history: Iterable[Mapping[str, Any]]) -> list[Price]:
    """Return the newest spot price of each type and zone."""
    newest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in history:
        key = (row["InstanceType"], row["AvailabilityZone"])
        if key not in newest or row["Timestamp"] > newest[key]["Timestamp"]:
            newest[key] = row
    return [
        Price(shape=shape, zone=zone, spot=True, amount=amount)
        for (shape, zone), row in newest.items()
        if (amount := _micros(row["SpotPrice"]))
    ]


def _hourly(terms: Mapping[str, Any], currency: str) -> int:
    """Return the one hourly amount of the on-demand terms in micro-units, 0 where there is none."""
    amounts = [
        _micros(dimension.get("pricePerUnit", {}).get(currency, ""))
        for term in terms.values()
        for dimension in term.get("priceDimensions", {}).values()
        if dimension.get("unit") in ("Hrs", "Hours")
    ]
    return max(amounts, default=0)


def _price(shape: str, amount: int, attributes: Mapping[str, str]) -> Price:
    return Price(
        shape=shape,
        amount=amount,
        cpu=_count(attributes.get("vcpu", "")) * 1000,
        memory=_memory(attributes.get("memory", "")),
        gpus=_count(attributes.get("gpu", "")),
    )


def _micros(text: str) -> int:
    try:
        return round(Decimal(text) * 1_000_000)
    except InvalidOperation:
        return 0


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _memory(text: str) -> int:
    """Return bytes of `1,952 GiB`, 0 for `NA`."""
    number, _, unit = text.replace(",", "").partition(" ")
    return parse_bytes(f"{number}GiB") if unit == "GiB" and number.replace(".", "", 1).isdecimal() else 0
