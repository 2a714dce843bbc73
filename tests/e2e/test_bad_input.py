"""Bad input and bad machines: one clear sentence, a hint, an exit code of Atoll's own, never a traceback."""

import json
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.installation import BIN, Installation
from tests.e2e.namespaces import need
from tests.e2e.processes import of_home

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("bad_input")]


def told(done: subprocess.CompletedProcess[str], *words: str, code: int = 0) -> None:
    """Check that a command failed the way a person can use: sentence, hint, own code; `words` occur in it."""
    assert 120 <= done.returncode <= 125, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert not code or done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    assert (len(errors), len(hints)) == (1, 1), done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in: {done.stderr}"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["rnu", "--", "true"], 120, ["rnu", "run"]),
        (["run"], 120, ["no command", "--"]),
        (["run", "--cpuu", "1", "--", "true"], 120, ["--cpuu"]),
        (["run", "--cpu", "many", "--", "true"], 120, ["many"]),
        (["run", "--memory", "12parsecs", "--", "true"], 120, ["12parsecs"]),
        (["run", "--name", "Not A Name", "--", "true"], 120, ["Not A Name"]),
        (["run", "--count", "0", "--", "true"], 120, ["--count"]),
        (["logs", "no-such-session"], 122, ["no-such-session"]),
        (["stop", "no-such-session"], 122, ["no-such-session"]),
        (["why", "no-such-thing"], 122, ["no-such-thing"]),
        (["group", "create", "g", "--provider", "no-such-cloud"], 0, ["no-such-cloud"]),
        (["provider", "add", "smi"], 0, ["smi", "sim"]),
        (["provider", "add", "sim", "--name", "odd", "--set", "boot_seconds=1"], 0, ["boot_seconds", "boot_s"]),
        (["token", "create"], 120, ["--site"]),
        (["get", "sesions"], 120, ["sessions"]),
        (["apply", "-f", "/no/such/file.yaml"], 0, ["/no/such/file.yaml"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else str(value),
)
def test_a_wrong_command(running: Installation, command: list[str], code: int, words: list[str]) -> None:
    told(running.call(*command), *words, code=code)


def test_an_unknown_key_is_met_with_did_you_mean(running: Installation, tmp_path: Path) -> None:
    document = tmp_path / "session.yaml"
    document.write_text("command: ['true']\nresources: {memroy: 1GiB}\n")
    told(running.call("run", "-f", str(document)), "memroy", "session.resources", "did you mean", "memory", code=120)


def test_no_yaml_is_told(running: Installation, tmp_path: Path) -> None:
    document = tmp_path / "session.yaml"
    document.write_text("command: [")
    told(running.call("run", "-f", str(document)), str(document), code=120)


def test_an_impossible_request_is_held_and_not_waited_for(running: Installation) -> None:
    told(running.call("run", "--name", "giant", "--gpu", "9000", "--", "true"), "giant", code=124)
    view = running.session("giant")
    assert (view["state"], view["reason"]) == ("held", "NO_CAPABLE_SITE")
    assert view["hint"]
    running.atoll("stop", "giant")


def test_a_wrong_login_is_refused(running: Installation, tmp_path: Path) -> None:
    elsewhere = {"ATOLL_HOME": str(tmp_path / "other")}
    told(running.call("login", running.url, "--token", "atk_wrong", env=elsewhere), code=121)
    assert not (tmp_path / "other" / "client.json").exists()


def test_no_control_plane_is_told_with_what_starts_one(fresh: Installation) -> None:
    told(fresh.call("ps"), "atoll up")


def test_a_control_plane_that_went_away_is_told(fresh: Installation) -> None:
    fresh.up("--no-agent")
    fresh.atoll("down")
    told(fresh.call("ps", timeout=90), f"127.0.0.1:{fresh.port}", code=124)


def test_an_unknown_key_of_the_configuration_is_told(fresh: Installation, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text('[server]\nlisen = "127.0.0.1:1"\n')
    told(fresh.call("up", "--detach", "--config", str(config)), "lisen", "listen", code=120)
    assert of_home(fresh.home) == []


def test_a_port_in_use_is_told(fresh: Installation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told(fresh.call("up", "--detach", "--listen", f"127.0.0.1:{port}"), str(port), "--listen", code=125)
    assert of_home(fresh.home) == []


@pytest.fixture
def mounted(fresh: Installation) -> Installation:
    """An installation whose home is an empty folder that a test mounts something on, in a namespace of its own."""
    need("--mount")
    fresh.home.mkdir()
    return fresh


def within_mount(installation: Installation, prepare: str) -> subprocess.CompletedProcess[str]:
    """Run `atoll up --detach` where `prepare` (shell, `$ATOLL_HOME`) has mounted something on its home."""
    script = f'set -e; {prepare}; exec "$0" up --detach'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(BIN / "atoll")],
        capture_output=True,
        text=True,
        timeout=60,
        env=installation.environment,
        check=False,
    )


def test_a_read_only_home_is_told(mounted: Installation) -> None:
    done = within_mount(mounted, 'mount -t tmpfs -o ro none "$ATOLL_HOME"')
    told(done, str(mounted.home), "read-only", code=125)
    assert of_home(mounted.home) == []


def test_a_full_home_is_told(mounted: Installation) -> None:
    fill = (
        'mount -t tmpfs -o size=256k none "$ATOLL_HOME"; head -c 1M /dev/zero >"$ATOLL_HOME/fill" 2>/dev/null || true'
    )
    told(within_mount(mounted, fill), str(mounted.home), "space", code=125)
    assert of_home(mounted.home) == []


def test_a_home_that_gets_full_while_starting_is_told(mounted: Installation) -> None:
    told(within_mount(mounted, 'mount -t tmpfs -o size=192k none "$ATOLL_HOME"'), "full")
    assert of_home(mounted.home) == []


def test_a_newer_database_is_left_alone(fresh: Installation) -> None:
    fresh.up("--no-agent")
    fresh.atoll("down")
    with sqlite3.connect(fresh.home / "atoll.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    told(fresh.call("up", "--detach", "--no-agent"), "newer", code=125)
    assert of_home(fresh.home) == []


def test_a_second_control_plane_on_one_database_is_refused(running: Installation, tmp_path: Path) -> None:
    shared = {"ATOLL_DATABASE__URL": f"sqlite:///{running.home / 'atoll.db'}"}
    with Installation(tmp_path, env=shared) as second:
        told(second.call("up", "--detach", "--no-agent"), code=125)
        assert of_home(second.home) == []
    assert running.atoll("run", "--", "echo", "still here") == "still here\n"


def test_errors_of_the_api_are_problems(running: Installation) -> None:
    profile = json.loads((running.home / "client.json").read_text())
    request = urllib.request.Request(
        f"{running.url}/v1/projects/default/sessions",
        data=b'{"spec": {"comand": ["true"]}}',
        headers={"Authorization": f"Bearer {profile['token']}", "Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.status == 400
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        problem = json.load(answer)
    assert "comand" in json.dumps(problem)
    assert "command" in problem["hint"]
