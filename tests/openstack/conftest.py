"""A clean cloud for each test of the real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.openstack.harness import OpenStackHarness


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[OpenStackHarness]:
    harness = OpenStackHarness(tmp_path / "clouds")
    harness.start()
    try:
        yield harness
    finally:
        harness.stop()
    assert harness.leftovers() == []
