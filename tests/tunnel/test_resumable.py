"""How resumable streams find, change, lose and give up their lanes; on a virtual clock."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from atoll.errors import AtollError, Forbidden, Unavailable
from tests.tunnel import virtual
from tests.tunnel.ends import Echo, Recorder, SeededChance, until
from tunnel.dialer import DIAL_TIMEOUT_S
from tunnel.memory import MemoryNetwork
from tunnel.redial import Dial, RedialledTransport
from tunnel.resumable import ANSWER_S, IDLE_S, QUIET_S, RESUME_S
from tunnel.resumables import DETACHED_LIMIT, SMALL_WINDOW, STREAMS_LIMIT, WINDOWS_LIMIT, Resumables
from tunnel.resume import WINDOW, Greeting, refusal
from tunnel.stream import StreamReset

ID = b"0123456789abcdef"
NOTICED_S = QUIET_S + ANSWER_S + 0.6
"""By then a lane on which something is owed is known to be dead."""


class Site:
    """An agent that serves one stream id, reached over connections "a" or "b"."""

    def __init__(self, make: Callable[[], asyncio.Protocol | None] = Echo, latency: float = 0.01) -> None:
        self.network = MemoryNetwork(latency=latency)
        self.table = Resumables()
        self.make = make
        self.served: list[asyncio.Protocol] = []
        self.dials = 0
        self.route = "a"
        self.network.listen(lambda _: self.table.lane(ID, "run", self.serve))

    def serve(self) -> asyncio.Protocol | None:
        protocol = self.make()
        if protocol is not None:
            self.served.append(protocol)
        return protocol

    @property
    def one(self) -> Recorder:
        protocol = self.served[0]
        assert isinstance(protocol, Recorder)
        return protocol

    async def dial(self, make: Callable[[], asyncio.Protocol]) -> None:
        self.dials += 1
        await self.network.dialer(self.route).dial(make)

    def open(self, user: asyncio.Protocol, dial: Dial | None = None) -> RedialledTransport:
        stream = RedialledTransport(ID, dial or self.dial, chance=SeededChance(), peer="a-1")
        stream.attach(user)
        stream.start()
        return stream


def now() -> float:
    return asyncio.get_running_loop().time()


async def echoed(user: Recorder, stream: RedialledTransport, data: bytes) -> None:
    before = user.size
    stream.write(data)
    await until(lambda: user.size == before + len(data), 70)


Body = Callable[[], Coroutine[Any, Any, None]]


def on_virtual_clock(body: Body) -> Callable[[], None]:
    def test() -> None:
        virtual.run(body())

    test.__name__ = body.__name__
    return test


@on_virtual_clock
async def test_the_peer_and_the_stream_are_named() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    assert stream.get_extra_info("peername") == ("a-1", ID.hex())
    await until(lambda: site.served)
    assert site.one.transport.get_extra_info("peername") == ("run", ID.hex())


@on_virtual_clock
async def test_opening_and_an_answer_take_two_round_trips_of_which_one_is_the_connection() -> None:
    site, user = Site(latency=0.1), Recorder()
    start = now()
    stream = site.open(user)
    await echoed(user, stream, b"ping")
    assert now() - start == pytest.approx(0.4, abs=0.02)


@on_virtual_clock
async def test_a_silent_lane_is_noticed_and_replaced() -> None:
    for after in (0.3, 2.0, 100.0, 101.7):
        site, user = Site(), Recorder()
        stream = site.open(user)
        await echoed(user, stream, b"before")
        await asyncio.sleep(after)
        site.network.cut("a")
        site.route = "b"
        start = now()
        await echoed(user, stream, b"after")
        assert now() - start <= NOTICED_S
        assert stream.resumed == 1


@on_virtual_clock
async def test_a_lane_that_dies_while_the_client_only_waits_is_noticed_too() -> None:
    site, user = Site(Recorder), Recorder()
    stream = site.open(user)
    stream.write(b"a question")
    await until(lambda: site.served and site.one.size)
    await asyncio.sleep(20)
    site.network.cut("a")
    site.route = "b"
    site.one.transport.write(b"the answer")
    start = now()
    await until(lambda: user.size, 60)
    assert now() - start <= IDLE_S + NOTICED_S


@on_virtual_clock
async def test_an_idle_stream_stays_and_says_little() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")
    await asyncio.sleep(3600)
    await echoed(user, stream, b"y")
    assert site.dials == 1


@on_virtual_clock
async def test_a_move_while_bytes_flow_loses_nothing() -> None:
    site, user = Site(), Recorder()
    sent = random.Random(3).randbytes(4_000_000)
    stream = site.open(user)
    for number, at in enumerate(range(0, len(sent), 50_000)):
        await user.writable.wait()
        stream.write(sent[at : at + 50_000])
        if number % 10 == 5:
            site.route = "b" if site.route == "a" else "a"
            stream.move()
            await asyncio.sleep(0.003)
    await until(lambda: user.size == len(sent), 60)
    assert user.tail == sent[-4096:]
    assert site.dials == 9
    assert stream.resumed == 0
    assert len(site.served) == 1
    await asyncio.sleep(1)
    assert len(site.network._wire("a").ends) + len(site.network._wire("b").ends) == 2  # old lanes are closed


@on_virtual_clock
async def test_a_move_that_fails_leaves_the_stream_where_it_is() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")

    async def nowhere(_: Callable[[], asyncio.Protocol]) -> None:
        raise ConnectionRefusedError("nobody there")

    stream.move(nowhere)
    await asyncio.sleep(2 * RESUME_S)
    await echoed(user, stream, b"y")
    stream.move(site.dial)
    await asyncio.sleep(1)
    await echoed(user, stream, b"z")
    assert site.dials == 2


@on_virtual_clock
async def test_without_a_lane_for_long_both_ends_are_lost() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")
    site.network.refuse("a", True)
    site.network.reset("a")
    start = now()
    await asyncio.sleep(RESUME_S - 3)
    assert not user.lost
    assert not site.one.lost
    stream.write(b"into the dark")
    await until(lambda: user.lost and site.one.lost, 10)
    assert now() - start <= RESUME_S + 1
    assert isinstance(user.error, StreamReset)
    assert "refused" in str(user.error)
    assert isinstance(site.one.error, StreamReset)
    assert "not resumed within 60 s" in str(site.one.error)
    assert 50 < site.dials < 200
    assert len(site.table) == 0


@on_virtual_clock
async def test_the_first_lane_must_be_had_soon() -> None:
    site, user = Site(), Recorder()
    site.network.refuse("a", True)
    start = now()
    site.open(user)
    await until(lambda: user.lost, 60)
    assert now() - start <= DIAL_TIMEOUT_S
    assert isinstance(user.error, StreamReset)


@on_virtual_clock
async def test_an_agent_that_does_not_know_the_stream_ends_it() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")
    site.table = Resumables()
    site.network.reset("a")
    await until(lambda: user.lost)
    assert "does not know" in str(user.error)
    assert len(site.served) == 1


@on_virtual_clock
async def test_an_opening_whose_answer_was_lost_is_not_served_twice() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    stream.write(b"once")
    await until(lambda: site.served and site.one.size)
    assert stream.core.fresh
    site.network.reset("a")
    await until(lambda: user.size == 4)
    await echoed(user, stream, b"more")
    assert site.one.size == 8
    assert len(site.served) == 1


@on_virtual_clock
async def test_only_the_stream_and_run_that_were_granted() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")
    site.network.listen(lambda _: site.table.lane(ID, "another run", site.serve))
    site.network.reset("a")
    await until(lambda: user.lost)
    assert "another run" in str(user.error)
    site.network.listen(lambda _: site.table.lane(b"x" * 16, "run", site.serve))
    second = Recorder()
    site.open(second)
    await until(lambda: second.lost)
    assert "may not carry" in str(second.error)


@on_virtual_clock
async def test_streams_end_with_their_run() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")
    site.table.end("another", "over")
    assert len(site.table) == 1
    site.table.end("run", "the run is over")
    await until(lambda: user.lost and site.one.lost)
    assert str(user.error) == str(site.one.error) == "the run is over"
    late = Recorder()
    site.open(late)
    await until(lambda: late.lost)
    assert str(late.error) == "the run is over", "a late lane hears how it ended"
    site.table.close("leaving")


@on_virtual_clock
async def test_an_end_while_there_is_no_lane_is_told_on_the_next() -> None:
    site, user = Site(), Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")
    site.network.refuse("a", True)
    site.network.reset("a")
    await asyncio.sleep(1)
    site.one.transport.write(b"the rest")
    site.one.transport.close()
    await asyncio.sleep(20)
    assert not site.one.lost
    site.network.refuse("a", False)
    await until(lambda: user.ended)
    assert user.tail == b"xthe rest"
    stream.close()
    await until(lambda: user.lost and site.one.lost)
    assert user.error is None
    assert site.one.error is None


@on_virtual_clock
async def test_a_last_word_that_was_lost_is_asked_for_again() -> None:
    for after in (0.0, 0.005, 0.015, 0.025, 0.035, 0.045):
        site, user = Site(), Recorder(half_open=False)
        stream = site.open(user)
        await echoed(user, stream, b"x")
        stream.write_eof()
        await asyncio.sleep(after)
        site.network.reset("a")
        await until(lambda user=user, site=site: user.lost and site.one.lost, 2 * RESUME_S)  # type: ignore[misc]
        assert user.error is None
        if site.one.error is not None:  # the client had everything, its last ACK was lost, and it was gone
            assert "not resumed" in str(site.one.error)
            assert after >= 0.02


@pytest.mark.parametrize("error", [StreamReset("no grant"), Forbidden("no grant")])
def test_a_dial_may_say_that_it_is_no_use(error: Exception) -> None:
    async def main() -> None:
        async def dial(_: Callable[[], asyncio.Protocol]) -> None:
            raise error

        site, user = Site(), Recorder()
        start = now()
        site.open(user, dial)
        await until(lambda: user.lost)
        assert now() - start < 0.1
        assert str(user.error) == "no grant"

    virtual.run(main())


@pytest.mark.parametrize("error", [OSError("unreachable"), Unavailable("draining"), TimeoutError()])
def test_a_dial_that_fails_is_tried_again(error: OSError | AtollError) -> None:
    async def main() -> None:
        site, user = Site(), Recorder()
        fails = 4

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            nonlocal fails
            fails -= 1
            if fails >= 0:
                raise error
            await site.dial(make)

        stream = site.open(user, dial)
        await echoed(user, stream, b"x")

    virtual.run(main())


class Nonsense(asyncio.Protocol):
    """Answers like a web server, or with something else."""

    def __init__(self, answer: bytes = b"HTTP/1.1 502 Bad Gateway\r\n\r\n") -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.answer)


@on_virtual_clock
async def test_what_is_no_answer_at_all_is_a_lost_lane() -> None:
    site, user = Site(), Recorder()
    serve = site.network._make
    site.network.listen(lambda _: Nonsense())
    stream = site.open(user)
    await asyncio.sleep(1)
    assert not user.lost
    site.network.listen(serve)
    await echoed(user, stream, b"x")


@on_virtual_clock
async def test_what_breaks_the_protocol_later_ends_the_stream() -> None:
    site, user = Site(), Recorder()
    site.network.listen(lambda _: Nonsense(Greeting(ID, 1).encode() + b"\xff" * 13))
    site.open(user)
    await until(lambda: user.lost)
    assert "protocol error" in str(user.error)


@on_virtual_clock
async def test_a_refusal_in_the_lane_ends_the_stream_at_once() -> None:
    site, user = Site(), Recorder()
    site.network.listen(lambda _: Nonsense(refusal("the grant has expired")))
    site.open(user)
    await until(lambda: user.lost)
    assert str(user.error) == "the grant has expired"


@on_virtual_clock
async def test_lanes_that_never_greet_or_greet_wrongly_are_closed() -> None:
    site = Site()
    user = Recorder()
    stream = site.open(user)
    await echoed(user, stream, b"x")

    class Caller(asyncio.Protocol):
        def __init__(self, says: bytes) -> None:
            self.says = says
            self.lost = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(self.says)

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost = True

    callers = [Caller(b""), Caller(b"GET / HTTP/1.1\r\n"), Caller(Greeting(ID, 1, fresh=True).encode())]
    for caller in callers:
        await site.network.dialer("a").dial(lambda caller=caller: caller)  # type: ignore[misc]
    await asyncio.sleep(0.1)
    assert [caller.lost for caller in callers] == [False, True, True]
    await asyncio.sleep(DIAL_TIMEOUT_S)
    assert callers[0].lost
    await echoed(user, stream, b"y")
    assert site.dials == 1


class Failing(Recorder):
    def data_received(self, data: bytes) -> None:
        raise ValueError("a bug of the protocol")


def test_a_protocol_that_raises_loses_its_stream() -> None:
    failures: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        site, user = Site(Failing), Recorder()
        site.open(user).write(b"x")
        await until(lambda: user.lost and site.one.lost)
        assert "failed" in str(user.error)
        assert site.dials <= 2  # the exception ends the lane; the next one tells why

    virtual.run(main())
    assert [str(failure.get("exception")) for failure in failures] == ["a bug of the protocol"]


@on_virtual_clock
async def test_an_agent_bounds_streams_windows_and_what_it_keeps() -> None:
    network, table = MemoryNetwork(latency=0.001), Resumables()
    served: list[Recorder] = []

    def serve() -> Recorder:
        served.append(Recorder())
        return served[-1]

    network.listen(lambda name: table.lane(bytes.fromhex(name), "run", serve))
    chance = SeededChance()
    users: list[Recorder] = []
    for _ in range(STREAMS_LIMIT + 1):
        stream = chance.token_bytes(16)
        users.append(Recorder())
        transport = RedialledTransport(stream, network.dialer(stream.hex()).dial, chance=chance)
        transport.attach(users[-1])
        transport.start()
    await until(lambda: len(served) == STREAMS_LIMIT and any(user.lost for user in users))
    assert ["too many" in str(user.error) for user in users if user.lost] == [True]
    windows = sorted({end.transport.window for end in served})  # type: ignore[union-attr]
    assert windows == [SMALL_WINDOW, WINDOW]
    full = [end for end in served if end.transport.window == WINDOW]  # type: ignore[union-attr]
    assert len(full) * WINDOW == WINDOWS_LIMIT
    for end in full[:12]:
        end.transport.write(bytes(WINDOW))
        network.refuse(end.transport.get_extra_info("peername")[1], True)
        network.reset(end.transport.get_extra_info("peername")[1])
    await asyncio.sleep(1)
    gone = [end for end in full[:12] if end.lost]
    assert len(gone) == 12 - DETACHED_LIMIT // WINDOW
    assert gone == full[: len(gone)], "those that lost their lane first"


@on_virtual_clock
async def test_a_stream_reset_at_once_by_its_protocol_says_why() -> None:
    class No(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.reset("no such port")

    site, user = Site(No), Recorder()
    site.open(user).write(b"x" * 100_000)
    await until(lambda: user.lost and site.one.lost)
    assert str(user.error) == "no such port"
    assert len(site.table) == 0


@on_virtual_clock
async def test_aborting_ends_the_search_for_a_lane() -> None:
    site, user = Site(), Recorder()
    site.network.cut("a")
    stream = site.open(user)
    await asyncio.sleep(1)
    stream.abort()
    await until(lambda: user.lost)
    assert user.error is None
    await asyncio.sleep(60)
    assert site.dials == 1
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def storm(seed: int) -> str:
    """Both ends send under random resets, silences, moves and pauses; return what happened, for comparison."""
    rng = random.Random(seed)
    up, down = rng.randbytes(2_000_000), rng.randbytes(1_500_000)

    class Talker(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.talking = asyncio.get_running_loop().create_task(talk(self, down))

    async def talk(end: Recorder, data: bytes) -> None:
        at = 0
        while at < len(data):
            await end.writable.wait()
            size = rng.choice([1, 100, 10_000, 90_000])
            end.transport.write(data[at : at + size])
            at += size
            await asyncio.sleep(rng.choice([0.0, 0.001, 0.05]))
        end.transport.write_eof()

    site, user = Site(Talker, latency=0.0), Recorder()
    site.network.latency = lambda: rng.uniform(0.0, 0.03)
    stream = site.open(user)
    talking = asyncio.get_running_loop().create_task(talk(user, up))

    def done() -> bool:
        return user.ended and bool(site.served) and site.one.ended

    await until(lambda: site.served)
    start = now()
    while not done():
        assert now() - start < 600
        assert not user.lost
        match rng.randrange(7):
            case 0 | 1:
                site.network.reset(site.route)
            case 2:
                site.route = "b" if site.route == "a" else "a"
                stream.move()
            case 3:
                site.network.cut(site.route)
                await asyncio.sleep(rng.uniform(0, 8))
                site.network.heal(site.route)
            case 4 if site.served:
                end = rng.choice((user, site.one))
                end.transport.pause_reading()
                await asyncio.sleep(rng.uniform(0, 1))
                end.transport.resume_reading()
            case 5:
                site.network.refuse(site.route, True)
                await asyncio.sleep(rng.uniform(0, 8))
                site.network.refuse(site.route, False)
        await asyncio.sleep(rng.uniform(0, 0.5))
    await talking
    assert (user.size, user.digest.digest()) == (len(down), hashlib.sha256(down).digest())
    assert (site.one.size, site.one.digest.digest()) == (len(up), hashlib.sha256(up).digest())
    stream.close()
    site.one.transport.close()
    await until(lambda: user.lost and site.one.lost, 2 * RESUME_S)
    assert user.error is None
    await asyncio.sleep(1)
    assert len(site.table) == 0
    return f"{now():.6f} {site.dials} {stream.resumed}"


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_to_lanes_the_bytes_arrive(seed: int) -> None:
    assert virtual.run(storm(seed)) == virtual.run(storm(seed))
