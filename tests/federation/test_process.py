"""The control plane as a process: starts, is adopted, tells what stops it, ends cleanly. Agents are tested in e2e."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.client import profile
from atoll.errors import AtollError, NotFound, Refused, Unavailable
from federation import pidfile
from federation.local import down, up
from federation.nearby import Nearby
from tests.ports import free_port


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "home"
    monkeypatch.setenv("ATOLL_HOME", str(place))
    monkeypatch.setenv("ATOLL_SERVER__LISTEN", f"127.0.0.1:{free_port()}")
    yield place
    down(Namespace())


def start(**flags: object) -> int:
    return up(Namespace(**{"detach": True, "no_agent": True, **flags}))


def test_up_starts_and_then_adopts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert start() == 0
    assert time.monotonic() - began < 10
    said = capsys.readouterr().out
    assert "Atoll is up at http://127.0.0.1:" in said
    assert "/login?grant=" in said
    process = pidfile.read(home / "run" / "control.pid")
    assert process is not None
    for private in (home, home / "keys", home / "client.json", home / "keys" / "secret.key"):
        assert stat.S_IMODE(private.stat().st_mode) & 0o077 == 0
    kept = (home / "client.json").read_text()
    near = Nearby(profile.load(home / "client.json"))
    assert near.get("/v1/status")["agents"] == 0
    assert start() == 0
    assert "was up already" in capsys.readouterr().out
    assert pidfile.read(home / "run" / "control.pid") == process
    assert down(Namespace(sessions=True)) == 0
    assert not process.alive
    assert not (home / "run" / "control.pid").exists()
    assert start() == 0
    assert (home / "client.json").read_text() == kept
    assert (home / "log" / "control.log").read_text() == ""


def test_a_killed_control_plane_is_started_again(home: Path) -> None:
    start()
    before = pidfile.read(home / "run" / "control.pid")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    pidfile.end(before, within_s=5)
    start()
    after = pidfile.read(home / "run" / "control.pid")
    assert after is not None
    assert after != before


def test_a_port_in_use_is_told(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refused, match="address already in use") as told:
            start(listen=f"127.0.0.1:{taken.getsockname()[1]}")
    assert "--listen" in told.value.hint
    assert pidfile.read(home / "run" / "control.pid") is None


def test_a_second_control_plane_in_one_home_is_told(home: Path) -> None:
    start()
    done = subprocess.run(
        [sys.executable, "-m", "federation", "--home", str(home), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 125
    assert "already runs" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(Refused, match="cannot write") as told:
        start()
    assert "ATOLL_HOME" in told.value.hint


def test_port_0_takes_a_free_one_and_https_answers_under_our_ca(home: Path) -> None:
    start(listen="127.0.0.1:0")
    known = profile.load(home / "client.json")
    ca = Nearby(known).get("/v1/ca")["ca"]
    assert ca == (home / "keys" / "ca.pem").read_text()
    secure = Nearby(profile.Profile(url=known.url.replace("http://", "https://"), token=known.token, ca=ca))
    assert secure.get("/healthz") == {"status": "ok"}
    with pytest.raises(NotFound):
        secure.get("/v1/agents/none")
    with pytest.raises(Unavailable):
        Nearby(profile.Profile(url="http://127.0.0.1:1", token="")).get("/healthz")


def test_down_without_anything_is_well(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert down(Namespace()) == 0
    assert "nothing is running" in capsys.readouterr().err


def test_down_ends_sessions_when_asked(home: Path) -> None:
    start()
    near = Nearby(profile.load(home / "client.json"))
    body = {"spec": {"command": ["true"], "name": "waits"}, "count": 1}
    near.post("/v1/projects/default/sessions", body)
    down(Namespace(sessions=True))
    start()
    assert near.get("/v1/projects/default/sessions/waits")["state"] == "cancelled"


def test_up_in_the_foreground_ends_what_it_started_on_sigterm(home: Path) -> None:
    code = "from argparse import Namespace; from federation.local import up; up(Namespace(no_agent=True))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "stop" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        running = pidfile.read(home / "run" / "control.pid")
        assert running is not None
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert not running.alive


def test_a_pid_file_names_one_process_only(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    mine = pidfile.started_at(os.getpid())
    for text, found in (
        (f"{os.getpid()} {mine}", True), (f"{os.getpid()}\n", True), (f"{os.getpid()} 1", False), ("", False),
        ("none", False), ("4194999 5", False),
    ):  # fmt: skip
        path.write_text(text)
        assert (pidfile.read(path) is not None) is found, text
    assert pidfile.read(tmp_path / "missing") is None


def test_a_process_that_ignores_term_is_killed() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        named = pidfile.Process(process.pid, pidfile.started_at(process.pid) or 0)
        assert not pidfile.end(named, within_s=0.2)
        assert not named.alive
    assert pidfile.end(named, within_s=0.1)


def test_the_profile_is_what_a_client_reads(home: Path) -> None:
    start()
    values = json.loads((home / "client.json").read_text())
    assert set(values) == {"url", "token", "ca", "project"}
    assert values["token"].startswith("atk_")
    with pytest.raises(AtollError, match="not valid"):
        Nearby(profile.Profile(url=values["url"], token="atk_wrong")).get("/v1/status")
