"""Links over the memory network, on a virtual clock."""

import asyncio
import gc
import random
import weakref
from collections.abc import Callable

import pytest

from atoll.errors import Unavailable
from tests.tunnel import virtual
from tests.tunnel.ends import Echo, Owner, Recorder, until
from tunnel import mux, wire
from tunnel.link import Link, Side
from tunnel.memory import Latency, MemoryNetwork
from tunnel.stream import LINGER_S, StreamReset, StreamTransport

NOTICED_S = 5.0


class Site:
    """One agent and the control plane, linked."""

    def __init__(
        self, serve: Callable[[wire.OpenStream], asyncio.Protocol | None] | None = None, latency: Latency = 0.01
    ) -> None:
        self.network = MemoryNetwork(latency=latency)
        self.agent, self.control = Owner(serve), Owner()
        self.network.listen(lambda _: Link(self.control, side=Side.CONTROL))

    async def link(self) -> "Site":
        await self.network.dialer("a-1").dial(lambda: Link(self.agent, side=Side.AGENT))
        return self

    def open(self, protocol: asyncio.Protocol) -> StreamTransport:
        transport = self.control.link.open_stream(wire.OpenStream(run="s-1.1.0", port=80), protocol)
        assert isinstance(transport, StreamTransport)
        return transport


def test_messages_go_both_ways_in_order() -> None:
    async def main() -> None:
        site = await Site().link()
        assert site.control.link.peer == "a-1"
        assert site.agent.link.peer == ""
        for number in range(100):
            site.agent.link.send(wire.Notice(in_s=number, message="x" * 5000))
            site.control.link.send(wire.Forget(runs=[str(number)]))
        await until(lambda: len(site.agent.messages) == len(site.control.messages) == 100)
        assert [m.in_s for m in site.control.messages if isinstance(m, wire.Notice)] == list(range(100))
        assert [m.runs for m in site.agent.messages if isinstance(m, wire.Forget)] == [[str(n)] for n in range(100)]
        assert site.agent.link.queued == site.control.link.queued == 0
        assert site.agent.link.rtt == pytest.approx(0.02, abs=0.005)

    virtual.run(main())


def test_an_idle_link_stays() -> None:
    async def main() -> None:
        site = await Site().link()
        await asyncio.sleep(3600)
        assert site.agent.link.alive
        assert site.control.link.alive
        assert site.agent.losses == site.control.losses == []

    virtual.run(main())


@pytest.mark.parametrize("after", [0.0, 0.7, 1.49, 2.3, 100.0])
def test_a_half_open_link_is_noticed_at_both_ends(after: float) -> None:
    async def main() -> None:
        site = await Site().link()
        await asyncio.sleep(after)
        start = asyncio.get_running_loop().time()
        site.network.cut("a-1")
        await asyncio.sleep(60)
        for owner in (site.agent, site.control):
            assert owner.losses == ["nothing heard for 4 s"]
            assert owner.lost_at - start <= NOTICED_S

    virtual.run(main())


def test_a_short_cut_is_survived_and_nothing_is_lost() -> None:
    async def main() -> None:
        site = await Site().link()
        site.network.cut("a-1")
        site.agent.link.send(wire.Leave(reason="during the cut"))
        await asyncio.sleep(2)
        assert site.control.messages == []
        site.network.heal("a-1")
        await until(lambda: site.control.messages)
        await asyncio.sleep(60)
        assert site.agent.losses == site.control.losses == []

    virtual.run(main())


def test_close_says_why_and_delivers_what_was_queued() -> None:
    async def main() -> None:
        site = await Site().link()
        site.control.link.send(wire.Refuse(code="OLD", message="y" * 300_000))
        site.control.link.close("too old")
        site.control.link.send(wire.Leave())
        assert not site.control.link.alive
        await until(lambda: site.agent.losses and site.control.losses)
        assert [type(message) for message in site.agent.messages] == [wire.Refuse]
        assert site.agent.losses == ["closed by the peer: too old"]
        assert site.control.losses == ["too old"]
        site.control.link.close("again")
        await asyncio.sleep(10)
        assert len(site.control.losses) == 1

    virtual.run(main())


def test_close_over_a_cut_network_ends_soon() -> None:
    async def main() -> None:
        site = await Site().link()
        site.network.cut("a-1")
        site.agent.link.close("leaving")
        await asyncio.sleep(3)
        assert site.agent.losses == ["leaving"]

    virtual.run(main())


