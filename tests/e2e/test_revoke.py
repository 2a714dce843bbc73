"""`atoll agent revoke` with real processes: what goes over the link ends within a second, and nobody comes back."""

import contextlib
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

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
        while True:
            self.request.sendall(b".")
            time.sleep(0.02)

port = int(os.environ["ATOLL_APP_DRIP_PORT"])
server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Drip)
print(port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "desk"
    yield home
    end_all(home)


class Reader(threading.Thread):
    """Reads a dripping port until it ends; notes when."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.ended: float | None = None
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.settimeout(30)

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(4096):
                self.bytes += len(data)
        self.ended = time.monotonic()
        self._socket.close()


def connected(running: Installation) -> bool:
    return any(agent["name"] == "desk" and agent["connected"] for agent in running.agents())


def test_streams_end_within_a_second_and_it_does_not_come_back(running: Installation, desk: Path) -> None:
    secret = json.loads(running.atoll("token", "create", "--site", "desk", "-o", "json"))["secret"]
    url = JoinToken.parse(secret).url
    running.atoll("agent", "join", url, "--token", secret, "--name", "desk", "--home", str(desk))
    until(lambda: connected(running), "the agent of the desk", story=running.story)
    running.atoll("run", "--detach", "--site", "desk", "--name", "drip", "--app", "drip", "--", "python3", "-c", DRIP)
    running.wait(["drip"], ["running"])
    remote = until(lambda: running.atoll("logs", "drip").split(), "the port")[0]
    forwarding = running.begin("forward", "drip", f"0:{remote}")
    readers: list[Reader] = []
    try:
        assert forwarding.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
        assert found
        readers = [Reader(int(found[1])) for _ in range(3)]
        for reader in readers:
            reader.start()
        until(lambda: all(reader.bytes for reader in readers), "bytes on every stream")
        running.atoll("agent", "revoke", "desk")
        answered = time.monotonic()
        until(lambda: all(reader.ended for reader in readers), "the streams' end")
        late = max(reader.ended or 0.0 for reader in readers) - answered
        print(f"streams ended {late:+.3f} s after the command had ended")
        assert late < 5.0  # some hundredths of a second where nothing else runs
    finally:
        forwarding.kill()
        forwarding.communicate()
    assert running.session("drip")["state"] == "lost"
    until(lambda: not (desk / "agent.pid").exists() or "was revoked" in (desk / "agent.log").read_text(), "the refusal")
    again = desk.with_name("again")
    shutil.copytree(desk, again, ignore=shutil.ignore_patterns("*.pid", "run*", "agent.json", "cert.pem"))
    more = json.loads(running.atoll("token", "create", "--site", "desk", "-o", "json"))["secret"]
    done = running.call("agent", "join", url, "--token", more, "--name", "desk", "--home", str(again))
    end_all(again)
    assert done.returncode != 0
    assert "was revoked" in done.stderr
    running.atoll("agent", "remove", "desk")
    until(lambda: running.session("drip")["state"] != "lost", "the way back to the queue")
    running.atoll("stop", "drip")
