"""Installations for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Installation]:
    """An installation that nothing was started in yet."""
    with Installation(tmp_path) as installation:
        yield installation


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that is up, shared by the tests of one module: they leave no session running."""
    with Installation(tmp_path_factory.mktemp("running")) as installation:
        installation.up()
        yield installation
