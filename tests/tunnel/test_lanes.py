"""Every lane does what a connection does: the same contract for all, in memory and over TLS."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.tunnel import virtual
from tests.tunnel.ends import Echo, Recorder, until
from tests.tunnel.site import AGENT, LANES, MemorySite, Serve, Site, TlsSite
from tunnel import wire
from tunnel.identity import Authority
from tunnel.stream import StreamReset

every_lane = pytest.mark.parametrize("kind", LANES)
HELD = 18 * 1024 * 1024
"""No lane takes more than this from a writer whose reader reads nothing: two of the largest windows, and buffers."""


class Served:
    """What the agent serves: a fresh protocol of one kind for each stream."""

    def __init__(self, kind: type[Recorder] = Recorder, **how: bool) -> None:
        self.all: list[Recorder] = []
        self._kind, self._how = kind, how

    def __call__(self, _opening: wire.OpenStream) -> Recorder:
        self.all.append(self._kind(**self._how))
        return self.all[-1]


async def memory(serve: Serve) -> MemorySite:
    site = MemorySite(serve)
    await site.link()
    return site


async def feed(user: Recorder, data: bytes, step: int = 50_000) -> None:
    for at in range(0, len(data), step):
        await user.writable.wait()
        user.transport.write(data[at : at + step])


async def echo(site: Site, kind: str, size: int) -> None:
    user = Recorder()
    await site.open(kind, user)
    sent = random.Random(8).randbytes(size)
    await feed(user, sent)
    user.transport.write_eof()
    await until(lambda: user.ended, 60)
    whole = Recorder()
    whole.data_received(sent)
    assert (user.size, user.digest.digest()) == (size, whole.digest.digest())
    user.transport.close()
    await until(lambda: user.lost)
    assert user.error is None


@every_lane
def test_echo_both_ways(kind: str) -> None:
    async def main() -> None:
        site = await memory(Served(Echo))
        await echo(site, kind, 3_000_000)

    virtual.run(main())


@every_lane
def test_each_direction_ends_for_itself(kind: str) -> None:
    async def main() -> None:
        served = Served()
        site = await memory(served)
        user = Recorder()
        await site.open(kind, user)
        user.transport.write(b"question")
        user.transport.write_eof()
        await until(lambda: served.all and served.all[0].ended)
        other = served.all[0]
        assert (other.tail, user.ended) == (b"question", False)
        other.transport.write(b"answer")
        other.transport.write_eof()
        await until(lambda: user.ended)
        assert user.tail == b"answer"
        other.transport.close()
        user.transport.close()
        await until(lambda: user.lost and other.lost)
        assert user.error is other.error is None

    virtual.run(main())


@every_lane
def test_the_agent_may_end_first(kind: str) -> None:
    async def main() -> None:
        served = Served()
        site = await memory(served)
        user = Recorder()
        await site.open(kind, user)
        await until(lambda: served.all)
        other = served.all[0]
        other.transport.write_eof()
        await until(lambda: user.ended)
        user.transport.write(b"later")
        await until(lambda: other.tail == b"later")
        user.transport.close()
        await until(lambda: other.ended)
        other.transport.close()
        await until(lambda: user.lost and other.lost)

    virtual.run(main())


@every_lane
@pytest.mark.parametrize("by_agent", [True, False])
def test_a_reset_says_why(kind: str, by_agent: bool) -> None:
    async def main() -> None:
        served = Served()
        site = await memory(served)
        user = Recorder()
        await site.open(kind, user)
        await until(lambda: served.all)
        asking, hearing = (served.all[0], user) if by_agent else (user, served.all[0])
        asking.transport.reset("enough of this")
        await until(lambda: asking.lost and hearing.lost)
        assert asking.error is None
        assert isinstance(hearing.error, StreamReset)
        assert str(hearing.error) == "enough of this"

    virtual.run(main())


@every_lane
def test_the_agent_may_refuse(kind: str) -> None:
    async def main() -> None:
        site = await memory(lambda _: None)
        user = Recorder()
        await site.open(kind, user)
        await until(lambda: user.lost)
        assert isinstance(user.error, StreamReset)
        assert str(user.error) == "refused by the agent"

    virtual.run(main())


@every_lane
@pytest.mark.parametrize("by_agent", [True, False])
def test_a_slow_reader_holds_its_writer_up(kind: str, by_agent: bool) -> None:
    async def main() -> None:
        served = Served(slow=not by_agent)
        site = await memory(served)
        user = Recorder(slow=by_agent)
        await site.open(kind, user)
        await until(lambda: served.all)
        writer, reader = (served.all[0], user) if by_agent else (user, served.all[0])
        accepted = 0
        idle = 0
        while idle < 400 and accepted < 2 * HELD:
            if writer.writable.is_set():
                writer.transport.write(bytes(65_536))
                accepted += 65_536
                idle = 0
            idle += 1
            await asyncio.sleep(0.001)
        assert accepted <= HELD
        assert reader.size == 0
        reader.transport.resume_reading()
        await until(lambda: reader.size == accepted, 60)
        writer.transport.abort()
        await until(lambda: reader.lost)

    virtual.run(main())


@every_lane
def test_a_thousand_streams_come_and_go(kind: str) -> None:
    async def main() -> None:
        site = await memory(Served(Echo))

        async def one(number: int) -> None:
            user = Recorder()
            await site.open(kind, user)
            user.transport.write(b"%d" % number)
            user.transport.write_eof()
            await until(lambda: user.ended, 60)
            assert user.tail == b"%d" % number
            user.transport.close()
            await until(lambda: user.lost, 60)

        for first in range(0, 1000, 50):
            await asyncio.gather(*(one(number) for number in range(first, first + 50)))
        await asyncio.sleep(400)
        assert len(site.agent.streams) == 0
        held = site.relay.held(AGENT)
        assert (held.ready, held.in_use, held.pending, held.waiting) == (0, 0, 0, 0)

    virtual.run(main())


@every_lane
def test_a_dead_agent_ends_its_streams(kind: str) -> None:
    async def main() -> None:
        site = await memory(Served(Echo))
        user = Recorder()
        await site.open(kind, user)
        user.transport.write(b"x")
        await until(lambda: user.tail == b"x")
        site.network.crash_agent(AGENT)
        await until(lambda: user.lost, 100)
        assert isinstance(user.error, StreamReset)

    virtual.run(main())


@pytest.mark.parametrize("kind", LANES[1:])
def test_echo_over_tls(kind: str, authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with TlsSite(authority, tmp_path, Served(Echo)) as site:
            await echo(site, kind, 8_000_000)

    runner.run(main())


def test_slow_readers_over_tls(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        served = Served(slow=True)
        async with TlsSite(authority, tmp_path, served) as site:
            user = Recorder()
            await site.open("resumable on data", user)
            await until(lambda: served.all)
            accepted = 0
            for _ in range(1500):
                if user.writable.is_set():
                    user.transport.write(bytes(65_536))
                    accepted += 65_536
                await asyncio.sleep(0)
            await asyncio.sleep(0.1)
            assert not user.writable.is_set()
            assert accepted <= HELD
            served.all[0].transport.resume_reading()
            await until(lambda: served.all[0].size == accepted, 20)
            user.transport.abort()
            await until(lambda: served.all[0].lost)

    runner.run(main())


def test_many_streams_over_tls(authority: Authority, tmp_path: Path, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with TlsSite(authority, tmp_path, Served(Echo)) as site:

            async def one(number: int) -> None:
                user = Recorder()
                await site.open("resumable on data", user)
                user.transport.write(b"%d" % number)
                user.transport.write_eof()
                await until(lambda: user.ended, 20)
                assert user.tail == b"%d" % number
                user.transport.close()
                await until(lambda: user.lost, 20)

            for first in range(0, 120, 12):
                await asyncio.gather(*(one(number) for number in range(first, first + 12)))
            await until(lambda: site.relay.held(AGENT).in_use == 0)
            assert site.relay.held(AGENT).ready <= 8

    runner.run(main())
