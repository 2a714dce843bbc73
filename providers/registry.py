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

Launch: TypeAlias = Callable[[Sequence[str], Path, Mapping[str, str]], int]
"""Start a process of its own session from argv, working directory and environment; return its pid."""

ENTRY_POINTS = "atoll.providers"
"""Entry-point group of drivers that other distributions bring: each a `(Provider, DriverContext) -> Driver`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """What the composition root lends to drivers.

    `directory` is a folder for drivers that keep something on this machine; `launch` starts a detached
    process that outlives the control plane.
    """

    directory: Path
    launch: Launch
    clock: Clock


Factory: TypeAlias = Callable[[Provider, DriverContext], Driver]

_BUILT_IN: Mapping[str, str] = {"sim": "providers.sim.setup:make"}


def kinds() -> list[str]:
    """Return every kind of provider there is a driver for."""
    return sorted({*_BUILT_IN, *_plugins()})


def make(provider: Provider, context: DriverContext) -> Driver:
    """Return the driver of a provider; raise `Invalid` for an unknown kind or settings it cannot work with."""
    if place := _BUILT_IN.get(provider.kind):
        module, _, name = place.partition(":")
        return cast(Factory, getattr(import_module(module), name))(provider, context)
    if plugin := _plugins().get(provider.kind):
        return plugin()(provider, context)
    known = kinds()
    raise Invalid(
        f"there is no driver for providers of kind {provider.kind!r}",
        hint=hint(provider.kind, known, f"kinds here: {', '.join(known)}"),
    )


def _plugins() -> dict[str, Callable[[], Factory]]:
    from importlib.metadata import entry_points  # here: it reads the disk, and only plug-ins need it

    return {point.name: point.load for point in entry_points(group=ENTRY_POINTS)}
