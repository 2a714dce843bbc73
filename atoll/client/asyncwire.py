"""How `AsyncClient` asks: over aiohttp, repeated where that is safe; streams that go on where they broke."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

import aiohttp
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
_BROKEN = (OSError, aiohttp.ClientError, TimeoutError)


class AsyncWire:
    """Carries calls to a control plane; the arguments are `AsyncClient`'s."""

    def __init__(
        self,
        url: str = "",
        token: str = "",
        *,
        ca: str | None = None,
        project: str = "",
        timeout: float = 30.0,
        patience: float = 10.0,
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
        self._kept = not url
        self._learnt = False
        self._trust: ssl.SSLContext
        self._server_name: str | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, call: Call[T]) -> T:
        """Send one request and return its decoded answer; raise the error that it reported."""
        limit = self._clock.monotonic() + self._patience
        pause = PAUSE_S
        while True:
            try:
                async with self._open(call, max(self._timeout, call.takes_s)) as response:
                    return call.read(response.status, await response.read())
            except _BROKEN as error:
                if not self._name_changed(error) and (
                    self._hopeless(error) or not call.repeatable or self._clock.monotonic() > limit
                ):
                    raise unreachable(self.address, error) from error
            await asyncio.sleep(pause)
            pause = min(PAUSE_MAX_S, pause * 2)

    async def authority(self) -> str:
        """Return the PEM of the installation's CA; needs no token."""
        return (await self.call(calls.authority())).ca

    async def _events(self, path: str, place: Follow | Watch, patience: float) -> AsyncIterator[ServerEvent]:
        """Yield a stream's events; open it again where it broke, until nothing answered for `patience` seconds."""
        heard, pause, opened = self._clock.monotonic(), PAUSE_S, False
        while True:
            call = Call(method="GET", path=path, answer=type(None), query=place.query())
            try:
                async with self._open(call, None) as response:
                    if response.status != 200:
                        raise calls.problem(response.status, await response.read())
                    opened, decoder = True, EventDecoder()
                    async for data in response.content.iter_any():
                        heard, pause = self._clock.monotonic(), PAUSE_S
                        for event in decoder.feed(data):
                            yield event
            except Unavailable:
                if not opened or self._clock.monotonic() - heard > patience:
                    raise
            except _BROKEN as error:
                if not self._name_changed(error) and (
                    self._hopeless(error) or self._clock.monotonic() - heard > patience
                ):
                    raise unreachable(self.address, error) from error
            await asyncio.sleep(pause)
            pause = min(PAUSE_MAX_S, pause * 1.5)

    def _hopeless(self, error: BaseException) -> bool:
        """Whether trying again makes no sense: refused before any answer ever came, or not trusted."""
        refused = isinstance(error, aiohttp.ClientConnectorError)
        return (refused and not self._reached) or isinstance(error, aiohttp.ClientConnectorCertificateError)

    def _name_changed(self, error: BaseException) -> bool:
        """Try the name that the installation's own CA vouches for, once, where the host's name was not in it."""
        if not isinstance(error, aiohttp.ClientConnectorCertificateError) or self._ca is None or self._server_name:
            return False
        if getattr(error.certificate_error, "verify_code", 0) not in (62, 64):  # another host name or address
            return False
        self._server_name = CONTROL_NAME
        return True

    @contextlib.asynccontextmanager
    async def _open(self, call: Call[Any], timeout: float | None) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = dict(call.headers)
        body = None
        if call.body is not None:
            body = msgspec.json.encode(call.body)
            headers["Content-Type"] = "application/json"
        limits = aiohttp.ClientTimeout(
            total=timeout, sock_read=max(SILENCE_S, call.takes_s), sock_connect=self._timeout
        )
        async with self._http().request(
            call.method,
            self.address.url + call.path,
            params=call.query,
            data=body,
            headers=headers,
            timeout=limits,
            server_hostname=self._server_name,
        ) as response:
            self._reached = True
            await self._learn(response.headers.get(CA_HEADER, ""))
            yield response

    async def _learn(self, newest: str) -> None:
        """Trust the CAs of now where an answer names a new one: the one before still vouches for who says so."""
        if self._learnt or self._ca is None or not newest or newest in pins(self._ca):
            return
        self._learnt = True
        with contextlib.suppress(AtollError):  # the call itself was answered well
            told = await self.authority()
            if newest in pins(told):
                self._ca = told
                self._trust.load_verify_locations(cadata=told)
                if self._kept:
                    await asyncio.to_thread(profile.trust, told)

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            if secured := self.address.scheme == "https":
                self._trust = tls_context(self._ca)
            headers = {"User-Agent": AGENT}
            if self.token:
                headers["Authorization"] = f"Bearer {self.token}"
            connector = aiohttp.TCPConnector(limit=0, ssl=self._trust if secured else True)
            proxy = proxy_for(self.address.host, self.address.port, os.environ) if secured else None
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                proxy=proxy.url if proxy else None,
                proxy_auth=aiohttp.BasicAuth(proxy.user, proxy.password) if proxy and proxy.user is not None else None,
            )
        return self._session
