"""Users who do not read what comes: the app is held back, and the control plane's memory stays bounded."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.processes import family, pss
from tests.e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("slow")]

MIB = 1024 * 1024
READERS = 12
BOUND = 64 * MIB
"""What may wait for one agent in all (docs/tunnel.md)."""
BLAST = """
import os, socketserver, threading

sent, lock = 0, threading.Lock()

class Blast(socketserver.BaseRequestHandler):
    def handle(self):
        global sent
        if self.request.recv(4).startswith(b"GET "):
            self.request.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/octet-stream\\r\\n\\r\\n")
        while True:
            self.request.sendall(bytes(65536))
            with lock:
                sent += 65536
                with open("sent", "w") as told:
                    told.write(str(sent))

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

port = int(os.environ["ATOLL_APP_BLAST_PORT"])
server = Server(("127.0.0.1", port), Blast)
print(port, os.getcwd(), flush=True)
server.serve_forever()
"""


@pytest.fixture
def blast(running: Installation) -> Iterator[tuple[str, int, Path]]:
    """Return the session's id, the port and the file that says how many bytes the app could send."""
    name = f"blast-{time.monotonic_ns()}"
    running.atoll("run", "--detach", "--name", name, "--app", "blast", "--", "python3", "-c", BLAST)
    [row] = running.wait([name], ["running"])
    port, folder = until(lambda: running.atoll("logs", name).split(), "the port")
    yield row["id"], int(port), Path(folder) / "sent"
    running.atoll("stop", name)
    running.wait([name], ["cancelled"])


def settled(told: Path) -> int:
    """Wait until all readers are served and the app can send no more; return how much it has."""
    last, since = -1, time.monotonic()
    deadline = time.monotonic() + 60
    while (time.monotonic() - since < 3.0 or last <= READERS * 65536) and time.monotonic() < deadline:
        now = int((told.read_text() if told.exists() else "") or 0)
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.2)
    return last


def small(port: int) -> socket.socket:
    """Connect with a small receive buffer, so that little waits in the kernel."""
    user = socket.socket()
    user.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    user.connect(("127.0.0.1", port))
    return user


def test_by_forwarded_ports(running: Installation, blast: tuple[str, int, Path]) -> None:
    session, port, told = blast
    forwarding = running.begin("forward", session, f"0:{port}")
    users: list[socket.socket] = []
    try:
        assert forwarding.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
        assert found
        before = pss(family(running.pid("control")))
        for _ in range(READERS):
            users.append(small(int(found[1])))
            users[-1].sendall(b"go!!")
        sent = settled(told)
        grown = pss(family(running.pid("control"))) - before
        print(f"{READERS} readers: the app sent {sent / MIB:.0f} MiB, the control plane grew by {grown / MIB:.0f} MiB")
        assert sent > READERS * 65536, "they are being served"
        assert grown < BOUND + 32 * MIB
        assert running.atoll("run", "--", "echo", "well") == "well\n", "and nobody else is held up"
    finally:
        for user in users:
            user.close()
        forwarding.kill()
        forwarding.communicate()


def test_by_the_gateway(running: Installation, blast: tuple[str, int, Path]) -> None:
    session, _, told = blast
    token = json.loads((running.home / "client.json").read_text())["token"]
    before = pss(family(running.pid("control")))
    users: list[socket.socket] = []
    try:
        for _ in range(READERS):
            users.append(small(running.port))
            host = f"blast--{session}.localhost:{running.port}"
            users[-1].sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        sent = settled(told)
        grown = pss(family(running.pid("control"))) - before
        print(f"{READERS} readers: the app sent {sent / MIB:.0f} MiB, the control plane grew by {grown / MIB:.0f} MiB")
        assert sent > READERS * 65536
        assert grown < BOUND + 32 * MIB
        for user in users:
            with contextlib.suppress(OSError):
                assert user.recv(12) == b"HTTP/1.1 200"
    finally:
        for user in users:
            user.close()
