"""Commands against a small real server: what they send, print and exit with."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from atoll.cli.follow import verdict
from atoll.cli.forward import parse_ports
from atoll.cli.main import main
from atoll.client import profile
from tests.atoll.plane import TOKEN, Plane, session_view

Capture = pytest.CaptureFixture[str]


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "atoll", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def test_run_streams_and_exits_with_the_commands_code(logged_in: Plane) -> None:
    logged_in.output = {1: {"out": b"forty-two\n" * 5, "err": b"warning\n"}}
    logged_in.cuts = [14]
    logged_in.end = {"state": "failed", "reason": "EXITED", "exit_code": 7}
    done = _run("run", "--cpu", "2", "--gpu", "1", "--gpu-model", "L4", "--", "python3", "-c", "print(6*7)", "--", "x")
    assert (done.returncode, done.stdout, done.stderr) == (7, "forty-two\n" * 5, "warning\n")
    spec = logged_in.bodies[0]["spec"]
    assert spec["command"] == ["python3", "-c", "print(6*7)", "--", "x"]
    assert spec["resources"]["cpu"] == 2
    assert spec["resources"]["gpu"] == {"count": 1, "name": ["L4"]}


def test_run_marks_the_lines_of_several(logged_in: Plane) -> None:
    logged_in.output = {1: {"out": b"one\ntwo", "err": b""}}
    done = _run("run", "--count", "2", "--", "true")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["[0] one", "[0] two", "[1] one", "[1] two"]
    assert logged_in.bodies[0]["count"] == 2


def test_run_tells_why_nothing_can_run_it(logged_in: Plane) -> None:
    logged_in.state = {"state": "held", "reason": "NO_CAPABLE_SITE", "message": "no site has 9000 GPUs"}
    logged_in.hang = True
    done = _run("run", "--gpu", "9000", "--", "true")
    logged_in.hang = False
    assert done.returncode == 124
    assert done.stderr.startswith("error: calm-0 is held")
    assert "atoll stop calm-0" in done.stderr
    assert not logged_in.stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_session(logged_in: Plane, number: signal.Signals, code: int) -> None:
    logged_in.hang = True
    logged_in.output = {1: {"out": b"begun\n", "err": b""}}
    command = [sys.executable, "-m", "atoll", "run", "--", "sleep", "1000"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.wait(10) == code
    assert logged_in.stopped == ["s-0"]


@pytest.mark.parametrize(("answer", "code", "stopped"), [("l", 0, []), ("s", 130, ["s-0"])])
def test_ctrl_c_on_a_terminal_asks(logged_in: Plane, answer: str, code: int, stopped: list[str]) -> None:
    logged_in.hang = True
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "atoll", "run", "--", "sleep", "1000"]
    try:
        with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside) as process:
            assert b"on desk" in _read_until(terminal, lambda text: b"running" in text and b"\n" in text)
            process.send_signal(signal.SIGINT)
            _read_until(terminal, lambda text: b"[s/l]" in text)
            os.write(terminal, answer.encode() + b"\n")
            assert process.wait(15) == code
        assert logged_in.stopped == stopped
    finally:
        logged_in.hang = False
        os.close(terminal)
        os.close(inside)


def _read_until(terminal: int, enough: Callable[[bytes], bool]) -> bytes:
    told, limit = b"", time.monotonic() + 15
    while not enough(told):
        assert time.monotonic() < limit, told
        told += os.read(terminal, 4096)
    return told


def test_run_detached_prints_names_or_views(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "session.yaml"
    file.write_text("kind: session\nname: train\ncommand: [a]\nresources: {cpu: 4, memory: 2GiB}\nenv: {A: 1}\n")
    line = ["run", "--detach", "-f", str(file), "--cpu", "2", "--env", "B=2", "--app", "web", "--max-lifetime", "2h"]
    assert main(line) == 0
    assert capsys.readouterr().out == "train\n"
    spec = logged_in.bodies[0]["spec"]
    assert spec["resources"] == {"cpu": 2, "memory": "2GiB"}
    assert (spec["env"], spec["apps"], spec["lifetime"]) == ({"A": "1", "B": "2"}, {"web": 0}, {"max": "2h"})
    assert main([*line, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "queued"


def test_ps_mirrors_the_rest_objects(logged_in: Plane, capsys: Capture) -> None:
    logged_in.sessions = {f"s-{n}": session_view(n, {"command": ["a"]}, state="running") for n in range(3)}
    assert main(["ps", "--all", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [view["name"] for view in found] == ["calm-2", "calm-1", "calm-0"]
    assert {"name", "state", "reason", "exit_code"} <= set(found[0])
    assert main(["ps", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)[0]["state"] == "running"
    assert main(["ps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["NAME", "STATE", "REASON"]
    assert "\x1b" not in "".join(lines)


def test_tables_show_no_control_characters(logged_in: Plane, capsys: Capture) -> None:
    logged_in.sessions = {"s-0": session_view(0, {"command": ["a"]}, site="evil\x1b[2J")}
    assert main(["ps"]) == 0
    assert "evil?[2J" in capsys.readouterr().out


def test_logs_go_where_they_belong(logged_in: Plane) -> None:
    logged_in.sessions = {"s-0": session_view(0, {"command": ["a"]}, state="succeeded")}
    logged_in.output = {1: {"out": b"out\n", "err": b"err\n"}}
    done = _run("logs", "calm-0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_stop_and_open(logged_in: Plane, capsys: Capture) -> None:
    logged_in.sessions = {"s-0": session_view(0, {"command": ["a"], "apps": {"web": 0}}, state="running")}
    assert main(["open", "calm-0"]) == 0
    assert capsys.readouterr().out == "http://web--x.localhost/\n"
    assert main(["stop", "calm-0"]) == 0
    assert logged_in.stopped == ["s-0"]


def test_move_says_what_happens(logged_in: Plane, capsys: Capture) -> None:
    logged_in.sessions = {"s-0": session_view(0, {"command": ["a"]}, state="running")}
    assert main(["move", "calm-0", "--to", "desk"]) == 0
    assert capsys.readouterr().err == "calm-0 is asked for a checkpoint, to go on at desk\n"


def test_groups_and_providers(logged_in: Plane, capsys: Capture) -> None:
    assert main(["group", "create", "burst", "--provider", "sim"]) == 122
    assert main(["provider", "add", "sim", "--set", "boot_s=1", "--set", "faults.no_capacity={times: 2}"]) == 0
    assert main(["group", "create", "burst", "--provider", "sim", "--max", "9", "--spot", "--idle", "5s"]) == 0
    settings = {"boot_s": 1, "faults": {"no_capacity": {"times": 2}}}
    assert logged_in.objects["providers"]["sim"].settings == settings
    spec = logged_in.objects["groups"]["burst"].spec
    assert (spec["size"], spec["spot"], spec["scale_down"]) == ({"min": 0, "max": 9}, True, {"idle": "5s"})
    assert list(logged_in.objects["sites"]) == ["sim"]
    capsys.readouterr()
    assert main(["group", "list"]) == 0
    assert "0..9" in capsys.readouterr().out


def test_apply_says_what_it_did(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "all.yaml"
    text = (
        "kind: session\nname: job\ncommand: [a]\n---\nkind: group\nname: burst\nprovider: sim\n"
        "---\nkind: provider\ntype: sim\n---\nkind: site\nname: hall\nprice: {price}\n"
    )
    file.write_text(text.replace("{price}", "0.1"))
    assert main(["apply", "-f", str(file)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == ["site/hall created", "provider/sim created", "group/burst created", "session/job created"]
    assert main(["apply", "-f", str(file)]) == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == {"unchanged"}
    changed = text.replace("{price}", "0.2")
    done = subprocess.run(
        [sys.executable, "-m", "atoll", "apply", "-f", "-"], input=changed, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[0] == "site/hall changed"
    file.write_text("kind: session\nname: job\ncommand: [b]\n")
    assert main(["apply", "-f", str(file)]) == 123


def test_apply_sends_nothing_when_one_document_is_wrong(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "all.yaml"
    file.write_text("kind: site\nname: hall\n---\nkind: group\nname: b\nproviderr: sim\n")
    assert main(["apply", "-f", str(file)]) == 120
    assert "did you mean 'provider'?" in capsys.readouterr().err
    assert not logged_in.objects["sites"]
    for text, message in (("a: [", "line 1 is not YAML"), ("- 1", "must hold mappings"), ("", "holds no document")):
        file.write_text(text)
        assert main(["apply", "-f", str(file)]) == 120
        assert message in capsys.readouterr().err


def test_a_token_is_printed_alone(logged_in: Plane, capsys: Capture) -> None:
    assert main(["token", "create", "--site", "desk", "--ttl", "2h", "--uses", "3"]) == 0
    told = capsys.readouterr()
    assert told.out == "atj_secret\n"
    assert "on the machine: curl" in told.err
    assert logged_in.bodies[0] == {
        "kind": "join", "site": "desk", "group": "desk", "uses": 3, "ttl_s": 7200, "owner": "",
    }  # fmt: skip


def test_login_keeps_a_profile_that_works(home: Path, plane: Plane) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "atoll", "login", plane.url], input=TOKEN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert profile.load() == profile.Profile(url=plane.url, token=TOKEN)
    assert profile.path().stat().st_mode & 0o777 == 0o600
    assert main(["login", plane.url, "--token", "atk_wrong"]) == 121
    assert profile.load().token == TOKEN


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"state": "succeeded", "exit_code": 0}, 0),
        ({"state": "failed", "reason": "EXITED", "exit_code": 7}, 7),
        ({"state": "failed", "reason": "START_FAILED", "exit_code": 127}, 127),
        ({"state": "failed", "reason": "RETRIES_EXHAUSTED"}, 125),
        ({"state": "cancelled", "reason": "STOP_REQUESTED"}, 125),
        ({"state": "cancelled", "reason": "STOP_REQUESTED", "exit_code": 0}, 125),
        ({"state": "expired", "reason": "MAX_WAIT"}, 124),
    ],
)
def test_verdicts(facts: dict[str, object], code: int) -> None:
    told, why = verdict(session_view(0, {}, **facts))
    assert told == code
    assert bool(why) == (code not in (0, 7))


def test_ports() -> None:
    assert (parse_ports("8080:80"), parse_ports("80"), parse_ports("0:80")) == ((8080, 80), (80, 80), (0, 80))
