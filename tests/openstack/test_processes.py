"""The stack's processes end with whoever started them, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.openstack.processes import Processes
from tests.openstack.stack import ROOT

STARTER = """
import sys, time
from pathlib import Path
from tests.openstack.processes import Processes
processes = Processes(Path(sys.argv[1]), bound=True)
for name in "ab":
    processes.start(name, ["sleep", "60"], {"PATH": "/usr/bin:/bin"}, Path("/"))
print("started", flush=True)
time.sleep(60)
"""


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_processes_are_ended_by_their_pids(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("a", ["sleep", "60"], os.environ, tmp_path)
    (pid,) = processes.alive()
    Processes(tmp_path).stop()
    processes.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert not list((tmp_path / "pids").iterdir())


def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "a").write_text(f"{os.getpid()} 1")
    processes = Processes(tmp_path)
    assert processes.alive() == []
    processes.stop()


def test_they_end_when_the_test_run_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout
    try:
        assert starter.stdout.readline() == "started\n"
        assert until(lambda: [program(pid) for pid in Processes(tmp_path).alive()] == ["sleep", "sleep"])
    finally:
        starter.send_signal(signal.SIGKILL)
        starter.wait(10)
        starter.stdout.close()
    assert until(lambda: not Processes(tmp_path).alive())
