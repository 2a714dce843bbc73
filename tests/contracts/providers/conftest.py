"""Every provider harness there is: the suite runs once for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.providers.harness import Harness, SimHarness


@pytest.fixture(params=["sim"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = {"sim": SimHarness}[request.param](tmp_path / "clouds")
    harness.start()
    yield harness
    harness.stop()
    assert harness.leftovers() == []
