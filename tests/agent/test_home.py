"""The agent's home: one process at a time, and a birth that a restart does not move."""

import os
from pathlib import Path

import pytest

from agent.home import AgentHome
from agent.runtime.shim import boot_id
from atoll.errors import Conflict, Refused


def test_one_process_a_home(tmp_path: Path) -> None:
    first, second = AgentHome(tmp_path), AgentHome(tmp_path)
    first.take()
    assert second.running() == os.getpid()
    with pytest.raises(Conflict, match="already runs in"):
        second.take()
    first.give_back()
    second.take()
    second.give_back()


def test_a_pid_file_elsewhere(tmp_path: Path) -> None:
    home = AgentHome(tmp_path / "agent", tmp_path / "run" / "agent.pid")
    home.prepare()
    home.take()
    pid, started = home.pid_file.read_text().split()
    assert int(pid) == os.getpid()
    assert started.isdecimal()
    home.give_back()
    assert not home.pid_file.exists()


def test_a_pid_that_another_process_has_now_is_not_running(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(f"{os.getpid()} 1\n")
    assert AgentHome(tmp_path).running() is None


def test_a_machine_is_born_once_a_boot(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    assert home.born_at(50.0) == 50.0
    assert home.born_at(90.0) == 50.0
    (tmp_path / "boot").write_text((tmp_path / "boot").read_text().replace(boot_id(), "another"))
    assert home.born_at(7.0) == 7.0


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot write"):
        AgentHome(tmp_path / "file" / "agent").prepare()


def test_clear_leaves_no_identity(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    for name in ("agent.json", "key.pem", "cert.pem", "ca.pem"):
        (tmp_path / name).write_text("x")
    home.journal.mkdir()
    home.clear()
    assert list(tmp_path.iterdir()) == []