def test_faults_of_the_network() -> None:
    async def main() -> None:
        site = await Site().link()
        site.network.reset("a-1")
        await until(lambda: site.agent.losses and site.control.losses)
        assert "reset" in site.agent.losses[0]
        site.network.refuse("a-1", True)
        with pytest.raises(ConnectionRefusedError):
            await site.link()
        site.network.refuse("a-1", False)
        await site.link()
        site.network.crash_control()
        await until(lambda: len(site.agent.losses) == 2)
        await asyncio.sleep(20)
        assert len(site.control.losses) == 1, "a dead process hears nothing"
        with pytest.raises(ConnectionRefusedError):
            await site.link()
        site.network.listen(lambda _: Link(site.control, side=Side.CONTROL))
        site.network.cut("a-1")
        with pytest.raises(TimeoutError):
            await site.link()
        site.network.heal("a-1")
        await site.link()
        site.network.crash_agent("a-1")
        await until(lambda: len(site.control.losses) == 2)
        assert len(site.agent.losses) == 2

    virtual.run(main())


def test_the_wrong_kind_of_message_closes_the_link() -> None:
    async def main() -> None:
        site = await Site().link()
        site.agent.link.send(wire.Stop(run="s-1.1.0", grace=1))
        await until(lambda: site.agent.losses and site.control.losses)
        assert "protocol error" in site.control.losses[0]
        assert "protocol error" in site.agent.losses[0]

    virtual.run(main())


def test_echo_is_byte_exact_and_half_close_works() -> None:
    async def main() -> None:
        site = await Site(lambda _: Echo(), latency=0.02).link()
        user = Recorder()
        stream = site.open(user)
        sent = random.Random(5).randbytes(3_000_000)
        for at in range(0, len(sent), 100_000):
            await user.writable.wait()
            stream.write(sent[at : at + 100_000])
        stream.write_eof()
        await until(lambda: user.ended, 60)
        assert user.size == len(sent)
        assert user.tail == sent[-4096:]
        stream.close()
        await until(lambda: user.lost)
        assert user.error is None
        half = site.open(Recorder())
        half.write_eof()
        with pytest.raises(RuntimeError):
            half.write(b"x")

    virtual.run(main())


def test_a_refused_stream_is_reset() -> None:
    async def main() -> None:
        site = await Site().link()
        user = Recorder()
        site.open(user).write(b"hello")
        await until(lambda: user.lost)
        assert isinstance(user.error, StreamReset)
        assert "refused" in str(user.error)
        assert site.control.link.alive

    virtual.run(main())


def test_abort_and_reset_reach_the_other_end_with_the_reason() -> None:
    async def main() -> None:
        served: list[Recorder] = []

        def serve(_: wire.OpenStream) -> Recorder:
            served.append(Recorder())
            return served[-1]

        site = await Site(serve).link()
        one, two = Recorder(), Recorder()
        site.open(one).abort()
        site.open(two)
        await until(lambda: len(served) == 2)
        served[1].transport.reset("nothing listens on port 80")
        await until(lambda: two.lost and served[0].lost)
        assert str(two.error) == "nothing listens on port 80"
        assert str(served[0].error) == "aborted"
        assert one.error is None
        assert one.lost
        assert served[1].lost

    virtual.run(main())


def test_a_slow_reader_holds_back_its_sender_and_nobody_else() -> None:
    async def main() -> None:
        served: list[Recorder] = []

        def serve(opening: wire.OpenStream) -> asyncio.Protocol:
            if opening.port == 1:
                return Echo()
            served.append(Recorder(slow=True))
            return served[-1]

        site = await Site(serve).link()
        user = Recorder()
        stream = site.open(user)
        accepted = 0
        while user.writable.is_set():
            stream.write(bytes(10_000))
            accepted += 10_000
            await asyncio.sleep(0.01)
        assert accepted <= mux.FIRST_WINDOW + 64 * 1024 + 10_000
        quick = Recorder()
        site.control.link.open_stream(wire.OpenStream(run="r", port=1), quick).write(b"ping")
        site.control.link.send(wire.Forget(runs=["r"]))
        await until(lambda: quick.tail == b"ping" and site.agent.messages)
        assert served[0].size == 0
        await asyncio.sleep(30)
        assert site.control.link.alive, "a stalled stream must not look like a dead link"
        served[0].transport.resume_reading()
        await until(lambda: user.writable.is_set() and served[0].size == accepted)

    virtual.run(main())


def test_closing_while_the_other_end_still_sends_resets_it() -> None:
    async def main() -> None:
        served: list[Recorder] = []

        def serve(_: wire.OpenStream) -> Recorder:
            served.append(Recorder())
            return served[-1]

        site = await Site(serve).link()
        user = Recorder()
        stream = site.open(user)
        stream.write(b"bye")
        stream.close()
        await until(lambda: served and served[0].ended)
        assert served[0].tail == b"bye"
        served[0].transport.write(b"too late")
        await until(lambda: served[0].lost)
        assert isinstance(served[0].error, StreamReset)
        assert user.lost
        assert user.size == 0

    virtual.run(main())


