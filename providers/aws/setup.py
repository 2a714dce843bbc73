"""Puts an `aws` driver and price feed together from a provider's document."""

from atoll.group import Provider
from providers.aws.account import Account
from providers.aws.driver import Aws
from providers.aws.prices import AwsFeed
from providers.aws.settings import parse
from providers.registry import DriverContext

FEED_S = 240.0
"""A region's price list comes in a dozen pages."""


def make(provider: Provider, context: DriverContext) -> Aws:
    """Return the driver of a provider of kind `aws`; no call is made yet."""
    settings = parse(provider.settings)
    return Aws(provider.name, settings, Account(provider.name, settings, proxy=context.proxy), context.clock)


def feed(provider: Provider, context: DriverContext) -> AwsFeed:
    """Return the live source of the provider's prices."""
    settings = parse(provider.settings)
    account = Account(f"{provider.name}-prices", settings, proxy=context.proxy, timeout=FEED_S)
    return AwsFeed(provider.name, settings, account, context.clock)
