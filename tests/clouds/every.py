"""Every cloud there is a harness for."""

from importlib import import_module
from pathlib import Path

from tests.clouds.harness import Harness

HARNESSES = {
    "sim": "tests.clouds.sim.harness:SimHarness",
    "aws": "tests.clouds.aws.harness:AwsHarness",
    "gcp": "tests.clouds.gcp.harness:GcpHarness",
    "azure": "tests.clouds.azure.harness:AzureHarness",
    "openstack": "tests.clouds.openstack.harness:OpenStackHarness",
}
"""Class of each cloud's harness, as `module:Class`; modules import their SDKs and servers, so only when used."""

REAL = tuple(name for name in HARNESSES if name != "sim")
"""Those with a server of their own, which other processes reach."""


def harness(name: str, directory: Path) -> Harness:
    """Return a cloud's harness by name, or by `module:Class`; it is not started yet."""
    module, _, kind = HARNESSES.get(name, name).partition(":")
    made: Harness = getattr(import_module(module), kind)(directory)
    return made