def test_a_closed_stream_that_nobody_reads_is_given_up() -> None:
    async def main() -> None:
        served: list[Recorder] = []

        def serve(_: wire.OpenStream) -> Recorder:
            served.append(Recorder(slow=True))
            return served[-1]

        site = await Site(serve).link()
        user = Recorder()
        stream = site.open(user)
        stream.write(bytes(2 * mux.FIRST_WINDOW))
        stream.close()
        await asyncio.sleep(LINGER_S / 2)
        assert not user.lost
        await asyncio.sleep(LINGER_S * 2)
        assert user.lost
        assert served[0].lost

    virtual.run(main())


def test_a_stream_closed_at_one_end_and_idle_at_the_other_is_given_up() -> None:
    async def main() -> None:
        served: list[Recorder] = []

        def serve(_: wire.OpenStream) -> Recorder:
            served.append(Recorder())
            return served[-1]

        site = await Site(serve).link()
        user = Recorder()
        site.open(user).close()
        await until(lambda: user.lost)
        await asyncio.sleep(LINGER_S + 2 * wire.PING_EVERY_S)
        assert served[0].lost

    virtual.run(main())


def test_a_stream_that_is_over_is_freed_without_a_search_for_cycles() -> None:
    async def main() -> None:
        served: list[Recorder] = []

        def serve(_: wire.OpenStream) -> Recorder:
            served.append(Recorder(half_open=False))
            return served[-1]

        site = await Site(serve).link()
        users = [Recorder()]
        site.open(users[0]).close()
        await until(lambda: users[0].lost and bool(served) and served[0].lost)
        await asyncio.sleep(1)
        kept = [weakref.ref(users.pop()), weakref.ref(served.pop())]
        assert [user() for user in kept] == [None, None]

    gc.disable()
    try:
        virtual.run(main())
    finally:
        gc.enable()


def test_streams_end_with_their_link_and_none_opens_after() -> None:
    async def main() -> None:
        site = await Site(lambda _: Recorder()).link()
        user = Recorder()
        site.open(user)
        site.network.reset("a-1")
        await until(lambda: user.lost)
        assert isinstance(user.error, StreamReset)
        with pytest.raises(Unavailable):
            site.open(Recorder())

    virtual.run(main())


def test_what_was_ended_before_a_reset_is_still_read() -> None:
    async def main() -> None:
        served: list[Recorder] = []

        def serve(_: wire.OpenStream) -> Recorder:
            served.append(Recorder())
            return served[-1]

        site = await Site(serve).link()
        user = Recorder()
        stream = site.open(user)
        stream.pause_reading()
        await until(lambda: served)
        served[0].transport.write(b"the answer")
        served[0].transport.close()
        await asyncio.sleep(1)
        stream.write(b"more that nobody wants")
        await asyncio.sleep(1)
        stream.resume_reading()
        await until(lambda: user.lost)
        assert user.tail == b"the answer"
        assert user.ended

    virtual.run(main())


def test_control_messages_pass_a_saturated_link() -> None:
    async def main() -> None:
        site = await Site(lambda _: Recorder(slow=True)).link()
        for _ in range(50):
            site.open(Recorder()).write(bytes(mux.FIRST_WINDOW))
        site.control.link.send(wire.Forget(runs=["now"]))
        assert site.control.link.queued > 0
        sent = asyncio.get_running_loop().time()
        await until(lambda: site.agent.messages)
        assert asyncio.get_running_loop().time() - sent < 0.1
        assert site.control.link.queued == 0

    virtual.run(main())


def trace(seed: int) -> list[str]:
    """Run a link under random delays and faults; return everything that happened and when."""
    seen: list[str] = []

    class Noting(Owner):
        def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
            seen.append(f"{asyncio.get_running_loop().time():.9f} {message}")

        def lost(self, link: Link, reason: str) -> None:
            seen.append(f"{asyncio.get_running_loop().time():.9f} lost {reason}")

    async def main() -> None:
        rng = random.Random(seed)
        network = MemoryNetwork(latency=lambda: rng.uniform(0, 0.2))
        network.listen(lambda _: Link(Noting(), side=Side.CONTROL))
        for number in range(20):
            agent = Noting()
            await network.dialer("a-1").dial(lambda agent=agent: Link(agent, side=Side.AGENT))  # type: ignore[misc]
            for part in range(5):
                agent.link.send(wire.Leave(reason=f"{number}.{part}"))
                await asyncio.sleep(rng.uniform(0, 1))
            network.cut("a-1") if rng.random() < 0.3 else network.reset("a-1")
            await asyncio.sleep(6)
            network.heal("a-1")

    virtual.run(main())
    return seen


def test_the_same_seed_gives_the_same_trace() -> None:
    first = trace(3)
    assert len(first) > 60
    assert trace(3) == first
    assert trace(4) != first
