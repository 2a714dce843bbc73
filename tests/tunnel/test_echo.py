"""Round trips: of a link's own pings, and of streams that come back."""

import asyncio

import pytest

from atoll.errors import Unavailable
from tests.tunnel import virtual
from tests.tunnel.site import AGENT, MemorySite
from tunnel import wire
from tunnel.echo import Probe, echo
from tunnel.lanes import Lane

OPENING = wire.OpenStream(run="", echo=True)


async def linked(delay: float) -> MemorySite:
    site = MemorySite(lambda _: echo(), latency=delay)
    await site.link()
    return site


@pytest.mark.parametrize("lane", [Lane.MUX, Lane.DATA])
def test_a_round_trip_takes_twice_the_way(lane: Lane) -> None:
    async def main() -> None:
        site = await linked(0.02)
        probe = Probe()
        await site.relay.open(AGENT, OPENING, probe, lane=lane)
        for _ in range(3):
            assert await probe.round_trip() == pytest.approx(0.04, abs=0.001)
        probe.close()
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionError):
            await probe.round_trip()
        assert site.relay.carried(AGENT).streams == dict.fromkeys(Lane, 0)

    virtual.run(main())


def test_pings_of_a_link_are_answered_each() -> None:
    async def main() -> None:
        site = await linked(0.03)
        link = site.control.link
        assert await link.ping() == pytest.approx(0.06, abs=0.001)
        # Several that leave together: only the newest is answered, which answers for all.
        assert await asyncio.gather(*(link.ping() for _ in range(5))) == pytest.approx([0.06] * 5, abs=0.001)

    virtual.run(main())


def test_what_waits_for_a_link_or_stream_that_is_lost_is_told() -> None:
    async def main() -> None:
        site = await linked(0.05)
        probe = Probe()
        await site.relay.open(AGENT, OPENING, probe, lane=Lane.DATA)
        waiting = [asyncio.ensure_future(site.control.link.ping()), asyncio.ensure_future(probe.round_trip())]
        await asyncio.sleep(0.01)
        site.relay.revoke(AGENT, "revoked")
        ping, trip = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(ping, Unavailable)
        assert isinstance(trip, ConnectionError)
        with pytest.raises(Unavailable):
            await site.control.link.ping()

    virtual.run(main())
