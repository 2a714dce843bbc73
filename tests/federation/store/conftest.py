"""Databases for the tests of the store in SQL."""

from pathlib import Path

import pytest

from tests.postgres import postgres_server as postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_server").new_database())
    return f"sqlite:///{tmp_path}/atoll.db"
