"""Commands that end, resize, rotate and describe: what they ask, send, print and exit with."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.cli.main import main
from atoll.client import views
from tests.atoll.plane import Plane, instance_view

Capture = pytest.CaptureFixture[str]
FAST = ["--every", "0.01"]


@pytest.fixture
def burst(logged_in: Plane, capsys: Capture) -> Plane:
    """A plane with a provider and an elastic group of two machines."""
    assert main(["provider", "add", "sim"]) == 0
    assert main(["group", "create", "burst", "--provider", "sim"]) == 0
    logged_in.instances = [instance_view(1), instance_view(2)]
    logged_in.bodies.clear()
    capsys.readouterr()
    return logged_in


def test_terminate_now_follows_until_the_cloud_has_none(burst: Plane, capsys: Capture) -> None:
    burst.instances.append(instance_view(3, state="ending"))
    assert main(["group", "terminate", "burst", "--now", "--yes", *FAST]) == 0
    told = capsys.readouterr()
    assert told.out == "group burst is closed: its cloud has none of its machines any more\n"
    assert told.err.splitlines()[:2] == ["2 left: i-2 joined, i-3 ending", "1 left: i-3 ending"]
    assert "atoll group resize burst --max N" in told.err
    assert burst.bodies == [{"now": True}]


def test_terminate_now_that_takes_too_long_exits_with_124(burst: Plane, capsys: Capture) -> None:
    burst.ends = False
    assert main(["group", "terminate", "burst", "--now", "--yes", "--timeout", "0.05s", *FAST]) == 124
    told = capsys.readouterr()
    assert "has not ended 2 machines of group burst within 0.05s" in told.err
    assert "atoll describe provider sim" in told.err


def test_terminate_now_is_refused_where_nobody_can_answer(burst: Plane) -> None:
    command = [sys.executable, "-m", "atoll", "group", "terminate", "burst", "--now"]
    done = subprocess.run(command, input="y\n", capture_output=True, text=True, check=False)
    assert done.returncode == 120
    assert "--yes" in done.stderr
    assert burst.bodies == []


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 120), ("", 120)])
def test_terminate_now_asks_on_a_terminal(burst: Plane, answer: str, code: int) -> None:
    terminal, inside = pty.openpty()
    try:
        command = [sys.executable, "-m", "atoll", "group", "terminate", "burst", "--now", *FAST]
        with subprocess.Popen(command, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            os.write(terminal, answer.encode() + b"\n")
            out, err = process.communicate(timeout=20)
        assert process.returncode == code, err
        assert b"end 2 machines of group burst now" in out + err
        assert burst.bodies == ([{"now": True}] if code == 0 else [])
    finally:
        os.close(terminal)
        os.close(inside)


def test_terminate_without_now_only_drains(burst: Plane, capsys: Capture) -> None:
    assert main(["group", "terminate", "burst"]) == 0
    assert burst.bodies == [{"now": False}]
    assert "takes no more sessions" in capsys.readouterr().out


def test_a_drain_may_have_a_deadline(burst: Plane, capsys: Capture) -> None:
    assert main(["group", "terminate", "burst", "--deadline", "1h30m"]) == 0
    assert main(["agent", "cordon", "ws-alice", "--deadline", "30m"]) == 0
    assert main(["agent", "cordon", "ws-alice"]) == 0
    assert burst.bodies == [{"now": False, "deadline": 5400.0}, {"deadline": 1800.0}, {}]
    told = capsys.readouterr()
    assert "agent ws-alice: cordon done, it is draining" in told.out
    assert "moved in 30m; `atoll agent uncordon ws-alice` cancels this" in told.err
    assert main(["agent", "uncordon", "ws-alice"]) == 0
    assert "it is ready" in capsys.readouterr().out
    assert main(["agent", "cordon", "ws-alice", "--deadline", "soon"]) == 120
    assert len(burst.bodies) == 4


def test_resize(burst: Plane, capsys: Capture) -> None:
    assert main(["group", "resize", "burst", "--max", "9"]) == 0
    assert capsys.readouterr().out == "group burst may have 0 to 9 machines\n"
    assert main(["group", "resize", "burst"]) == 120
    assert "--max" in capsys.readouterr().err


def test_rotate_takes_secrets_from_files_and_standard_input(burst: Plane, tmp_path: Path, capsys: Capture) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret: [not yaml\n")
    line = ["provider", "rotate", "sim", "--set", "credentials.id=007", "--set", f"credentials.key=@{key}"]
    assert main(line) == 0
    assert burst.bodies == [{"credentials": {"id": "007", "key": "s3cret: [not yaml"}}]
    told = capsys.readouterr()
    assert "s3cret" not in told.out + told.err
    done = subprocess.run(
        [sys.executable, "-m", "atoll", "provider", "rotate", "sim", "--set", "credentials.key=-"],
        input="from-stdin\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert burst.bodies[-1] == {"credentials": {"key": "from-stdin"}}
    file = tmp_path / "all.yaml"
    file.write_text("credentials:\n  id: a\n  key: b\n")
    assert main(["provider", "rotate", "sim", "-f", str(file), "--set", "credentials.key=c"]) == 0
    assert burst.bodies[-1] == {"credentials": {"id": "a", "key": "c"}}


def test_rotate_says_what_is_wrong(burst: Plane, tmp_path: Path, capsys: Capture) -> None:
    for words, code, said in (
        (["--set", "credentials.key=wrong"], 123, "the old ones stay in use"),
        (["--set", "region=r1", "--set", "credentials.key=x"], 120, "credentials only, not 'region'"),
        ([], 120, "none were given"),
        (["--set", f"credentials.key=@{tmp_path}/none"], 120, "cannot read"),
        (["--set", f"credentials.key=@{tmp_path}"], 120, "cannot read"),
    ):
        assert main(["provider", "rotate", "sim", *words]) == code
        assert said in capsys.readouterr().err


def test_add_takes_orphans_and_secrets(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    key = tmp_path / "key"
    key.write_text("abc\n")
    line = ["provider", "add", "sim", "--orphans", "quarantine", "--set", f"credentials.key=@{key}"]
    assert main(line) == 0
    assert logged_in.objects["providers"]["sim"].settings == {"credentials": {"key": "abc"}}
    assert main(["provider", "add", "sim", "--name", "other", "--orphans", "quarantin"]) == 120
    assert "did you mean 'quarantine'?" in capsys.readouterr().err


def test_describe_a_provider_tells_its_health(burst: Plane, capsys: Capture) -> None:
    assert main(["describe", "provider", "sim"]) == 0
    told = capsys.readouterr().out
    for line in ("credentials     none stored here", "last sweep      not yet", "limits          none known"):
        assert line in told
    burst.health = views.HealthView(
        orphans="report",
        live=3,
        credentials_age_s=7200.0,
        limits=[
            views.LimitView(
                name="vcpus", limit=16, committed=12, counts="cpu", shapes=["c*"], spot=None, learned=False, left_s=0
            ),
            views.LimitView(
                name="c9", limit=2, committed=2, counts="instances", shapes=["c9"], spot=True, learned=True, left_s=600
            ),
        ],
        pauses=[views.PauseView(what="create calls", why="AUTH: the key is wrong", left_s=12.0)],
        swept_at=1_800_000_000.0,
        swept="cloud and records agree",
    )
    assert main(["describe", "provider", "sim"]) == 0
    told = capsys.readouterr().out
    assert "orphans         report" in told
    assert "credentials     2h old" in told
    assert "cloud and records agree" in told
    rows = [line.split() for line in told.splitlines()]
    assert ["vcpus", "12/16", "cpu", "c*", "both", "told", "by", "the", "cloud"] in rows
    assert ["c9", "2/2", "instances", "c9", "spot", "learned,", "believed", "10m", "yet"] in rows
    assert ["create", "calls", "12s", "AUTH:", "the", "key", "is", "wrong"] in rows
    assert main(["describe", "provider", "sim", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["health"]["limits"][1]["learned"]) == ("sim", True)
