"""What every stream promises to the protocols on it, whatever carries it: one suite, on a virtual clock."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.tunnel import virtual
from tests.tunnel.ends import Echo, Owner, Recorder, SeededChance, until
from tunnel import wire
from tunnel.link import Link, Side
from tunnel.memory import MemoryNetwork
from tunnel.redial import RedialledTransport
from tunnel.resumable import ResumableTransport
from tunnel.resumables import Resumables
from tunnel.stream import LINGER_S, StreamReset, StreamTransport

Stream = StreamTransport | ResumableTransport
Serve = Callable[[], asyncio.Protocol | None]
MOST_HELD = 16 * 1024 * 1024


class Way:
    """How streams are opened to an agent that serves each with what `serve` returns."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.network = MemoryNetwork(latency=0.01)

    async def ready(self) -> None:
        """Be ready to open streams."""

    def open(self, protocol: asyncio.Protocol) -> Stream:
        raise NotImplementedError


class Mux(Way):
    """Streams of a link."""

    async def ready(self) -> None:
        control = Owner()
        agent = Owner(self.stream_opened)
        self.network.listen(lambda _: Link(control, side=Side.CONTROL))
        await self.network.dialer("a-1").dial(lambda: Link(agent, side=Side.AGENT))
        self.link = control.link

    def stream_opened(self, _: wire.OpenStream) -> asyncio.Protocol | None:
        return self.serve()

    def open(self, protocol: asyncio.Protocol) -> Stream:
        stream = self.link.open_stream(wire.OpenStream(run="r", port=1), protocol)
        assert isinstance(stream, StreamTransport)
        return stream


class Lanes(Way):
    """Resumable streams, each on a connection of its own."""

    def __init__(self, serve: Serve) -> None:
        super().__init__(serve)
        self.chance = SeededChance()
        self.table = Resumables()

    async def ready(self) -> None:
        self.network.listen(lambda name: self.table.lane(bytes.fromhex(name), "r", self.serve))

    def open(self, protocol: asyncio.Protocol) -> Stream:
        stream = self.chance.token_bytes(16)
        transport = RedialledTransport(stream, self.dial(stream), chance=self.chance)
        transport.attach(protocol)
        transport.start()
        return transport

    def dial(self, stream: bytes) -> Callable[[Callable[[], asyncio.Protocol]], Coroutine[Any, Any, None]]:
        return self.network.dialer(stream.hex()).dial


class BadLanes(Lanes):
    """The same, with every connection reset after a while."""

    def dial(self, stream: bytes) -> Callable[[Callable[[], asyncio.Protocol]], Coroutine[Any, Any, None]]:
        name = stream.hex()

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            await self.network.dialer(name).dial(make)
            asyncio.get_running_loop().call_later(self.chance.uniform(0.03, 0.4), self.network.reset, name)

        return dial


