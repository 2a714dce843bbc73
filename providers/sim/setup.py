"""Puts a `sim` driver together on this machine: inventory file, machine processes, settings."""

from atoll.group import Provider
from providers.registry import DriverContext
from providers.sim.driver import Sim
from providers.sim.files import FileInventory
from providers.sim.hall import ProcessMachines
from providers.sim.settings import parse


def make(provider: Provider, context: DriverContext) -> Sim:
    """Return the driver of a provider of kind `sim`; its cloud lives in `context.directory/<provider name>`."""
    directory = context.directory.absolute() / provider.name
    return Sim(
        provider.name,
        parse(provider.settings),
        FileInventory(directory),
        ProcessMachines(directory / "machines", context.launch),
        context.clock,
    )
