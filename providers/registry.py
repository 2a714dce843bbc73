"""Which driver serves which kind of provider; a driver's module is imported only when it is used."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias, cast

from atoll.clock import Clock
from atoll.errors import Invalid
from atoll.group import Provider
from atoll.suggest import hint
from providers.port import Driver
from providers.prices.feed import Feed

Launch: TypeAlias = Callable[[Sequence[str], Path, Mapping[str, str]], int]
"""Start a process of its own session from argv, working directory and environment; return its pid."""

ENTRY_POINTS = "atoll.providers"
"""Entry-point group of drivers that other distributions bring: each a `(Provider, DriverContext) -> Driver`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """What the composition root lends to drivers.

    `directory` is a folder for drivers that keep something on this machine; `launch` starts a detached
    process that outlives the control plane. `proxy` is the HTTP proxy for calls to clouds (empty: what the
    environment says).
    """

    directory: Path
    launch: Launch
    clock: Clock
    proxy: str = ""


Factory: TypeAlias = Callable[[Provider, DriverContext], Driver]
FeedFactory: TypeAlias = Callable[[Provider, DriverContext], Feed]

_BUILT_IN: Mapping[str, str] = {
    "aws": "providers.aws.setup:make",
    "azure": "providers.azure.setup:make",
    "gcp": "providers.gcp.setup:make",
    "openstack": "providers.openstack.setup:make",
    "sim": "providers.sim.setup:make",
}
_FEEDS: Mapping[str, str] = {
    "aws": "providers.aws.setup:feed",
    "azure": "providers.azure.setup:feed",
    "gcp": "providers.gcp.setup:feed",
}


def kinds() -> list[str]:
    """Return every kind of provider there is a driver for."""
    return sorted({*_BUILT_IN, *_plugins()})


def make(provider: Provider, context: DriverContext) -> Driver:
    """Return the driver of a provider; raise `Invalid` for an unknown kind or settings it cannot work with."""
    if place := _BUILT_IN.get(provider.kind):
        return cast(Factory, _load(place, provider.kind))(provider, context)
    if plugin := _plugins().get(provider.kind):
        return plugin()(provider, context)
    known = kinds()
    raise Invalid(
        f"there is no driver for providers of kind {provider.kind!r}",
        hint=hint(provider.kind, known, f"kinds here: {', '.join(known)}"),
    )


def feed(provider: Provider, context: DriverContext) -> Feed | None:
    """Return the live source of a provider's prices; None where its cloud has none."""
    place = _FEEDS.get(provider.kind)
    return cast(FeedFactory, _load(place, provider.kind))(provider, context) if place else None


def _load(place: str, kind: str) -> object:
    module, _, name = place.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in _OWN:
            raise
        raise Invalid(
            f"providers of kind {kind!r} need a package that is not installed: {error.name}",
            hint=f"pip install 'atoll[{kind}]'",
        ) from error


_OWN = frozenset({"atoll", "providers"})


def _plugins() -> dict[str, Callable[[], Factory]]:
    from importlib.metadata import entry_points  # here: it reads the disk, and only plug-ins need it

    return {point.name: point.load for point in entry_points(group=ENTRY_POINTS)}
