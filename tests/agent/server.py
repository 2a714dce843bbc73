"""A small control plane over real TLS: `/v1/ca`, `/v1/join` with one good secret, and agents' links."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from tests.agent.control import ME, Control
from tunnel.acceptor import Acceptor, Route
from tunnel.identity import Authority
from tunnel.jointoken import JoinToken
from tunnel.wire import ALPN_CONTROL, ALPN_JOIN

SECRET = "s3cret"


class Http(asyncio.Protocol):
    """Answers one HTTP request by the server's `answer`."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-le")), 0)
        if end and len(body) >= length:
            method, path, _ = head.split(b" ", 2)
            status, answer = self._server.answer(method.decode(), path.decode(), body)
            text = json.dumps(answer).encode()
            self._transport.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text))
            self._transport.close()


class Server:
    """Listens on a free loopback port; `facts` and `name` are what the last join said."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority.load_or_create(directory / "authority", now=time.time())
        self.pretended_ca = ""
        self.control = Control()
        self.joins: list[dict[str, Any]] = []
        self.used = False
        self.acceptor = Acceptor(
            {
                ALPN_CONTROL: Route(self.authority.control_context(), self.control.accept),
                ALPN_JOIN: Route(self.authority.join_context(), lambda: Http(self)),
                "http/1.1": Route(self.authority.http_context(), lambda: Http(self)),
            }
        )

    async def __aenter__(self) -> "Server":
        await self.acceptor.listen("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.control.link is not None:
            self.control.link.close("test over")
        await self.acceptor.close()
        await asyncio.sleep(0.05)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.acceptor.port}"

    def token(self, secret: str = SECRET, pin: str = "") -> str:
        return JoinToken(self.url, pin or self.authority.pin, secret).text()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if (method, path) == ("GET", "/v1/ca"):
            return 200, {"ca": self.pretended_ca or self.authority.ca_pem}
        assert (method, path) == ("POST", "/v1/join")
        request = json.loads(body)
        if request["secret"] != SECRET or self.used:
            detail = "this join token is not valid: it is unknown, expired, or already used"
            problem = {"status": 401, "code": "UNAUTHORIZED", "detail": detail, "hint": "make a new one"}
            return 401, problem
        self.used = True
        self.joins.append(request)
        certificate = self.authority.sign_agent(request["csr"], ME, now=time.time())
        joined = {"agent": ME, "name": request["name"], "site": "hall", "group": "gpus"}
        return 200, {**joined, "certificate": certificate, "ca": self.authority.ca_pem}
