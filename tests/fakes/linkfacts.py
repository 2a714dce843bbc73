"""Agents' links that stand as they are told to, and figures."""

from collections.abc import Mapping
from typing import Protocol

from atoll.agent import Agent
from federation.control.linkfacts import LinkStanding, Pinged, Pings
from tunnel import wire
from tunnel.door import Way
from tunnel.lanes import Choice, Lane, Tally, Use
from tunnel.metrics import Family, Sample, gauge
from tunnel.relay import Carried, Held

_NOW = 1_800_000_000.0


class LiveLink(Protocol):
    """A link that is up."""

    @property
    def rtt(self) -> float | None: ...


class FakeLinkFacts:
    """Every ping takes 4 ms, over whatever way."""

    def __init__(self, links: Mapping[str, LiveLink]) -> None:
        self._links = links

    def standing(self, row: Agent) -> LinkStanding:
        live = self._links.get(row.id)
        return LinkStanding(
            agent=row,
            connected=live is not None,
            since=_NOW - 90 if live else None,
            silent_s=0.0 if live else 200.0,
            dropped_at=_NOW - 200,
            drop_reason="nothing heard for 4 s",
            connects=2,
            drops=1,
            rtt=live.rtt if live else None,
            protocol=wire.PROTOCOL,
            proxy=row.facts.get("proxy", ""),
            direct="",
            ways=(Way("127.0.0.1", 8700),),
            carried=Carried({lane: Tally(opens=1, sent=2048) for lane in Lane}, dict.fromkeys(Lane, 1), Held(ready=1)),
        )

    async def ping(self, row: Agent, count: int) -> Pinged:
        choices = {use: Choice(lane, "it suits") for use, lane in zip(Use, Lane, strict=True)}
        pings = Pings(count, [0.004] * count)
        return Pinged(self.standing(row), choices, pings, dict.fromkeys(Lane, pings))


class FakeMetrics:
    """One figure."""

    async def families(self) -> list[Family]:
        return [gauge("atoll_build_info", "Always 1.", Sample(1))]
