import asyncio
from pathlib import Path

import pytest

from atoll.host.system import SystemClock
from providers.errors import Unknown
from providers.openstack.turn import turn


async def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    inside, most, served = 0, 0, 0

    async def one() -> None:
        nonlocal inside, most, served
        async with turn(tmp_path / "locks" / "i", SystemClock(), 30.0):
            inside, served = inside + 1, served + 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(one() for _ in range(8)))
    assert (most, served) == (1, 8)
    assert list((tmp_path / "locks").iterdir()) == []


async def test_who_waits_for_too_long_does_not_know(tmp_path: Path) -> None:
    async with turn(tmp_path / "i", SystemClock(), 1.0):
        with pytest.raises(Unknown):
            async with turn(tmp_path / "i", SystemClock(), 0.15):
                pass
    async with turn(tmp_path / "i", SystemClock(), 0.15):
        pass


async def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        async with turn(tmp_path / "i", SystemClock(), 1.0):
            raise ValueError("no")
    assert list(tmp_path.iterdir()) == []
