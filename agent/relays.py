"""The agent's links to relays: two of those that serve, each agent its own two, and another when one is lost."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from agent.datalines import DataLines
from atoll import __version__
from atoll.clock import Chance
from tunnel import wire
from tunnel.backoff import Backoff
from tunnel.dialer import Dialer
from tunnel.link import Link, Side

_log = logging.getLogger("atoll.agent")

LINKS = 2
"""How many relays an agent keeps links to."""
RELAYS_LIMIT = 16
"""Most relays that are looked at."""
ATTACH_S = 10.0
"""A relay that does not answer within this is given up for now."""
RETIRE_S = 60.0
"""A link that is not wanted any more is closed once it carries nothing, and after this at the latest."""
_LOOK_S = 1.0

Dialers: TypeAlias = Callable[[str], tuple[Dialer, Dialer]]
"""Returns how the relay at a URL is dialled, for the link and for data connections; raises `OSError` for a bad URL."""
Serve: TypeAlias = Callable[[wire.OpenStream], asyncio.Protocol | None]


class RelayLinks:
    """Keeps them. `attach` it to what serves streams (None refuses one), and tell it the control plane's word.

    Every agent has an order of its own among all relays (rendezvous hashing), so that they share them evenly and one
    relay more or less moves few. It keeps to the first two that it can reach, and dials better ones again and again.
    """

    def __init__(self, agent: str, boot: str, dialers: Dialers, chance: Chance) -> None:
        self._agent = agent
        self._boot = boot
        self._dialers = dialers
        self._chance = chance
        self._serve: Serve = lambda _: None
        self._awaited = asyncio.Event()
        self._send: Callable[[wire.Message], None] = lambda _: None
        self._ranking: list[str] = []
        self._keepers: dict[str, _Keeper] = {}
        self._told: list[str] = []
        self._closed = False

    @property
    def linked(self) -> list[str]:
        """URLs of the relays that may be used, the preferred first."""
        return [url for url in self._ranking if url in self._keepers and self._keepers[url].up]

    def attach(self, serve: Serve, awaited: asyncio.Event) -> None:
        """Streams that come are served by this; while some have lost their lane (`awaited`), lost links hurry."""
        self._serve, self._awaited = serve, awaited

    def welcomed(self, urls: Sequence[str], send: Callable[[wire.Message], None]) -> None:
        """The control plane names the relays that serve, and takes messages by `send` from now on."""
        self._send, self._told = send, []
        self.serving(urls)

    def serving(self, urls: Sequence[str]) -> None:
        """These relays serve from now on, and no others."""
        self._ranking = ranked(self._agent, urls)[:RELAYS_LIMIT]
        self._settle()

    async def close(self) -> None:
        """End all links."""
        self._closed = True
        keepers, self._keepers = list(self._keepers.values()), {}
        for keeper in keepers:
            await keeper.close("the agent ends")

    def _settle(self) -> None:
        """Keep to the first relays that are not known to fail, and to those better ones that do."""
        if self._closed:
            return
        good, wanted = 0, []
        for url in self._ranking:
            if good < LINKS:
                wanted.append(url)
                good += not (url in self._keepers and self._keepers[url].failing)
        for url in wanted:
            if url not in self._keepers:
                self._keep(url)
        for url, keeper in self._keepers.items():
            keeper.wanted(url in wanted)
        if self.linked != self._told:
            self._told = self.linked
            self._send(wire.RelayLinks(relays=self._told))

    def _keep(self, url: str) -> None:
        try:
            dialers = self._dialers(url)
        except OSError as error:
            _log.warning("a relay is left out: %s", error)
            return
        attach = wire.Attach(protocol=wire.PROTOCOL, version=__version__, boot=self._boot)
        backoff = Backoff(self._chance)
        keeper = _Keeper(url, attach, *dialers, self._serve, self._awaited, backoff, self._settle, self._drop)
        self._keepers[url] = keeper
        keeper.start()

    def _drop(self, keeper: "_Keeper") -> None:
        if self._keepers.get(keeper.url) is keeper:
            del self._keepers[keeper.url]
        self._settle()


class _Keeper:
    """Keeps the link to one relay, and the data connections that the relay asks for."""

    def __init__(
        self,
        url: str,
        attach: wire.Attach,
        dialer: Dialer,
        lines: Dialer,
        serve: Serve,
        awaited: asyncio.Event,
        backoff: Backoff,
        changed: Callable[[], None],
        ended: Callable[["_Keeper"], None],
    ) -> None:
        self.url = url
        self.up = False
        """Whether the relay has taken this agent."""
        self.failing = False
        """Whether it was lost or not reached, and not reached since."""
        self._attach = attach
        self._dialer = dialer
        self._serve = serve
        self._lines = DataLines(lines, serve)
        self._awaited = awaited
        self._backoff = backoff
        self._changed = changed
        self._ended = ended
        self._link: Link | None = None
        self._lost: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to dial, for ever."""
        self._task = asyncio.get_running_loop().create_task(self._stay_linked(), name=f"agent relay {self.url}")

    def wanted(self, wanted: bool) -> None:
        """Say whether it is to be kept; if not it ends by itself, soon."""
        if wanted and self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None
        elif not wanted and self._retiring is None:
            loop = asyncio.get_running_loop()
            self._retiring = loop.create_task(self._retire(), name=f"agent relay {self.url} retires")

    async def close(self, reason: str) -> None:
        """End link and data connections."""
        self.up = False
        tasks = [task for task in (self._task, self._retiring) if task is not None]
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not asyncio.current_task()), return_exceptions=True)
        if self._link is not None:
            self._link.close(reason)
        await self._lines.close()

    # LinkOwner.

    def linked(self, link: Link, /) -> None:
        """The connection is up: say who comes."""
        self._link = link
        link.send(self._attach)
        asyncio.get_running_loop().call_later(ATTACH_S, self._check, link)

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        """A message of the relay."""
        if link is not self._link:
            return
        match message:
            case wire.Attached():
                self.up, self.failing = True, False
                _log.info("linked to the relay at %s", self.url)
                self._changed()
            case wire.Dial(tokens, splice) if self.up:
                self._lines.dial(tokens, splice=splice)
            case wire.Refuse(message=text, retry_after_s=seconds):
                _log.info("the relay at %s refuses this agent: %s", self.url, text)
                self._backoff.retry_after(seconds)

    def stream_opened(self, _link: Link, opening: wire.OpenStream, /) -> asyncio.Protocol | None:
        """A user's stream on the link."""
        return self._serve(opening) if self.up else None

    def lost(self, link: Link, reason: str, /) -> None:
        """The link is over; data connections may outlive it."""
        if link is self._link:
            self._link = None
            self._fail()
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    def _check(self, link: Link) -> None:
        if link is self._link and not self.up:
            link.close("the relay did not answer")

    def _fail(self) -> None:
        self.up, self.failing = False, True
        self._changed()

    async def _stay_linked(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._backoff.pause(self._awaited)
            self._lost = loop.create_future()
            began = loop.time()
            try:
                await self._dialer.dial(lambda: Link(self, side=Side.AGENT))
            except OSError as error:
                _log.info("the relay at %s cannot be reached: %s", self.url, str(error) or type(error).__name__)
                self._fail()
            else:
                reason = await self._lost
                self._backoff.succeeded_for(loop.time() - began)
                _log.info("the link to the relay at %s is down: %s", self.url, reason)

    async def _retire(self) -> None:
        """End once nothing is carried, so that no stream has to move because of us."""
        for _ in range(round(RETIRE_S / _LOOK_S)):
            await asyncio.sleep(_LOOK_S)
            if not (self._lines.in_use or (self._link is not None and self._link.streams)):
                break
        await self.close("the agent uses other relays")
        self._ended(self)


def ranked(agent: str, urls: Sequence[str]) -> list[str]:
    """Return the URLs in the order of one agent's preference: highest random weight first."""
    return sorted(dict.fromkeys(urls), key=lambda url: hashlib.sha256(f"{agent} {url}".encode()).digest())
