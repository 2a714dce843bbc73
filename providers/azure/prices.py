"""Azure's public price list of one region: Linux machines, on demand and spot."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from azure.core import PipelineClient
from azure.core.rest import HttpRequest, HttpResponse

from atoll.clock import Clock
from atoll.money import micros
from atoll.price import Price, PriceList
from providers.azure.account import answers
from providers.blocking import Threads
from providers.errors import Unknown

LIST = "https://prices.azure.com/api/retail/prices"
VERSION = "2023-01-01-preview"
PAGES_MOST = 500
"""A region has some 30 pages of at most 1,000 entries: more means that the list does not end."""


class RetailPrices:
    """The public retail list, which needs no credential; `endpoint` is another server's that speaks the same."""

    def __init__(
        self,
        provider: str,
        region: str,
        client: PipelineClient[HttpRequest, HttpResponse],
        threads: Threads,
        clock: Clock,
        endpoint: str = LIST,
    ) -> None:
        self._provider = provider
        self._region = region
        self._client = client
        self._threads = threads
        self._clock = clock
        self._endpoint = endpoint

    async def fetch(self) -> PriceList:
        """Return today's list of the region, page by page."""
        asked = (
            f"serviceName eq 'Virtual Machines' and armRegionName eq '{self._region}' and priceType eq 'Consumption'"
        )
        address = f"{self._endpoint}?{urlencode({'api-version': VERSION, '$filter': asked})}"
        items: list[Mapping[str, Any]] = []
        currency = "USD"
        for _ in range(PAGES_MOST):
            page = await self._threads.run(self._page, address)
            items += page.get("Items") or ()
            currency = page.get("BillingCurrency") or currency
            address = page.get("NextPageLink") or ""
            if not address:
                break
        else:
            raise Unknown(f"Azure's price list has more than {PAGES_MOST} pages")
        return PriceList(
            provider=self._provider,
            source=f"Azure retail prices, {self._region}",
            currency=currency,
            at=self._clock.now(),
            prices=tuple(read(items)),
        )

    def _page(self, address: str) -> dict[str, Any]:
        if not address.startswith(self._endpoint.partition("?")[0].rpartition("/api/")[0]):
            raise Unknown("Azure's price list continues on another server")
        with answers():
            answer = self._client.send_request(HttpRequest("GET", address))
            answer.raise_for_status()
            return dict(answer.json())


def read(items: Iterable[Mapping[str, Any]]) -> Iterator[Price]:
    """Yield the hourly Linux prices among a list's entries; the lowest where one machine has several.

    Left out are Windows, Low Priority, development and reservation prices, dedicated hosts, and entries at zero.
    """
    found: dict[tuple[str, bool], int] = {}
    for item in items:
        size, product, sku = (str(item.get(key) or "") for key in ("armSkuName", "productName", "skuName"))
        if (
            not size
            or item.get("type") != "Consumption"
            or item.get("unitOfMeasure") != "1 Hour"
            or "Windows" in product
            or "CloudServices" in product.replace(" ", "")
            or "Low Priority" in sku
            or float(item.get("tierMinimumUnits") or 0) > 0
        ):
            continue
        amount, key = micros(float(item.get("retailPrice") or 0)), (size, sku.endswith(" Spot"))
        if amount > 0 and amount < found.get(key, amount + 1):
            found[key] = amount
    for (size, spot), amount in sorted(found.items()):
        yield Price(shape=size, amount=amount, spot=spot)
