"""Another machine joins with a token, works, and leaves; here it is a second home on the same machine."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.processes import end_all
from tests.e2e.waiting import until
from tunnel.jointoken import JoinToken

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("join")]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """The home of a workstation's agent; what was started with it is ended by id."""
    home = tmp_path / "desk"
    yield home
    end_all(home)


def token(running: Installation, *flags: str) -> tuple[str, str]:
    """Make a join token for the site `desk`; return its text and the URL that machines are to use."""
    view = json.loads(running.atoll("token", "create", "--site", "desk", *flags, "-o", "json"))
    return view["secret"], JoinToken.parse(view["secret"]).url


def connected(running: Installation, site: str) -> bool:
    return any(agent["site"] == site and agent["connected"] for agent in running.agents())


def test_a_machine_joins_works_and_leaves(running: Installation, desk: Path) -> None:
    secret, url = token(running)
    running.atoll("agent", "join", url, "--token", secret, "--name", "desk", "--home", str(desk))
    until(lambda: connected(running, "desk"), "the agent of the desk", story=running.story)
    assert (desk / "key.pem").stat().st_mode & 0o077 == 0
    assert running.atoll("run", "--site", "desk", "--name", "there", "--", "echo", "from the desk") == "from the desk\n"
    assert running.session("there")["site"] == "desk"
    running.atoll("agent", "leave", "--home", str(desk))
    until(lambda: not connected(running, "desk"), "the desk's leave")
    assert not (desk / "key.pem").exists()


def refused(running: Installation, desk: Path, secret: str, url: str) -> str:
    done = running.call("agent", "join", url, "--token", secret, "--home", str(desk))
    assert 120 <= done.returncode <= 125, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "hint:" in done.stderr
    assert not (desk / "agent.json").exists()
    return done.stderr


def test_a_token_is_good_once(running: Installation, desk: Path, tmp_path: Path) -> None:
    secret, url = token(running, "--uses", "1")
    running.atoll("agent", "join", url, "--token", secret, "--name", "once", "--home", str(desk))
    second = tmp_path / "second"
    try:
        assert "token" in refused(running, second, secret, url)
    finally:
        end_all(second)
        running.atoll("agent", "leave", "--home", str(desk))


def test_a_token_expires(running: Installation, desk: Path) -> None:
    secret, url = token(running, "--ttl", "1s")
    until(lambda: expired(running, secret), "the token's end")
    assert "token" in refused(running, desk, secret, url)


def expired(running: Installation, secret: str) -> bool:
    """Whether the newest token's time is over by the clock of the machine that both share."""
    views = json.loads(running.atoll("token", "list", "-o", "json"))
    newest = max((view for view in views if view["kind"] == "join"), key=lambda view: view["created_at"])
    return bool(time.time() > newest["expires_at"])


def test_another_control_plane_than_the_tokens_is_not_believed(running: Installation, desk: Path) -> None:
    secret, url = token(running)
    forged = replace(JoinToken.parse(secret), pin="00" * 32).text()
    assert "certificate" in refused(running, desk, forged, url).lower() or "CA" in refused(running, desk, forged, url)


def test_a_cut_token_is_told(running: Installation, desk: Path) -> None:
    secret, url = token(running)
    assert "damaged" in refused(running, desk, secret[:-5], url)
