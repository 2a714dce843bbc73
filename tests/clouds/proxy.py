"""A forward proxy as companies have at their edge: it notes whom it was asked for, and reaches loopback only."""

import http.client
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TIMEOUT_S = 30.0
_HOP = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "proxy-authorization"})


class Proxy:
    """Listens at `url` on loopback; `asked` are the `host:port` it was asked for, by CONNECT or an absolute URI."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"asked": self.asked}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        host, port = self._place(self.path)
        with socket.create_connection((host, port), timeout=TIMEOUT_S) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(far, self.connection))
            back.start()
            _pump(self.connection, far)
            back.join()
        self.close_connection = True

    def _pass(self) -> None:
        url = urlsplit(self.path)
        host, port = self._place(url.netloc)
        far = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        try:
            far.request(self.command, f"{url.path or '/'}?{url.query}" if url.query else url.path or "/", body, headers)
            answer = far.getresponse()
            content = answer.read()
        finally:
            far.close()
        self.send_response(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in (_HOP | {"content-length", "date", "server"}):
                self.send_header(name, value)
        if self.command != "HEAD" and answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass

    def _place(self, netloc: str) -> tuple[str, int]:
        self.asked.append(netloc)
        host, _, port = netloc.rpartition(":")
        if host not in ("127.0.0.1", "localhost"):
            self.send_error(403)
            raise ConnectionRefusedError(f"{netloc} is not here")
        return host, int(port)

    def handle(self) -> None:
        with suppress(OSError):  # the other side is gone, or not for us
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
