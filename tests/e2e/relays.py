"""Relay processes beside an installation, and a stream through them that is checked byte by byte."""

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.e2e.installation import BIN, Installation
from tests.e2e.waiting import until
from tests.ports import free_port

ECHO = """
import os, socketserver

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(262144):
            self.request.sendall(data)

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Echo)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class RelayProcess:
    """One relay, enrolled at its first start; leave it by `close`."""

    def __init__(self, installation: Installation, folder: Path, name: str, url: str = "", port: int = 0) -> None:
        self.name = name
        self.port = port or free_port()
        self.url = url or f"https://127.0.0.1:{self.port}"
        self._installation = installation
        self._home = folder / name
        self._log = folder / f"{name}.log"
        made = json.loads(installation.atoll("relay", "create", name, "--url", self.url, "-o", "json"))
        self._token = str(made["secret"])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> None:
        """Start it with `more` in its environment; the token is for the first time."""
        environment = {**self._installation.environment, **more, "ATOLL_RELAY_TOKEN": self._token}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(str(BIN / "atoll"), "relay", "run", "--home", str(self._home)),
                    *("--listen", f"127.0.0.1:{self.port}"),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._token = ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, within: float = 60.0) -> int:
        """Wait until it has ended; return its exit code."""
        assert self.process is not None
        return self.process.wait(within)

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()

    def view(self) -> dict[str, Any]:
        """Return what the control plane knows of it."""
        found = json.loads(self._installation.atoll("relay", "list", "-o", "json"))
        view: dict[str, Any] = next(each for each in found if each["name"] == self.name)
        return view

    def serves(self) -> bool:
        """Say whether it is connected, and an agent to it."""
        view = self.view()
        return bool(view["state"] == "serving" and view["connected"] and view["agents"])

    def story(self) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(errors="replace").splitlines()[-20:]
        return "\n".join([f"--- {self.name}", *lines, self._installation.story()])


class Forward:
    """`atoll forward -v` of one port: where it listens, and by which way each of its lanes goes."""

    def __init__(
        self, installation: Installation, session: str, port: str, environment: dict[str, str], *flags: str
    ) -> None:
        self.said: list[str] = []
        self._process = subprocess.Popen(
            [str(BIN / "atoll"), "forward", "-v", *flags, session, f"0:{port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**installation.environment, **environment},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
        assert found, (line, self._process.stderr.read() if self._process.stderr else "")
        self.port = int(found[1])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def ways(self) -> list[int]:
        """The ports of the doors that its lanes went by, the newest last."""
        return [int(found[1]) for line in self.said if (found := re.search(r"by 127\.0\.0\.1:(\d+), \w+ lane", line))]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line.rstrip())


class Flow:
    """Bytes that go to an echo and must all come back in order; notes the longest time without any."""

    def __init__(self, port: int) -> None:
        self.back = 0
        self.stall = 0.0
        self.ended: float | None = None
        self._there = hashlib.sha256()
        self._again = hashlib.sha256()
        self._sent = 0
        self._stop = threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.settimeout(90)
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    def begun(self, count: int = 1 << 20) -> bool:
        """Say whether so many bytes have come back."""
        return self.back >= count

    def forget_stall(self) -> None:
        """Measure from here on."""
        self.stall = 0.0

    def more(self, count: int = 4 << 20) -> None:
        """Wait until so many more bytes have come back."""
        goal = self.back + count
        until(lambda: self.back >= goal or self.ended is not None, "bytes", within=90)
        assert self.ended is None, "the stream broke"

    def finish(self) -> int:
        """End it; all that went must have come back. Return how much that was."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
        self._socket.close()
        assert self.back == self._sent
        assert self._again.digest() == self._there.digest()
        return self.back

    def drop(self) -> None:
        """End it, whatever has become of it."""
        self._stop.set()
        self._socket.close()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stop.is_set():
                data = os.urandom(64 * 1024)
                self._there.update(data)
                self._sent += len(data)
                self._socket.sendall(data)
                time.sleep(0.005)
            self._socket.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        last = time.monotonic()
        with contextlib.suppress(OSError):
            while data := self._socket.recv(262144):
                now = time.monotonic()
                self.stall, last = max(self.stall, now - last), now
                self._again.update(data)
                self.back += len(data)
        self.ended = time.monotonic()
