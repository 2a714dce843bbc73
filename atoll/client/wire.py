"""How `Client` asks: one connection for a call, repeated where that is safe; streams that go on where they broke."""

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from atoll import __version__
from atoll.client import calls, profile
from atoll.client.address import CA_HEADER, CONTROL_NAME, Address, tls_context, unreachable
from atoll.client.calls import Call
from atoll.client.stream import PAUSE_MAX_S, PAUSE_S, SILENCE_S, EventDecoder, Follow, ServerEvent, Watch
from atoll.errors import AtollError, Unavailable
from atoll.host.pem import pins
from atoll.host.proxy import proxy_for
from atoll.host.system import SystemChance, SystemClock

T = TypeVar("T")
AGENT = f"atoll/{__version__}"
_BROKEN = (OSError, http.client.HTTPException)


class Wire:
    """Carries calls to a control plane; the arguments are `Client`'s."""

    def __init__(
        self,
        url: str = "",
        token: str = "",
        *,
        ca: str | None = None,
        project: str = "",
        timeout: float = 30.0,
        patience: float = 10.0,
        unverified: bool = False,
    ) -> None:
        known = profile.Profile(url=url, token=token, ca=ca) if url else profile.load()
        self.address = Address.parse(known.url)
        self.project = project or known.project
        self.token = token or known.token
        """The credential: a secret, not to be printed."""
        self._ca = known.ca
        self._timeout = timeout
        self._patience = patience
        self._clock = SystemClock()
        self._chance = SystemChance()
        self._reached = False
        self._unverified = unverified
        self._kept = not url
        self._learnt = False

    def call(self, call: Call[T]) -> T:
        """Send one request and return its decoded answer; raise the error that it reported."""
        limit = self._clock.monotonic() + self._patience
        pause = PAUSE_S
        while True:
            try:
                with self._open(call, max(self._timeout, call.takes_s)) as response:
                    return call.read(response.status, response.read())
            except _BROKEN as error:
                if self._hopeless(error) or not call.repeatable or self._clock.monotonic() > limit:
                    raise unreachable(self.address, error) from error
            time.sleep(pause)
            pause = min(PAUSE_MAX_S, pause * 2)

    def authority(self) -> str:
        """Return the PEM of the installation's CA; needs no token."""
        return self.call(calls.authority()).ca

    def server_time(self) -> float:
        """Return the control plane's clock in Unix seconds (to the second), from its answer's date."""
        from email.utils import parsedate_to_datetime

        call = Call(method="GET", path="/healthz", answer=type(None))
        try:
            with self._open(call, self._timeout) as response:
                return parsedate_to_datetime(response.headers["Date"]).timestamp()
        except _BROKEN as error:
            raise unreachable(self.address, error) from error
        except (TypeError, ValueError) as error:
            raise AtollError("the control plane's answer carries no date") from error

    def _events(self, path: str, place: Follow | Watch, patience: float) -> Iterator[ServerEvent]:
        """Yield a stream's events; open it again where it broke, until nothing answered for `patience` seconds."""
        heard, pause, opened = self._clock.monotonic(), PAUSE_S, False
        while True:
            call = Call(method="GET", path=path, answer=type(None), query=place.query())
            try:
                with self._open(call, SILENCE_S) as response:
                    if response.status != 200:
                        raise calls.problem(response.status, response.read())
                    opened, decoder = True, EventDecoder()
                    while data := response.read1(65536):
                        heard, pause = self._clock.monotonic(), PAUSE_S
                        yield from decoder.feed(data)
            except Unavailable:
                if not opened or self._clock.monotonic() - heard > patience:
                    raise
            except _BROKEN as error:
                if self._hopeless(error) or self._clock.monotonic() - heard > patience:
                    raise unreachable(self.address, error) from error
            time.sleep(pause)
            pause = min(PAUSE_MAX_S, pause * 1.5)

    def _hopeless(self, error: BaseException) -> bool:
        """Whether trying again makes no sense: refused before any answer ever came, or not trusted."""
        refused = isinstance(error, ConnectionRefusedError | socket.gaierror)
        return (refused and not self._reached) or type(error).__name__ == "SSLCertVerificationError"

    @contextlib.contextmanager
    def _open(self, call: Call[Any], timeout: float) -> Iterator[http.client.HTTPResponse]:
        headers = {"User-Agent": AGENT, "Accept": "application/json, text/event-stream", "Connection": "close"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        body = None
        if call.body is not None:
            body = msgspec.json.encode(call.body)
            headers["Content-Type"] = "application/json"
        path = self.address.prefix + call.path + (f"?{urlencode(call.query)}" if call.query else "")
        with contextlib.closing(self._connect(timeout)) as connection:
            connection.request(call.method, path, body=body, headers={**headers, **call.headers})
            with connection.getresponse() as response:
                self._reached = True
                self._learn(response.getheader(CA_HEADER, ""))
                yield response

    def _learn(self, newest: str) -> None:
        """Trust the CAs of now where an answer names a new one: the one before still vouches for who says so."""
        if self._learnt or self._ca is None or self._unverified or not newest or newest in pins(self._ca):
            return
        self._learnt = True
        with contextlib.suppress(AtollError):  # the call itself was answered well
            told = self.authority()
            if newest in pins(told):
                self._ca = told
                if self._kept:
                    profile.trust(told)

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if self.address.scheme == "http":
            return http.client.HTTPConnection(self.address.host, self.address.port, timeout=timeout)
        import ssl

        context = tls_context(self._ca, verify=not self._unverified)
        sock = self._dial(timeout)
        try:
            secured = context.wrap_socket(sock, server_hostname=self.address.host)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            if self._ca is None or error.verify_code not in (62, 64):  # another host name or address
                raise
            secured = context.wrap_socket(self._dial(timeout), server_hostname=CONTROL_NAME)
        connection = http.client.HTTPConnection(self.address.host, self.address.port, timeout=timeout)
        connection.sock = secured
        return connection

    def _dial(self, timeout: float) -> socket.socket:
        target = (self.address.host, self.address.port)
        proxy = proxy_for(*target, os.environ)
        if proxy is None:
            return socket.create_connection(target, timeout)
        tunnel = http.client.HTTPConnection(proxy.host, proxy.port, timeout=timeout)
        tunnel.set_tunnel(*target, headers=proxy.headers)
        tunnel.connect()
        sock: socket.socket = tunnel.sock
        return sock
