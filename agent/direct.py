"""The direct lane, where the owner of this machine wants it: users who can reach it need no relay on the way."""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.errors import Invalid
from atoll.host.config import split_listen
from atoll.host.files import write_private
from tunnel import wire
from tunnel.acceptor import Acceptor, Route
from tunnel.directline import DirectDoor
from tunnel.grant import Grant
from tunnel.reports import Reports
from tunnel.routes import user_routes

_log = logging.getLogger("atoll.agent")

RENEW_S = 600.0
"""The certificate on disk is looked at this often: it is renewed twice a day."""
RETRY_S = 30.0


class Direct:
    """Listens at `address` (`HOST:PORT`), with the agent's own certificate, for streams that carry a good grant.

    `context` returns how a protocol is spoken.
    """

    def __init__(self, address: str, context: Callable[[str], ssl.SSLContext]) -> None:
        self.address = address
        self._context = context
        self._door: DirectDoor | None = None
        self._acceptor: Acceptor | None = None

    def attach(
        self,
        check: Callable[[wire.OpenStream], Grant | None],
        serve: Callable[[wire.OpenStream], asyncio.Protocol | None],
        reports: Reports | None = None,
    ) -> None:
        """Have openings checked and streams served by these, and `reports` told of them."""
        self._door = DirectDoor(check, serve, reports=reports)

    async def run(self) -> None:
        """Listen until cancelled; an address that is taken or not there (yet) is tried again."""
        assert self._door is not None  # noqa: S101 - attached by the shell that runs this
        host, port = split_listen(self.address)
        while True:
            try:
                if self._acceptor is None:
                    acceptor = Acceptor(self._routes(self._door))
                    await acceptor.listen(host, port)
                    self._acceptor = acceptor
                    _log.info("streams of users are taken directly at %s", self.address)
                else:
                    self._acceptor.reroute(self._routes(self._door))
            except OSError as error:
                _log.warning("no streams are taken directly at %s: %s", self.address, error)
            await asyncio.sleep(RENEW_S if self._acceptor is not None else RETRY_S)

    def welcomed(self, welcome: wire.Welcome, send: Callable[[wire.Message], None]) -> None:
        """Tell who is inside, now and whenever that changes: their credentials may have ended without our knowing."""
        door = self._door
        if welcome.protocol >= wire.DIRECT and door is not None:
            door.on_token = lambda: send(wire.Inside(tokens=door.tokens))
            door.on_token()

    def evict(self, tokens: Sequence[str]) -> None:
        """End the streams of the bearers of these credentials."""
        if self._door is not None:
            self._door.evict(tokens)

    async def close(self) -> None:
        """Listen no more and end all connections."""
        if self._acceptor is not None:
            await self._acceptor.close()
        if self._door is not None:
            self._door.close()

    def _routes(self, door: DirectDoor) -> dict[str, Route]:
        return user_routes(self._context, door.accept, bare=True)


def load(path: Path) -> str:
    """Return the address that this machine's owner has permitted, "" for none; raise `Invalid` for a damaged file."""
    try:
        return check(str(json.loads(path.read_text())["address"]))
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        raise Invalid(f"{path} is damaged", hint="atoll agent direct --off") from None


def save(path: Path, address: str) -> None:
    """Keep the owner's permission; with `address` empty it is withdrawn. Raises `Invalid` or `Refused`."""
    if address:
        write_private(path, json.dumps({"address": check(address)}).encode())
    else:
        path.unlink(missing_ok=True)


def check(address: str) -> str:
    """Return `HOST:PORT` unchanged; raise `Invalid` for what users could not dial."""
    host, port = split_listen(address)
    if not port or host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
        raise Invalid(f"users cannot reach {address!r}", hint="HOST:PORT, with an address of this machine in the LAN")
    return address
