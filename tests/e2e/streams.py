"""A session's app that sends seeded bytes at its own pace, and downloads that check every one of them."""

import hashlib
import random
import socket
import threading
import time

CHUNK = 64 * 1024
PATIENCE_S = 90.0
"""Streams resume or fail with an error within 60 s; a loaded machine has some more."""
_SERVER = """
import http.server, os, random, time

class Serve(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        what, *numbers = self.path.strip("/").split("/")
        self.send_response(200)
        self.end_headers()
        name = os.environ["ATOLL_SESSION_NAME"]
        if what == "name":
            self.wfile.write(name.encode())
            return
        chunks, pause = int(numbers[0]), float(numbers[1])
        source = random.Random(name)
        for _ in range(chunks):
            self.wfile.write(source.randbytes(65536))
            time.sleep(pause)

    def log_message(self, *words):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Serve).serve_forever()
"""


def seeded_server(port: int) -> str:
    """Return the Python program of a session that serves `/name`, its own, and `/data/CHUNKS/PAUSE` on a port."""
    return _SERVER.replace("PORT", str(port))


class Download(threading.Thread):
    """Fetches `chunks` of a session's bytes, `pause_s` apart, over a connection that is its own from then on."""

    def __init__(self, connection: socket.socket, session: str, chunks: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.received = 0
        self.stall = 0.0
        """The longest time in which nothing came, in seconds."""
        self.error = ""
        self._connection = connection
        self._connection.settimeout(PATIENCE_S)
        self._wanted = chunks * CHUNK
        self._request = f"GET /data/{chunks}/{pause_s} HTTP/1.0\r\n\r\n".encode()
        source = random.Random(session)
        digest = hashlib.sha256()
        for _ in range(chunks):
            digest.update(source.randbytes(CHUNK))
        self._digest = digest.hexdigest()
        self.start()

    def run(self) -> None:
        digest = hashlib.sha256()
        try:
            with self._connection, self._connection.makefile("rb") as answer:
                self._connection.sendall(self._request)
                while answer.readline().strip():
                    pass
                last = time.monotonic()
                while data := answer.read1(CHUNK):
                    now = time.monotonic()
                    self.stall, last = max(self.stall, now - last), now
                    digest.update(data)
                    self.received += len(data)
        except OSError as error:
            self.error = str(error)
        if not self.error and digest.hexdigest() != self._digest:
            self.error = f"{self.received} of {self._wanted} bytes, or others"

    @property
    def under_way(self) -> bool:
        """Whether some of it has come."""
        return self.received > 4 * CHUNK

    def finish(self) -> None:
        """Wait for the end, which must be a good one."""
        self.join(PATIENCE_S)
        assert not self.is_alive(), f"{self.received} of {self._wanted} bytes after {PATIENCE_S} s"
        assert not self.error, self.error
