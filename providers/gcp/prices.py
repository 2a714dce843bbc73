"""Google's own price list for one project and region: what the Cloud Billing Catalog's parts add up to."""

from typing import Any

from atoll.clock import Clock
from atoll.price import PriceList
from providers.errors import Unknown
from providers.gcp.driver import Calls, Web, listed
from providers.gcp.settings import Settings
from providers.gcp.skus import SERVICE, price, rates

PAGE = 5000
"""SKUs in one answer, the most there may be."""
MOST_PAGES = 100


class Prices:
    """Composes list prices; see `providers.prices.feed.Feed`. They hold for all zones of the region."""

    def __init__(self, name: str, settings: Settings, call: Calls, web: Web, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._call = call
        self._web = web
        self._clock = clock

    async def fetch(self) -> PriceList:
        """Return the prices of every offer whose parts all have one; the others stay unpriced."""
        at = self._clock.now()
        known = rates(await self._skus(), self._settings.region)
        offers = {offer.name: offer for offer in await listed(self._call, self._settings)}
        ways = (False, True) if self._settings.spot else (False,)
        priced = (price(offer, known, spot=spot) for offer in offers.values() for spot in ways)
        return PriceList(
            provider=self._name,
            source=f"Cloud Billing Catalog, {self._settings.region}",
            at=at,
            prices=tuple(each for each in priced if each and each.amount > 0),
        )

    async def _skus(self) -> list[dict[str, Any]]:
        url = f"{self._settings.prices_endpoint}/v1/{SERVICE}/skus"
        asked = {"currencyCode": "USD", "pageSize": str(PAGE)}
        if self._settings.sign_in.api_key:
            asked["key"] = self._settings.sign_in.api_key
        found: list[dict[str, Any]] = []
        for _ in range(MOST_PAGES):
            page = (await self._web(url, asked)).document
            found += [sku for sku in page.get("skus", []) if self._settings.region in sku.get("serviceRegions", [])]
            if not (token := page.get("nextPageToken")):
                return found
            asked = {**asked, "pageToken": token}
        raise Unknown("the price list does not end")
