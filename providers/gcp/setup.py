"""Puts a `gcp` driver together: credentials, threads, the SDK (loaded with its first call), settings."""

import threading
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from atoll.group import Provider
from providers.blocking import Threads
from providers.gcp import access
from providers.gcp.driver import Gcp
from providers.gcp.prices import Prices
from providers.gcp.settings import Settings, parse
from providers.registry import DriverContext

if find_spec("google.cloud.compute_v1") is None:  # told now, though it is imported later
    raise ModuleNotFoundError("no google-cloud-compute", name="google.cloud.compute_v1")


class Account:
    """What is signed in to, once, on the first call: importing the SDK takes seconds, so a thread does it."""

    def __init__(self, name: str, settings: Settings, proxy: str) -> None:
        self._settings = settings
        self._proxy = proxy
        self._threads = Threads(name)
        self._opening = threading.Lock()
        self._opened: tuple[Any, Any] | None = None

    async def call(self, name: str, *arguments: Any) -> Any:
        """Make one call of `Compute` on a thread."""
        return await self._threads.run(lambda: getattr(self._open()[0], name)(*arguments))

    async def web(
        self, url: str, parameters: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> access.Reply:
        """Make one plain HTTP call on a thread."""
        return await self._threads.run(lambda: access.ask(self._open()[1], url, parameters, body))

    def _open(self) -> tuple[Any, Any]:
        with self._opening:
            if self._opened is None:
                from providers.gcp.compute import Compute  # 150 MB and two seconds: on a thread, when needed

                signed = access.credentials(self._settings.sign_in)
                session = access.session(signed, self._proxy)
                self._opened = Compute(self._settings, signed, self._proxy), session
            return self._opened


def make(provider: Provider, context: DriverContext) -> Gcp:
    """Return the driver of a provider of kind `gcp`; raise `Invalid` where its settings are wrong."""
    settings = parse(provider.settings)
    account = Account(provider.name, settings, context.proxy)
    return Gcp(provider.name, settings, account.call, account.web, context.clock)


def feed(provider: Provider, context: DriverContext) -> Prices:
    """Return the live price list of a provider of kind `gcp`."""
    settings = parse(provider.settings)
    account = Account(provider.name, settings, context.proxy)
    return Prices(provider.name, settings, account.call, account.web, context.clock)
