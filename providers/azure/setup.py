"""Puts an Azure driver, or its price feed, together: settings, credential, clients, threads."""

from typing import Any

from azure.core.credentials import AccessToken, TokenCredential
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
)

from atoll.group import Provider
from providers.azure.account import Account, plain, transport
from providers.azure.driver import Azure
from providers.azure.operations import Operations
from providers.azure.prices import LIST, RetailPrices
from providers.azure.settings import Settings, parse
from providers.blocking import Threads
from providers.registry import DriverContext

_FOREVER = 2**40


def make(provider: Provider, context: DriverContext) -> Azure:
    """Return the driver of a provider of kind `azure`; calls under way are noted below `context.directory`."""
    settings = parse(provider.settings)
    options = transport(settings, context.proxy)
    return Azure(
        provider.name,
        settings,
        Account(settings, credential(settings, options), options, context.clock.monotonic),
        Operations(context.directory.absolute() / provider.name / "operations"),
        Threads(provider.name),
        context.clock,
    )


def feed(provider: Provider, context: DriverContext) -> RetailPrices:
    """Return the public price list of the provider's region, or that of its own endpoint."""
    settings = parse(provider.settings)
    client = plain(transport(settings, context.proxy))
    endpoint = f"{settings.endpoint}/api/retail/prices" if settings.endpoint else LIST
    return RetailPrices(provider.name, settings.region, client, Threads(provider.name), context.clock, endpoint)


def credential(settings: Settings, options: dict[str, Any]) -> TokenCredential:
    """Return who we are to Azure, as the settings say; with nothing said, the SDK's default chain."""
    given = settings.credentials
    if given.token:
        return Given(given.token)
    if given.authority:
        options = {**options, "authority": given.authority, "disable_instance_discovery": True}
    if given.secret:
        return ClientSecretCredential(given.tenant, given.client, given.secret, **options)
    if given.certificate:
        return CertificateCredential(given.tenant, given.client, given.certificate, **options)
    if given.managed_identity:
        return ManagedIdentityCredential(client_id=given.client or None, **options)
    return DefaultAzureCredential(**options)


class Given:
    """A token as it stands."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """Return it, whatever it is asked for."""
        return AccessToken(self._token, _FOREVER)
