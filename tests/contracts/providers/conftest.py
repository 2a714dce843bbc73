"""Every cloud there is a harness for: the suite runs once for each, and says at its end what was injected."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import every
from tests.clouds.harness import Harness
from tests.conftest import STRUCK

OUTSIDE = os.environ.get("ATOLL_PROVIDER_HARNESS", "")
"""`module:Class` of a driver from elsewhere: the suite then runs for it alone (docs/plugins.md)."""
NAMES = [OUTSIDE] if OUTSIDE else list(every.HARNESSES)


@pytest.fixture(
    params=[pytest.param(n, marks=pytest.mark.xdist_group(f"cloud-{n}"), id=n.partition(":")[2] or n) for n in NAMES]
)
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = every.harness(request.param, tmp_path / "clouds")
    harness.start()
    try:
        yield harness
        request.node.user_properties.append((STRUCK, (harness.name, harness.struck())))
    finally:
        harness.stop()
    assert harness.leftovers() == []
