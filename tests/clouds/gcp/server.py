"""The fake over HTTP: finds the method, holds request and answer to Google's documents, and strikes faults."""

import json
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.clouds.gcp.discovery import Method, service
from tests.clouds.gcp.faults import CALLS
from tests.clouds.gcp.methods import Methods
from tests.clouds.gcp.rules import Refusal
from tests.clouds.gcp.world import World

SERVICES = ("compute.v1", "cloudresourcemanager.v1", "cloudbilling.v1")
TOKEN = "token-for-an-assertion"
_TICK_S = 0.02


Control = Callable[[Any], dict[str, Any] | None]
"""What a test in another process may ask for, below `/_atoll/`: takes a JSON document, may give one."""


class Dropped(Exception):
    """The connection is to be closed without an answer."""


class Server(ThreadingHTTPServer):
    """Google's three services on one port; `control` answers paths that are the tests' own.

    `admits` says whether an Authorization header is good; `/token` gives one to whoever brings an assertion.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, world: World, control: Mapping[str, Control] | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.world = world
        self.methods = Methods(world)
        self.control = control or {}
        self.admits: Callable[[str], bool] = lambda authorization: True
        self._table = self.methods.table()
        self._stopped = threading.Event()
        self._loops = [threading.Thread(target=self.serve_forever, args=(0.02,)), threading.Thread(target=self._tick)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def open(self) -> None:
        for thread in self._loops:
            thread.daemon = True
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self.shutdown()
        self.server_close()
        for thread in self._loops:
            thread.join()
        self.world.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may be killed at any moment
            super().handle_error(request, client_address)

    def answer(self, verb: str, target: str, raw: bytes, bearer: str = "") -> dict[str, Any]:
        """Return the document that answers a request; raise `Refusal`, or `Dropped` where no answer is to come."""
        url = urlsplit(target)  # also of absolute form, as a proxy gets it
        if url.path == "/token" and b"assertion=" in raw:
            return {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        if not self.admits(bearer):
            raise Refusal(401, "Request is missing required authentication credential.", "required")
        if url.path in self.control:
            return self.control[url.path](json.loads(raw or b"{}")) or {}
        fits = (found for name in SERVICES if (found := service(name).find(verb, url.path)))
        method, inside = next(fits, (None, {}))
        if method is None:
            raise Refusal(404, f"The requested URL {verb} {url.path} was not found on this server.", "notFound")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        query.pop("$alt", "")
        if wrong := method.wrong_parameter(inside, query):
            raise Refusal(400, wrong)
        return self._call(method, {**query, **inside}, raw)

    def _call(self, method: Method, parameters: Mapping[str, str], raw: bytes) -> dict[str, Any]:
        body = _body(method, raw)
        if method.id not in self._table:
            raise Refusal(501, f"{method.id} is real, but not served here", "notImplemented")
        lost = self._strike(method)
        if lost and not lost.get("after_effect", True):
            raise Dropped
        with self.world.lock:
            self.world.advance()
            reply = self._table[method.id](parameters, body)
            if wrong := method.service.wrong_body(method.response, reply):
                raise Refusal(500, f"the fake broke the form of {method.response}: {wrong}", "internalError")
        if lost:
            raise Dropped
        return reply

    def _strike(self, method: Method) -> dict[str, Any] | None:
        call = CALLS.get(method.id, "")
        faults = self.world.faults
        if call and (rule := faults.strike("auth", call=call)):
            status = rule.get("status", 401)
            raise Refusal(status, "Request had invalid authentication credentials.", "authError")
        if call and (rule := faults.strike("throttle", call=call)):
            status = rule.get("status", 403)
            reason = "rateLimitExceeded" if status == 403 else "RATE_LIMIT_EXCEEDED"
            raise Refusal(status, "Quota exceeded for quota metric 'Queries'", reason, rule.get("retry_after", 0))
        return faults.strike("lost_reply") if call == "create" else None

    def _tick(self) -> None:
        while not self._stopped.wait(_TICK_S):
            self.world.advance()


def _body(method: Method, raw: bytes) -> dict[str, Any]:
    if raw and not method.request:
        raise Refusal(400, f"{method.id} takes no body")
    try:
        body: dict[str, Any] = json.loads(raw or b"{}")
    except ValueError:
        raise Refusal(400, "Invalid JSON payload received.", "parseError") from None
    if method.request and (wrong := method.service.wrong_body(method.request, body)):
        raise Refusal(400, f"Invalid JSON payload received. {wrong}"[:2000], "badRequest")
    return body


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self._send(200, self.server.answer(self.command, self.path, raw, self.headers.get("Authorization", "")))
        except Refusal as refusal:
            self._send(refusal.status, _error(refusal), refusal.retry_after)
        except Dropped:
            self.close_connection = True

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

    def _send(self, status: int, document: Mapping[str, Any], retry_after: float = 0.0) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", f"{retry_after:.0f}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _error(refusal: Refusal) -> dict[str, Any]:
    detail = {"message": refusal.message, "domain": "global", "reason": refusal.reason}
    return {"error": {"code": refusal.status, "message": refusal.message, "errors": [detail]}}
