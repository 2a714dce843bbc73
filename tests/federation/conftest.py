"""A served control plane for the tests of API, gateway and pages."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.federation.served import Served, served


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running
