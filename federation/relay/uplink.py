"""The relay's own link to its control plane: terms come down, how it is goes up; without it the relay goes on."""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from functools import partial

from atoll.clock import Chance, Clock
from atoll.errors import AtollError
from atoll.host.child import output_of
from federation.relay.home import RelayHome
from federation.relay.terms import Terms
from tunnel import wire
from tunnel.backoff import Backoff
from tunnel.buffered import Buffered
from tunnel.dialer import DIAL_TIMEOUT_S, connect, host_port
from tunnel.envelope import secured
from tunnel.link import Link, Side
from tunnel.wire import CONTROL_NAME

_log = logging.getLogger("atoll.relay")

REPORT_S = 2.0
"""How often a relay says how it is."""
_FIRST_S, _LONGEST_S = 0.2, 5.0
_RENEW_RETRY_S = 60.0


class Uplink:
    """Dials the control plane at `url` for ever. `state` tells how the relay is.

    `on_linked` is called when there is a new link, `on_evicted` with the users' tokens that count no more.
    `on_welcome` is given what to send by once the control plane has answered on it, `on_noted` what it has stored of
    what was told of streams; `on_lost` is called when the link is over.
    `on_terms` is called when terms, certificate or trust have changed, `on_drain` with the seconds it may take,
    `on_removed` with the reason when this relay is none any more.
    """

    def __init__(
        self, url: str, home: RelayHome, terms: Terms, state: Callable[[], wire.Serving], clock: Clock, chance: Chance
    ) -> None:
        self._host, self._port = host_port(url)
        self._home = home
        self._terms = terms
        self._state = state
        self._clock = clock
        self._backoff = Backoff(chance, first_s=_FIRST_S, longest_s=_LONGEST_S)
        self._link: Link | None = None
        self._lost: asyncio.Future[str] | None = None
        self._renewing = False
        self._welcome = False
        self.on_terms: Callable[[], None] = lambda: None
        self.on_linked: Callable[[], None] = lambda: None
        self.on_welcome: Callable[[Callable[[wire.Message], None]], None] = lambda _: None
        self.on_lost: Callable[[], None] = lambda: None
        self.on_noted: Callable[[int], None] = lambda _: None
        self.on_evicted: Callable[[list[str]], None] = lambda _: None
        self.on_drain: Callable[[float], None] = lambda _: None
        self.on_removed: Callable[[str], None] = lambda _: None

    @property
    def connected(self) -> bool:
        """Whether the control plane has given its terms on the present link."""
        return self._welcome

    async def run(self) -> None:
        """Stay linked, report, and keep the certificate valid, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stay_linked(), name="relay uplink")
            tasks.create_task(self._keep_reporting(), name="relay reports")
            tasks.create_task(self._keep_certificate(), name="relay certificate")

    def report(self) -> None:
        """Say how the relay is, now."""
        if self._link is not None:
            self._link.send(self._state())

    def close(self, reason: str) -> None:
        """Close the link."""
        if self._link is not None:
            self._link.close(reason)

    # LinkOwner.

    def linked(self, link: Link, /) -> None:
        """The connection is up: say how it is, and so ask for terms."""
        self._link = link
        self._terms.asked()
        self.on_linked()
        self.report()

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        """A message of the control plane."""
        if link is not self._link:
            return
        try:
            self._take(message)
        except (AtollError, OSError) as error:
            _log.error("a change could not be kept: %s", error)

    def stream_opened(self, link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:  # noqa: ARG002
        """The control plane opens no streams here."""
        return None

    def lost(self, link: Link, reason: str, /) -> None:
        """The link is over; what the relay carries goes on."""
        if link is self._link:
            self._link, self._welcome = None, False
            self.on_lost()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _take(self, message: wire.FromAgent | wire.FromControl) -> None:
        match message:
            case wire.RelayTerms():
                if not self._welcome and self._link is not None:
                    self._welcome = True
                    self.on_welcome(self._link.send)
                self._terms.take(message)
                self.on_terms()
                if message.ca and self._home.trust(message.ca):
                    self._renewing = True
                    self.on_terms()
            case wire.Expel(agent=agent, reason=reason):
                self._terms.expel(agent, reason)
            case wire.Noted(serial=serial):
                self.on_noted(serial)
            case wire.Evict(tokens=tokens):
                self.on_evicted(tokens)
            case wire.Certificate(certificate=certificate):
                self._home.install(certificate)
                self._renewing = False
                self.on_terms()
                _log.info("the relay's certificate was renewed")
            case wire.Drain(deadline_s=seconds):
                self.on_drain(seconds)
            case wire.Leave(reason=reason):
                self.on_removed(reason)
            case wire.Refuse(message=text, final=final):
                _log.warning("the control plane refuses this relay: %s", text)
                if final:
                    self.on_removed(text)

    # The link.

    async def _stay_linked(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._lost = loop.create_future()
            began = loop.time()
            try:
                await self._dial()
            except OSError as error:
                _log.info("the control plane cannot be reached: %s", str(error) or type(error).__name__)
            else:
                reason = await self._lost
                self._backoff.succeeded_for(loop.time() - began)
                _log.info("the link to the control plane is down: %s", reason)
            await asyncio.sleep(self._backoff.next())

    async def _dial(self) -> None:
        """Dial the control plane: where another server answers there, inside a WebSocket."""
        context = self._home.uplink_context()
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            try:
                await self._connect(context, None)
            except ssl.SSLError as error:
                try:
                    await self._connect(context, (self._host, self._port))
                except OSError as second:
                    raise error from second

    async def _connect(self, context: ssl.SSLContext, inside: tuple[str, int] | None) -> None:
        connection = await connect(self._host, self._port, os.environ)
        link = partial(Link, self, side=Side.AGENT)
        await secured(connection, lambda: Buffered(link()), context, CONTROL_NAME, inside=inside)

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self.report()

    async def _keep_certificate(self) -> None:
        while True:
            pause = REPORT_S
            try:
                start, end = self._home.validity()
                if self._welcome and (self._renewing or self._clock.now() >= (start + end) / 2):
                    pause = _RENEW_RETRY_S
                    request = await _request(self._home)
                    if self._link is not None:
                        self._link.send(wire.Renew(csr=request))
            except (OSError, AtollError) as error:
                _log.warning("the certificate could not be renewed: %s", error)
            await asyncio.sleep(pause)


async def _request(home: RelayHome) -> str:
    """Return a certificate request (PEM), made by a short-lived process: the library would weigh on this one."""
    return await output_of("federation.relay", "--csr", "--home", str(home.path))
