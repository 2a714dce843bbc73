"""Fixtures of the client's side: a plane, and a home whose profile points to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.client import profile
from tests.atoll.plane import TOKEN, Plane, running


@pytest.fixture
def plane() -> Iterator[Plane]:
    with running(Plane()) as served:
        yield served


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, without a profile."""
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def logged_in(home: Path, plane: Plane) -> Plane:
    """A plane that this home's profile points to."""
    profile.save(profile.Profile(url=plane.url, token=TOKEN))
    return plane
