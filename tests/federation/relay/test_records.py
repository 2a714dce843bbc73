"""What is recorded of streams that relays and agents carry, whatever dies or is away meanwhile."""

import asyncio
from pathlib import Path

from atoll.streamrecord import StreamState
from tests.federation.relay.recorded import SOURCE, Installation, play
from tunnel.redial import RedialledTransport

BYTES = 300_000


async def sent(stream: RedialledTransport, total: int) -> None:
    """Send to the echo until so much went, and wait until all came back."""
    stream.write(bytes(total - stream.carried[1]))
    async with asyncio.timeout(120):
        while stream.carried[0] < total:
            await asyncio.sleep(0.05)


def test_a_stream_over_a_relay_is_recorded_from_its_permit_to_its_end(tmp_path: Path) -> None:
    async def story(i: Installation) -> None:
        opening = await i.permit()
        (row,) = await i.records()
        assert row.state is StreamState.PERMITTED
        stream = await i.stream(["east"], opening)
        await sent(stream, BYTES)
        row = await i.record(lambda row: row.state is StreamState.OPEN and row.lanes)
        assert (row.user, row.source, row.port, row.reason) == ("ada", SOURCE, 80, "")
        stream.close()
        row = await i.record(lambda row: row.state is StreamState.ENDED and all(each.ended_at for each in row.seen))
        assert (row.received, row.sent, row.resumed, row.reason) == (BYTES, BYTES, 0, "")
        door, whole = sorted(row.seen, key=lambda each: each.whole)
        assert (door.via, door.lane, door.source, door.whole) == ("east", "data", SOURCE, False)
        assert BYTES < door.received < 1.1 * BYTES
        assert (whole.received, whole.sent, whole.via) == (BYTES, BYTES, "")
        told = [i.shell._reports, *(each.reports for each in i.relays.values())]
        await i.until(lambda: not any(map(len, told)))

    play(tmp_path, story)


def test_a_stream_whose_relay_is_killed_is_one_record_with_all_its_bytes(tmp_path: Path) -> None:
    async def story(i: Installation) -> None:
        stream = await i.stream(["east", "west"])
        await sent(stream, BYTES)
        await i.record(lambda row: row.lanes)
        i.relays["east"].vanish()
        await sent(stream, 2 * BYTES)
        stream.close()
        row = await i.record(lambda row: row.state is StreamState.ENDED)
        assert (row.received, row.sent, row.resumed, row.reason) == (2 * BYTES, 2 * BYTES, 1, "")
        row = await i.record(lambda row: len(row.seen) == 3)
        assert [each.ended_at for each in row.seen if each.via == "east"] == [None]
        i.relays["east"].listen()
        i.relays["east"].connect()
        row = await i.record(lambda row: all(each.ended_at for each in row.seen))
        assert {each.via: each.reason for each in row.seen} == {"east": "UNSEEN", "west": "", "": ""}
        assert (row.received, row.resumed) == (2 * BYTES, 1)

    play(tmp_path, story)


def test_what_ends_while_the_control_plane_is_away_is_told_to_the_next_one(tmp_path: Path) -> None:
    async def story(i: Installation) -> None:
        long, short = await i.stream(["east"]), await i.stream(["west"])
        for stream in (long, short):
            await sent(stream, BYTES)
        await asyncio.sleep(30)
        assert [row.state for row in await i.records()] == [StreamState.OPEN] * 2
        await i.ring.control.stop()
        i.ring.network.listen(None)
        for relay in i.relays.values():
            if relay.link is not None:
                relay.link.close("the control plane is stopping")
        await sent(short, 2 * BYTES)
        short.close()
        await asyncio.sleep(100)
        i.ring.store = i.ring.store.restarted()
        i.ring.control = i.ring._new()
        await i.ring.start()
        for relay in i.relays.values():
            relay.connect()
        await i.until(lambda: i.shell.registered and len(i.shell._reports) == 1)
        rows = await i.records()
        assert sorted((row.state, row.received) for row in rows) == [
            (StreamState.ENDED, 2 * BYTES), (StreamState.OPEN, BYTES),
        ]  # fmt: skip
        ended = next(row for row in rows if row.state is StreamState.ENDED)
        assert ended.ended_at is not None
        assert ended.ended_at < i.ring.clock.now() - 50
        await sent(long, 3 * BYTES)
        long.close()
        await i.until(lambda: not len(i.shell._reports))
        assert sorted(row.received for row in await i.records()) == [2 * BYTES, 3 * BYTES]
        assert [row.state for row in await i.records()] == [StreamState.ENDED] * 2

    play(tmp_path, story)


def test_a_stream_by_the_agents_own_door_and_then_by_a_relay_is_one_record(tmp_path: Path) -> None:
    async def story(i: Installation) -> None:
        ways = ["direct"]
        stream = await i.stream(ways)
        await sent(stream, BYTES)
        row = await i.record(lambda row: row.lanes)
        assert (row.lanes, row.source) == (("direct",), SOURCE)
        ways[:] = ["west"]
        assert i.direct._door is not None
        i.direct._door.close()
        await sent(stream, 2 * BYTES)
        stream.close()
        row = await i.record(lambda row: row.state is StreamState.ENDED and len(row.seen) == 3)
        assert (row.lanes, row.resumed, row.received, row.sent) == (("direct", "data"), 1, 2 * BYTES, 2 * BYTES)
        row = await i.record(lambda row: all(each.ended_at for each in row.seen))
        assert [(each.via, each.whole) for each in row.seen if not each.whole] == [("direct", False), ("west", False)]
        assert row.reason == ""

    play(tmp_path, story)


def test_streams_of_an_agent_that_dies_are_closed_when_it_is_back(tmp_path: Path) -> None:
    async def story(i: Installation) -> None:
        await sent(await i.stream(["east"]), BYTES)
        await i.record(lambda row: row.state is StreamState.OPEN)
        i.runtime.detach()
        i.ring.network.crash_agent(i.agent_id)
        for relay in i.relays.values():
            relay.network.crash_agent(i.agent_id)
        i.running.cancel()
        await asyncio.gather(i.running, return_exceptions=True)
        i.boot_agent("a2")
        row = await i.record(lambda row: row.state is StreamState.ENDED)
        assert row.reason == "UNSEEN"

    play(tmp_path, story)
