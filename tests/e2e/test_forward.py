"""`atoll forward` with real processes: its streams go on over the death of the control plane, byte for byte."""

import contextlib
import hashlib
import json
import random
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.waiting import until
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("forward")]

ECHO = """
import os, socketserver

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 18):
            self.request.sendall(data)

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

port = int(os.environ["ATOLL_APP_ECHO_PORT"])
server = Server(("127.0.0.1", port), Echo)
print(port, flush=True)
server.serve_forever()
"""
SIZE = 300_000_000
BLOCK = 1 << 18


class Forwarded:
    """`atoll forward` in the background: the local port, and what it said."""

    def __init__(self, installation: Installation, *words: str) -> None:
        self.process = installation.begin("forward", *words)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
        if not found:
            raise AssertionError(f"{line!r} {self.process.communicate()}")
        self.port = int(found[1])
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def close(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        self._listener.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Echoing(threading.Thread):
    """Sends bytes through a port while it reads them back; notes the longest time in which nothing came."""

    def __init__(self, port: int, size: int) -> None:
        super().__init__(daemon=True)
        self.size = size
        self.got = 0
        self.stall = 0.0
        self.sent, self.back = hashlib.sha256(), hashlib.sha256()
        self.failed: OSError | None = None
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.settimeout(90)

    def _send(self) -> None:
        chance = random.Random(1)
        left = self.size
        with contextlib.suppress(OSError):
            while left:
                block = chance.randbytes(min(BLOCK, left))
                self.sent.update(block)
                self._socket.sendall(block)
                left -= len(block)
                time.sleep(0.004)  # 64 MB/s at most: what happens to it shall find it under way
            self._socket.shutdown(socket.SHUT_WR)

    def run(self) -> None:
        sender = threading.Thread(target=self._send, daemon=True)
        sender.start()
        last = time.monotonic()
        try:
            while data := self._socket.recv(BLOCK):
                now = time.monotonic()
                self.stall, last = max(self.stall, now - last), now
                self.back.update(data)
                self.got += len(data)
        except OSError as error:
            self.failed = error
        sender.join(10)
        self._socket.close()


@pytest.fixture
def echo(fresh: Installation) -> tuple[Installation, str]:
    """An installation with a session that echoes, and its port."""
    fresh.up()
    fresh.atoll("run", "--detach", "--name", "echo", "--app", "echo", "--", "python3", "-c", ECHO)
    fresh.wait(["echo"], ["running"])
    return fresh, port_of(fresh, "echo")


def port_of(installation: Installation, name: str) -> str:
    """Return the port that an echoing session listens on."""
    return until(lambda: installation.atoll("logs", name).split(), "the port")[0]


@contextlib.contextmanager
def forwarded(installation: Installation, *words: str) -> Iterator[Forwarded]:
    made = Forwarded(installation, *words)
    try:
        yield made
    finally:
        made.close()


def talk(port: int, said: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.settimeout(60)
        with contextlib.suppress(OSError):
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            back = b""
            while data := connection.recv(65536):
                back += data
            return back
    return b"lost"


def passes(stream: Echoing, size: int, local: Forwarded) -> None:
    until(lambda: stream.got > size or stream.failed, f"byte {size}", within=120)
    assert stream.failed is None, local.said


@pytest.mark.slow
def test_every_byte_comes_back_over_deaths_of_the_control_plane(echo: tuple[Installation, str]) -> None:
    installation, remote = echo
    with forwarded(installation, "-v", "echo", f"0:{remote}") as local:
        stream = Echoing(local.port, SIZE)
        stream.start()
        for part in (0.15, 0.5):
            passes(stream, int(SIZE * part), local)
            installation.kill("control")
            before = stream.got
            # A new connection waits for the control plane, and is served when it is back.
            with ThreadPoolExecutor() as pool:
                later = pool.submit(talk, local.port, b"hello")
                installation.up("--no-agent")  # its agent lives on, and comes back by itself
                passes(stream, before + 40_000_000, local)
                assert later.result(90) == b"hello", local.said
        print(f"longest stall {stream.stall:.2f} s")
        stream.join(180)
        assert stream.failed is None, local.said
        assert stream.got == SIZE
        assert stream.back.hexdigest() == stream.sent.hexdigest()
        # At least: on a busy machine a way may be lost again before it carries anything.
        until(lambda: any(re.search(r"resumed [2-9]", line) for line in local.said), "what -v says")
        assert any("new connections wait" in line for line in local.said)
    installation.atoll("stop", "echo", "--wait")


def test_what_is_not_there_or_not_permitted_is_said_clearly(echo: tuple[Installation, str]) -> None:
    installation, remote = echo
    dead = free_port()
    with forwarded(installation, "echo", f"0:{dead}", f"0:{remote}") as local:
        assert talk(local.port, b"x") in (b"", b"lost")
        until(lambda: any(f"no process of the session listens on port {dead}" in line for line in local.said), "why")
    other = json.loads(installation.atoll("token", "create", "--api", "--owner", "bo", "-o", "json"))["secret"]
    done = installation.call(
        "forward", "echo", f"0:{remote}", env={"ATOLL_TOKEN": other, "ATOLL_URL": installation.url}
    )
    assert done.returncode == 121
    assert "belongs to" in done.stderr
    installation.atoll("stop", "echo", "--wait")


def test_a_deleted_token_ends_its_streams(echo: tuple[Installation, str]) -> None:
    installation, remote = echo
    made = json.loads(installation.atoll("token", "create", "--api", "--owner", "ada", "--role", "admin", "-o", "json"))
    other = Installation(installation.home.parent, port=installation.port, env={"ATOLL_TOKEN": made["secret"]})
    with forwarded(other, "echo", f"0:{remote}") as local:
        connection = socket.create_connection(("127.0.0.1", local.port), 30)
        connection.settimeout(30)
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
        installation.atoll("token", "delete", made["id"][:12])
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        print(f"ended {time.monotonic() - began:.2f} s after the command had ended")
        connection.close()
        until(lambda: any("API token" in line for line in local.said), "why")
        assert talk(local.port, b"again") in (b"", b"lost")
    installation.atoll("stop", "echo", "--wait")


def test_a_blind_session_is_entered_by_encrypted_streams_alone(fresh: Installation, tmp_path: Path) -> None:
    fresh.up()
    fresh.atoll("run", "--detach", "--blind", "--name", "dark", "--app", "echo", "--", "python3", "-c", ECHO)
    fresh.atoll("run", "--detach", "--name", "light", "--app", "echo", "--", "python3", "-c", ECHO)
    fresh.wait(["dark", "light"], ["running"])
    ports = {name: port_of(fresh, name) for name in ("dark", "light")}
    size = 20_000_000
    for words in (("dark",), ("--blind", "light")):
        with forwarded(fresh, "-v", *words, f"0:{ports[words[-1]]}") as local:
            stream = Echoing(local.port, size)
            stream.start()
            stream.join(120)
            assert (stream.failed, stream.got) == (None, size), local.said
            assert stream.back.digest() == stream.sent.digest()
            assert any("encrypted to the agent" in line for line in local.said)
    app = fresh.session("dark")["id"]
    done = fresh.call("ssh", "dark", "--", "true")
    assert (done.returncode, "is blind" in done.stderr) == (123, True), done
    opened = subprocess.run(
        ["curl", "-s", "-H", f"Host: echo--{app}.localhost:{fresh.port}", "-H", bearer(fresh), fresh.url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "is blind" in opened.stdout
    fresh.atoll("stop", "dark", "--wait")
    # Of a blind site all sessions are, those that run there already, too.
    site = tmp_path / "site.yaml"
    site.write_text("kind: site\nname: local\nblind: true\n")
    fresh.atoll("apply", "-f", str(site))
    done = fresh.call("ssh", "light", "--", "true")
    assert "is blind" in done.stderr
    with forwarded(fresh, "-v", "light", f"0:{ports['light']}") as local:
        assert talk(local.port, b"hello") == b"hello"
        assert any("encrypted to the agent" in line for line in local.said)
    fresh.atoll("stop", "light", "--wait")


def bearer(installation: Installation) -> str:
    token = json.loads((installation.home / "client.json").read_text())["token"]
    return f"Authorization: Bearer {token}"
