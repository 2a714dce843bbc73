"""Every cloud there is a harness for: the suite runs once for each, and says at its end what was injected."""

import os
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.clouds.harness import Harness

HARNESSES = {
    "sim": "tests.clouds.sim.harness:SimHarness",
    "aws": "tests.clouds.aws.harness:AwsHarness",
    "gcp": "tests.clouds.gcp.harness:GcpHarness",
    "azure": "tests.clouds.azure.harness:AzureHarness",
    "openstack": "tests.clouds.openstack.harness:OpenStackHarness",
}
OUTSIDE = os.environ.get("ATOLL_PROVIDER_HARNESS", "")
"""`module:Class` of a driver from elsewhere: the suite then runs for it alone (docs/plugins.md)."""
if OUTSIDE:
    HARNESSES = {OUTSIDE.partition(":")[2]: OUTSIDE}
STRUCK: dict[str, Counter[str]] = {}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(f"cloud-{name}")) for name in HARNESSES])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    module, _, name = HARNESSES[request.param].partition(":")
    if request.param not in STRUCK and not OUTSIDE and not Path(*module.split(".")).with_suffix(".py").exists():
        pytest.skip(f"no harness for {request.param} yet")
    harness: Harness = getattr(import_module(module), name)(tmp_path / "clouds")
    harness.start()
    try:
        yield harness
        STRUCK.setdefault(harness.name, Counter()).update(harness.struck())
    finally:
        harness.stop()
    assert harness.leftovers() == []
