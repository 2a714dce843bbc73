"""The file between agent and dead-man."""

from pathlib import Path

import pytest

from agent.deadline import MARGIN_S, DeadlineFile, uptime


def test_it_holds_a_second_of_uptime_in_a_line_of_one_width(tmp_path: Path) -> None:
    path = tmp_path / "deadline"
    file = DeadlineFile(path, lambda: 1000.9)
    file.put_off(60.0)
    assert int(path.read_text()) == int(1000.9 + 60 + MARGIN_S)
    width = path.stat().st_size
    file.put_off(1e6)
    assert path.stat().st_size == width
    file.over()
    assert int(path.read_text()) == 0
    assert path.stat().st_size == width


def test_a_full_disk_takes_it(tmp_path: Path) -> None:
    """It is written in place: no block and no name is asked for."""
    path = tmp_path / "deadline"
    file = DeadlineFile(path, lambda: 1.0)
    file.put_off(1.0)
    before = path.stat().st_ino
    file.put_off(2.0)
    assert path.stat().st_ino == before


def test_a_home_that_is_gone_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        DeadlineFile(tmp_path / "gone" / "deadline").put_off(1.0)


def test_the_clock_is_the_dead_mans() -> None:
    assert abs(uptime() - float(Path("/proc/uptime").read_text().split()[0])) < 1
