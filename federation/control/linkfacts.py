"""How the agents' links stand: since when, how often they were lost, what their lanes carry; and pings over each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.duration import rough
from atoll.errors import Invalid, Unavailable
from federation.control.links import Links
from federation.control.liveagent import LiveAgent
from tunnel import wire
from tunnel.door import Way
from tunnel.echo import Probe
from tunnel.lanes import Choice, Lane, Use
from tunnel.relay import Carried

PINGS_LIMIT = 100
"""Most pings of one call."""
CALLS_LIMIT = 8
"""Most calls at a time."""
ANSWER_S = 2.0
"""A ping without an answer for this long is lost."""
TOTAL_S = 20.0
"""What was not sent within this is not sent any more."""
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStanding:
    """One agent's link. Times are Unix seconds, None where it was not since this control plane began.

    `silent_s` counts from when the link was lost; `proxy` is the HTTP proxy that the agent dials through, `direct`
    where users may reach it without a relay, `ways` all doors for users' streams in order. `connects` and `drops`
    count since this control plane began, `carried` since the agent's process did.
    """

    agent: Agent
    connected: bool
    since: float | None
    silent_s: float
    dropped_at: float | None
    drop_reason: str
    connects: int
    drops: int
    rtt: float | None
    protocol: int
    proxy: str
    direct: str
    ways: Sequence[Way]
    carried: Carried


@dataclass(slots=True)
class Pings:
    """Pings over one way: the seconds that answers took, and why there are no more of them."""

    sent: int = 0
    times: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def lost(self) -> int:
        """How many were not answered."""
        return self.sent - len(self.times)

    @property
    def spread(self) -> tuple[float, float, float] | None:
        """Least, median and most seconds; None without an answer."""
        return (min(self.times), middle(self.times), max(self.times)) if self.times else None


@dataclass(frozen=True, slots=True)
class Pinged:
    """What pings found: the lane that a stream for each use took, and round trips over the link itself and each."""

    standing: LinkStanding
    choices: dict[Use, Choice]
    link: Pings
    lanes: dict[Lane, Pings]


class LinkFacts:
    """Looks at links and pings agents."""

    def __init__(self, links: Links, clock: Clock) -> None:
        self._links = links
        self._now = clock.monotonic
        self._calls = 0

    def standing(self, row: Agent) -> LinkStanding:
        """Return how an agent's link stands."""
        live, history = self._links.live(row.id), self._links.history.of(row.id)
        return LinkStanding(
            agent=row,
            connected=live is not None,
            since=history.since if live else None,
            silent_s=0.0 if live else self._links.silent_for(row.id),
            dropped_at=history.dropped_at,
            drop_reason=history.reason,
            connects=history.connects,
            drops=history.drops,
            rtt=live.rtt if live else None,
            protocol=live.protocol if live else 0,
            proxy=row.facts.get("proxy", ""),
            direct=row.facts.get("direct", ""),
            ways=self._links.streams.ways(row.id) if live else (),
            carried=self._links.streams.relay.carried(row.id),
        )

    async def ping(self, row: Agent, count: int) -> Pinged:
        """Ping an agent `count` times over its link, over a short stream and over a bulk one, all at once.

        Raises `Invalid` for a count that is too large, `Unavailable` for an agent that is not connected.
        """
        if not 0 < count <= PINGS_LIMIT:
            raise Invalid(f"{count} pings are not possible", hint=f"1 to {PINGS_LIMIT}")
        live = self._links.live(row.id)
        if live is None:
            raise self._absent(row)
        if self._calls >= CALLS_LIMIT:
            raise Unavailable(f"{CALLS_LIMIT} others ping already", hint="try again in a moment")
        self._calls += 1
        try:
            return await self._ping(row, live, count)
        finally:
            self._calls -= 1

    async def _ping(self, row: Agent, live: LiveAgent, count: int) -> Pinged:
        choices: dict[Use, Choice] = {}
        link, short, bulk = await asyncio.gather(
            _repeated(lambda: live.link.ping(self._now), count),
            self._over(live, Use.SHORT, count, choices),
            self._over(live, Use.BULK, count, choices),
        )
        if Use.BULK in choices and choices[Use.BULK].lane is not Lane.DATA:
            bulk = Pings(error=choices[Use.BULK].why)
        return Pinged(self.standing(row), choices, link, {Lane.MUX: short, Lane.DATA: bulk})

    async def _over(self, live: LiveAgent, use: Use, count: int, choices: dict[Use, Choice]) -> Pings:
        """Open a stream for a use, note its lane, and ping over it."""
        if live.protocol < wire.ECHOES:
            return Pings(error="its agent is too old to send back what comes: update it")
        probe = Probe(self._now)
        try:
            choices[use] = (await self._links.streams.echo(live.id, probe, use)).choice
            return await _repeated(probe.round_trip, count)
        except Unavailable as error:
            return Pings(error=error.message)
        finally:
            probe.close()

    def _absent(self, row: Agent) -> Unavailable:
        standing = self.standing(row)
        silent = rough(standing.silent_s)
        if standing.dropped_at is None:
            told = f"agent {row.name} is not connected: not seen since the control plane began, {silent} ago"
        else:
            told = f"agent {row.name} is not connected: last seen {silent} ago ({standing.drop_reason})"
        return Unavailable(told, hint=f"it reconnects by itself; `atoll why {row.name}` tells more")


def middle(values: Sequence[float]) -> float:
    """Return the median: the standard library's brings a megabyte along."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


async def _repeated(ping: Callable[[], Awaitable[float]], count: int) -> Pings:
    """Ping again and again; the first that is not answered is the last over a way that keeps order."""
    pings = Pings()
    loop = asyncio.get_running_loop()
    ends = loop.time() + TOTAL_S
    while pings.sent < count and loop.time() < ends:
        if pings.sent:
            await asyncio.sleep(_PAUSE_S)
        pings.sent += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                pings.times.append(await ping())
        except TimeoutError:
            pings.error = f"no answer within {ANSWER_S:g} s"
            break
        except (ConnectionError, Unavailable) as error:
            pings.error = str(error)
            break
    return pings
