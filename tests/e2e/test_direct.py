"""The direct lane with real processes: bytes go past the control plane, whose death they do not notice."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.test_forward import ECHO, Echoing, Forwarded
from tests.e2e.waiting import until
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("direct")]


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, int]]:
    """An installation whose own agent takes users directly, with a session that echoes; and that door's port."""
    door = free_port()
    folder: Path = tmp_path_factory.mktemp("direct")
    with Installation(folder) as installation:
        installation.up()
        told = installation.atoll("agent", "direct", f"127.0.0.1:{door}")
        assert "restart the agent" in told
        installation.atoll("down")
        installation.up()
        installation.atoll("run", "--detach", "--name", "echo", "--app", "echo", "--", "python3", "-c", ECHO)
        installation.wait(["echo"], ["running"])
        yield installation, door


def echo_port(installation: Installation) -> str:
    def said() -> str:
        return installation.atoll("logs", "echo").strip()

    return until(said, "the echo listens")


def ended(user: socket.socket) -> bool:
    """Wait for the end of a connection that nothing more comes on; a timeout is raised as such."""
    try:
        return user.recv(100) == b""
    except ConnectionResetError:
        return True


def test_the_death_of_the_control_plane_is_not_noticed(direct: tuple[Installation, int]) -> None:
    installation, door = direct
    with_link = json.loads(installation.atoll("link", "ping", "local", "-o", "json"))
    assert with_link["link"]["direct"] == f"127.0.0.1:{door}"
    forwarded = Forwarded(installation, "-v", "echo", f"0:{echo_port(installation)}")
    try:
        echoing = Echoing(forwarded.port, 100_000_000)
        echoing.start()
        until(lambda: echoing.got > 5_000_000, "bytes are on their way")
        installation.kill("control")
        echoing.join(120)
        assert (echoing.failed, echoing.got) == (None, echoing.size)
        assert echoing.sent.digest() == echoing.back.digest()
        print(f"longest stall {echoing.stall:.2f} s")
        taken = [line for line in forwarded.said if f"by 127.0.0.1:{door}, direct lane" in line]
        assert len(taken) == 1  # it was never resumed
        assert not any("resumed" in line for line in forwarded.said if "lane" in line)
    finally:
        forwarded.close()
        installation.up()

    def recorded() -> object:
        """The agent tells of it once the control plane is back."""
        rows = json.loads(installation.atoll("audit", "streams", "echo", "--limit", "1", "-o", "json"))
        ended = ("ended", echoing.size, echoing.size, ["direct"])
        return [(r["state"], r["received"], r["sent"], [way["via"] for way in r["ways"]]) for r in rows] == [ended]

    until(recorded, "the whole stream on record", within=60)


def test_a_deleted_token_ends_what_came_in_by_it(direct: tuple[Installation, int]) -> None:
    installation, _ = direct
    installation.wait(["echo"], ["running"])
    forwarded = Forwarded(installation, "-v", "echo", f"0:{echo_port(installation)}")
    profile = Path(installation.environment["ATOLL_HOME"]) / "client.json"
    kept = profile.read_text()
    made = installation.atoll("token", "create", "--api", "--owner", "other", "--role", "admin").split()[0]
    try:
        with socket.create_connection(("127.0.0.1", forwarded.port), 10) as user:
            user.settimeout(30)
            user.sendall(b"hi")
            assert user.recv(2) == b"hi"
            tokens = json.loads(installation.atoll("token", "list", "-o", "json"))
            own = next(each for each in tokens if each["kind"] == "api" and each["owner"] != "other")
            profile.write_text(json.dumps({**json.loads(kept), "token": made}))
            installation.atoll("token", "delete", own["id"])
            assert ended(user)
    finally:
        forwarded.close()
