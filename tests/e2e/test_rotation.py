"""`atoll ca rotate` with real processes: nothing is cut, everybody moves, and who slept through it is told so."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation
from tests.e2e.processes import end_all
from tests.e2e.waiting import until
from tunnel.jointoken import JoinToken

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("join")]

DRIP = """
import os, socketserver, time

class Drip(socketserver.BaseRequestHandler):
    def handle(self):
        count = 0
        while True:
            self.request.sendall(b"%d\\n" % count)
            count += 1
            time.sleep(0.02)

port = int(os.environ["ATOLL_APP_DRIP_PORT"])
server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Drip)
print(port, flush=True)
server.serve_forever()
"""


class Reader(threading.Thread):
    """Reads a counting port until it ends; checks that nothing is missing."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.ended = False
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.settimeout(30)

    def run(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile() as lines:
            for line in lines:
                assert int(line) == self.count
                self.count += 1
        self.ended = True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for home in tmp_path.iterdir():
        end_all(home)


def token(at: Installation) -> str:
    secret: str = json.loads(at.atoll("token", "create", "--site", "desk", "-o", "json"))["secret"]
    return secret


def join(at: Installation, secret: str, home: Path, *flags: str) -> None:
    url = JoinToken.parse(secret).url
    at.atoll("agent", "join", url, "--token", secret, "--name", home.name, "--home", str(home), *flags)


def standing(at: Installation) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(at.atoll("ca", "show", "-o", "json"))
    return found


def connected(at: Installation, name: str) -> bool:
    return any(agent["name"] == name and agent["connected"] for agent in at.agents())


def test_nothing_is_cut_and_who_slept_through_it_is_told(running: Installation, desks: Path) -> None:
    [old] = standing(running)["authorities"]
    join(running, token(running), desks / "desk")
    join(running, token(running), desks / "asleep", "--no-start")
    before = token(running)
    running.atoll("run", "--detach", "--site", "desk", "--name", "drip", "--app", "drip", "--", "python3", "-c", DRIP)
    running.wait(["drip"], ["running"])
    remote = until(lambda: running.atoll("logs", "drip").split(), "the port")[0]
    forwarding = running.begin("forward", "drip", f"0:{remote}")
    reader = None
    try:
        assert forwarding.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
        assert found
        reader = Reader(int(found[1]))
        reader.start()
        until(lambda: reader.count > 10, "lines of the stream")

        running.atoll("ca", "rotate")
        assert running.call("ca", "rotate").returncode == 123
        assert [each["sha256"] for each in standing(running)["authorities"]][1:] == [old["sha256"]]
        join(running, before, desks / "late")  # by a token that pins the old CA
        until(lambda: [each["agent"] for each in standing(running)["behind"]] == ["asleep"], "all others moved")
        refused = running.call("ca", "retire")
        assert refused.returncode == 123
        assert "asleep: not connected since" in refused.stderr
        stale = token(running)
        running.atoll("ca", "retire", "--force")
        [new] = standing(running)["authorities"]
        assert new["sha256"] not in (old["sha256"], "")
        assert JoinToken.parse(stale).pin == new["sha256"]

        counted = reader.count
        until(lambda: reader.count > counted + 50, "lines after the rotation")
        assert not reader.ended
        assert running.session("drip")["state"] == "running"
        # New connections are made by certificates of the new CA alone.
        (desk_pid,) = [int((desks / "desk" / "agent.pid").read_text().split()[0])]
        end_all(desks / "desk")
        until(lambda: not connected(running, "desk"), "the old process's end")
        restarted = running.begin("agent", "run", "--home", str(desks / "desk"))
        until(lambda: connected(running, "desk"), "the desk again", story=running.story)
        assert restarted.pid != desk_pid

        sleeper = running.begin("agent", "run", "--home", str(desks / "asleep"))
        try:
            said = sleeper.stderr
            assert said is not None
            until(lambda: "the CA was rotated while this agent was away" in said.readline(), "why it is not let in")
        finally:
            sleeper.kill()
            sleeper.communicate()
            restarted.kill()
            restarted.communicate()
        done = running.call("agent", "join", JoinToken.parse(before).url, "--token", before, "--home", str(desks / "x"))
        assert done.returncode == 121
        assert "its CA was rotated since" in done.stderr
    finally:
        if reader is not None:
            reader.close()
        forwarding.kill()
        forwarding.communicate()
    for name in ("desk", "asleep", "late"):
        end_all(desks / name)
        running.call("agent", "remove", name)