class OnMux(Mux):
    """Resumable streams on streams of a link."""

    def __init__(self, serve: Serve) -> None:
        super().__init__(serve)
        self.chance = SeededChance()
        self.table = Resumables()

    def stream_opened(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        return self.table.lane(bytes.fromhex(opening.run), "r", self.serve)

    def open(self, protocol: asyncio.Protocol) -> Stream:
        stream = self.chance.token_bytes(16)

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            self.link.open_stream(wire.OpenStream(run=stream.hex(), port=1), make())

        transport = RedialledTransport(stream, dial, chance=self.chance)
        transport.attach(protocol)
        transport.start()
        return transport


@pytest.fixture(params=[Mux, Lanes, BadLanes, OnMux])
def way(request: pytest.FixtureRequest) -> type[Way]:
    kind: type[Way] = request.param
    return kind


class Served:
    """Makes the protocols that serve, and remembers them."""

    def __init__(self, make: Callable[[], Recorder] = Recorder) -> None:
        self.make = make
        self.all: list[Recorder] = []

    def __call__(self) -> Recorder:
        self.all.append(self.make())
        return self.all[-1]

    @property
    def one(self) -> Recorder:
        return self.all[0]

    async def opened(self) -> Recorder:
        await until(lambda: self.all)
        return self.one


def run(way: type[Way], serve: Serve, body: Callable[[Way], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        made = way(serve)
        await made.ready()
        await body(made)

    virtual.run(main())


def test_echo_is_byte_exact_and_half_close_works(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        stream = site.open(user)
        sent = random.Random(5).randbytes(6_000_000)
        at = 0
        for size in [1, 10, 3, 5000, 70_000, 200_000] * 30:
            await user.writable.wait()
            stream.write(sent[at : at + size])
            at += size
        stream.write_eof()
        await until(lambda: user.ended, 120)
        assert user.size == min(at, len(sent))
        assert user.tail == sent[:at][-4096:]
        stream.close()
        await until(lambda: user.lost and served.one.lost)
        assert user.error is None
        assert served.one.error is None
        half = site.open(Recorder())
        half.write_eof()
        with pytest.raises(RuntimeError):
            half.write(b"x")

    served = Served(Echo)
    run(way, served, body)


def test_many_streams_at_once(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        users = [Recorder() for _ in range(30)]
        for number, user in enumerate(users):
            stream = site.open(user)
            stream.write(bytes([number]) * 40_000)
            stream.write_eof()
        await until(lambda: all(user.ended for user in users), 60)
        assert [user.size for user in users] == [40_000] * 30
        assert [user.tail[-1] for user in users] == list(range(30))

    run(way, Served(Echo), body)


def test_a_refused_stream_is_reset(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        site.open(user).write(b"hello")
        await until(lambda: user.lost)
        assert isinstance(user.error, StreamReset)
        assert "refused" in str(user.error)

    run(way, lambda: None, body)


def test_abort_and_reset_reach_the_other_end_with_the_reason(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        one, two = Recorder(), Recorder()
        first = site.open(one)
        await served.opened()
        site.open(two)
        await until(lambda: len(served.all) == 2)
        first.abort()
        served.all[1].transport.reset("no such port")
        await until(lambda: one.lost and two.lost and all(end.lost for end in served.all))
        assert one.error is None
        assert str(served.all[0].error) == "aborted"
        assert isinstance(two.error, StreamReset)
        assert str(two.error) == "no such port"

    served = Served()
    run(way, served, body)


def test_a_slow_reader_bounds_what_is_held_and_stays_alive(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        stream = site.open(user)
        accepted = 0
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(user.writable.wait(), 60)
                stream.write(bytes(100_000))
                accepted += 100_000
                await asyncio.sleep(0.001)
        assert accepted <= MOST_HELD + 1024 * 1024
        await asyncio.sleep(300)
        assert served.one.size == 0
        assert not user.lost
        assert not user.writable.is_set()
        served.one.transport.resume_reading()
        await until(lambda: user.writable.is_set() and served.one.size == accepted)

    served = Served(lambda: Recorder(slow=True))
    run(way, served, body)


def test_what_was_written_before_close_arrives(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        stream = site.open(user)
        stream.write(bytes(3_000_000))
        stream.close()
        stream.write(b"after")
        assert stream.is_closing()
        await until(lambda: user.lost, 60)
        assert user.error is None
        await until(lambda: served.one.lost)
        assert served.one.size == 3_000_000
        assert served.one.ended

    served = Served(lambda: Recorder(half_open=False))
    run(way, served, body)


def test_closing_while_the_other_end_still_sends_resets_it(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        stream = site.open(user)
        stream.write(b"bye")
        stream.close()
        await until(lambda: served.all and served.one.ended)
        assert served.one.tail == b"bye"
        await until(lambda: user.lost)
        served.one.transport.write(b"too late")
        await until(lambda: served.one.lost)
        assert isinstance(served.one.error, StreamReset)
        assert user.size == 0

    served = Served()
    run(way, served, body)


def test_a_closed_stream_that_nobody_reads_is_given_up(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        stream = site.open(user)
        stream.write(bytes(MOST_HELD + 1024 * 1024))
        stream.close()
        await asyncio.sleep(LINGER_S / 2)
        assert not user.lost
        await asyncio.sleep(LINGER_S * 3)
        assert user.lost
        assert served.one.lost

    served = Served(lambda: Recorder(slow=True))
    run(way, served, body)


def test_a_stream_closed_at_one_end_and_idle_at_the_other_is_given_up(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        site.open(user).close()
        await until(lambda: user.lost)
        await asyncio.sleep(LINGER_S * 2 + 1)
        assert served.one.lost

    served = Served()
    run(way, served, body)


def test_what_was_ended_before_a_reset_is_still_read(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        user = Recorder()
        stream = site.open(user)
        stream.pause_reading()
        other = await served.opened()
        other.transport.write(b"the answer")
        other.transport.write_eof()
        await asyncio.sleep(1)
        other.transport.reset("enough")
        await asyncio.sleep(1)
        assert not user.lost
        stream.resume_reading()
        await until(lambda: user.lost)
        assert user.tail == b"the answer"
        assert user.ended

    served = Served()
    run(way, served, body)


def test_write_buffer_limits(way: type[Way]) -> None:
    async def body(site: Way) -> None:
        stream = site.open(Recorder())
        assert stream.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        stream.set_write_buffer_limits(low=10)
        assert stream.get_write_buffer_limits() == (10, 40)
        with pytest.raises(ValueError):
            stream.set_write_buffer_limits(high=1, low=2)
        assert stream.can_write_eof()
        assert stream.is_reading()
        with pytest.raises(TypeError):
            stream.set_protocol(asyncio.BaseProtocol())

    run(way, Served(), body)
