"""A reverse proxy before one service, where a test may stop, answer or drop what passes."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length"})


@dataclass(frozen=True, kw_only=True)
class Passing:
    """A request on its way."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer on its way back; status 0 stands for a connection that is dropped."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


DROPPED = Reply(status=0)
Forward = Callable[[Passing], Reply]
Judge = Callable[[Passing, Forward], Reply]
"""Decides about a request: forwards it, before or after doing something else, or answers by itself."""


class Front:
    """Listens on a free port of loopback; passes everything to `target` (set later) through `judge`."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.target = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._answers())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forward(self, passing: Passing) -> Reply:
        where = urlsplit(self.target)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        try:
            # Services name themselves by this header: it stays the front's, so that clients come back here.
            headers = {**passing.headers, "Host": f"127.0.0.1:{self.port}"}
            connection.request(passing.method, passing.path, passing.body or None, headers)
            answer = connection.getresponse()
            return Reply(status=answer.status, headers=dict(answer.getheaders()), body=answer.read())
        finally:
            connection.close()

    def _answers(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True  # the client went away, as clients under test do

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP}
                passing = Passing(method=self.command, path=self.path, headers=headers, body=body)
                reply = front.judge(passing, front.forward)
                if not reply.status:
                    self.close_connection = True
                    return
                self.send_response_only(reply.status)
                for key, value in reply.headers.items():
                    if key.lower() not in HOP:
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on

        return Answers
