"""Puts an `openstack` driver together from a provider's document."""

from atoll.group import Provider
from providers.openstack.account import Account
from providers.openstack.driver import OpenStack
from providers.openstack.settings import parse
from providers.registry import DriverContext


def make(provider: Provider, context: DriverContext) -> OpenStack:
    """Return the driver of a provider of kind `openstack`; no call is made yet."""
    settings = parse(provider.settings)
    account = Account(provider.name, settings, proxy=context.proxy)
    return OpenStack(provider.name, settings, account, context.clock, context.directory / provider.name)
