"""The agent's certificate and the CAs that it trusts: kept valid, and changed when the installation's CA is rotated."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator

from agent.ports import Renewal
from atoll.clock import Chance
from atoll.errors import AtollError
from tunnel import wire

_log = logging.getLogger("atoll.agent")

RETRY_S = 60.0
UNHEARD = 3
"""After so many links in a row that ended before they were answered, the certificate may be worth nothing any more:
its end may have come by the other end's clock, or its CA may be trusted no more. TLS does not tell."""


class Credentials:
    """Keeps them by a `renewal`; `send` sends while there is a link, `registered` says whether that counts."""

    def __init__(
        self, renewal: Renewal, chance: Chance, send: Callable[[wire.Message], None], registered: Callable[[], bool]
    ) -> None:
        self._renewal = renewal
        self._chance = chance
        self._send = send
        self._registered = registered
        self._renew_at = math.inf
        self._asked = asyncio.Event()
        self._answered = True
        self._unheard = 0

    async def run(self) -> None:
        """Ask for another certificate whenever one is due, until cancelled."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            due = min(self._renewal.due_in(), self._renew_at - loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause, due, 1.0), RETRY_S)):
                    await self._asked.wait()
            self._asked.clear()
            pause = 0.0
            if min(self._renewal.due_in(), self._renew_at - loop.time()) > 0 or not self._registered():
                continue
            self._renew_at, pause = math.inf, RETRY_S
            try:
                self._send(wire.Renew(csr=await self._renewal.request()))
            except OSError as error:
                _log.warning("the certificate request could not be made: %s", error)

    async def before_dial(self) -> None:
        """Get a new certificate where the last one has ended, or seems to be worth nothing. Raises `OSError`."""
        self._unheard = 0 if self._answered else self._unheard + 1
        self._answered = True
        if self._renewal.ended() or self._unheard >= UNHEARD:
            self._unheard = 0
            await self._renewal.restore()

    def linked(self) -> None:
        """A link is up; nothing has been heard of the other end yet."""
        self._answered = False

    def received(self, message: wire.FromAgent | wire.FromControl) -> None:
        """Take what the control plane says; most of it is not for here."""
        match message:
            case wire.Refuse():
                self._answered = True
            case wire.Welcome(protocol=protocol):
                self._answered = True
                if protocol >= wire.TRUSTS:
                    self._tell()
            case wire.Certificate():
                self._install(message)
            case wire.Trust():
                self._trust(message)

    def _install(self, message: wire.Certificate) -> None:
        with _said("the certificate"):
            self._renewal.install(message.certificate)
            _log.info("the certificate was renewed")
            if message.generation:
                self._tell(message.generation)

    def _trust(self, message: wire.Trust) -> None:
        """Trust other CAs, and ask for a certificate of the new one: not all agents at once."""
        with _said("the certificate authorities"):
            self._renewal.trust(message.ca)
            _log.info("the certificate authorities to trust were changed")
            self._tell()
            if message.renew_s is not None:
                wait = self._chance.uniform(0.0, message.renew_s)
                self._renew_at = asyncio.get_running_loop().time() + wait
                self._asked.set()

    def _tell(self, generation: int = 0) -> None:
        with _said("the certificate authorities"):
            self._send(wire.Kept(authorities=self._renewal.authorities(), generation=generation))


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, AtollError) as error:
        _log.error("a change about %s could not be made: %s", what, error)
