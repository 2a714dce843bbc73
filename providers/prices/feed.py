"""The port behind which every live source of prices stands."""

from typing import Protocol

from atoll.price import PriceList


class Feed(Protocol):
    """A cloud's own price list for one account and region. Errors are `providers.errors`."""

    async def fetch(self) -> PriceList:
        """Return today's list, on-demand and spot, of the shapes the account could make.

        Raises `Auth` where the credential may not read prices, `Unknown` where the source does not answer.
        """
        ...
