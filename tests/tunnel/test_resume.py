"""Resumable streams without I/O, against a model: whatever happens to lanes, bytes arrive equal, in order, once."""

import collections
import random
import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunnel.resume import (
    ACK_EVERY,
    FIRST_WINDOW,
    FRAME,
    GREETING_SIZE,
    HEADER,
    WINDOW,
    Greeting,
    Kind,
    Pieces,
    Resume,
    Side,
    read_greeting,
    refusal,
)
from tunnel.wire import ProtocolError

ID = b"0123456789abcdef"
SMALL = FIRST_WINDOW


class End:
    """One end, what its user wrote, and what its reader got."""

    def __init__(self, side: Side) -> None:
        self.core = Resume(ID, side, SMALL)
        self.wrote = bytearray()
        self.finished = False
        self.got = bytearray()
        self.unread = 0

    def receive(self, epoch: int, data: bytes) -> None:
        for view in self.core.receive(epoch, data):
            self.got += view
            self.unread += len(view)

    def read(self, count: int) -> None:
        count = min(count, self.unread)
        self.unread -= count
        self.core.consumed(count)


@dataclass
class Pipe:
    """A lane: two directions whose bytes may arrive late, even after a newer lane is there."""

    epoch: int
    to_agent: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)
    greeting: bytearray = field(default_factory=bytearray)
    joined: bool = False
    dead: bool = False


class Stream(RuleBasedStateMachine):
    """Two ends, any number of lanes."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.agent = End(Side.CLIENT), End(Side.AGENT)
        self.pipes: list[Pipe] = []
        self.rng = random.Random(0)
        self.was_reset = False

    def pipe(self, choice: int) -> Pipe:
        return self.pipes[choice % len(self.pipes)] if choice >= 0 else self.pipes[max(choice, -len(self.pipes))]

    def end(self, agent: bool) -> End:
        return self.agent if agent else self.client

    @rule(agent=st.booleans(), size=st.sampled_from([1, 7, 3000, 5000, 70_000, 300_000]), times=st.integers(1, 3))
    def write(self, agent: bool, size: int, times: int) -> None:
        end = self.end(agent)
        if not end.finished and end.core.pending < 2 * SMALL:
            for _ in range(times):
                data = self.rng.randbytes(size)
                end.core.write(data)
                end.wrote += data

    @rule(agent=st.booleans())
    def finish(self, agent: bool) -> None:
        self.end(agent).core.finish()
        self.end(agent).finished = True

    @rule(agent=st.booleans(), count=st.sampled_from([1, 1000, 100_000, 1 << 30]))
    def read(self, agent: bool, count: int) -> None:
        self.end(agent).read(count)

    @rule(agent=st.booleans())
    def be_idle(self, agent: bool) -> None:
        self.end(agent).core.acknowledge()
        self.end(agent).core.ping()

    @rule()
    def begin(self) -> None:
        self.pipes.append(Pipe(self.client.core.greet()))

    @precondition(lambda self: self.pipes)
    @rule(agent=st.booleans(), choice=st.integers(-3, 5), cut=st.integers(0, 1 << 19))
    def lose(self, agent: bool, choice: int, cut: int) -> None:
        """One end hears that a lane is gone; what was on its way is cut anywhere."""
        pipe = self.pipe(choice)
        pipe.dead = True
        del pipe.to_agent[cut:]
        del pipe.to_client[cut:]
        if not agent or pipe.joined:
            self.end(agent).core.lost(pipe.epoch)

    @precondition(lambda self: self.pipes)
    @rule(agent=st.booleans(), most=st.sampled_from([1, 1000, 100_000, 1 << 20]))
    def send(self, agent: bool, most: int) -> None:
        core = self.end(agent).core
        for pipe in self.pipes:
            if parts := core.take(pipe.epoch, most):
                assert pipe.epoch == core.epoch
                if not pipe.dead:
                    (pipe.to_client if agent else pipe.to_agent).extend(b"".join(parts))

    @precondition(lambda self: self.pipes)
    @rule(agent=st.booleans(), choice=st.integers(-3, 5), count=st.sampled_from([1, 12, 13, 60, 5000, 1 << 20]))
    def carry(self, agent: bool, choice: int, count: int) -> None:
        pipe = self.pipe(choice)
        wire = pipe.to_agent if agent else pipe.to_client
        data, wire[:] = bytes(wire[:count]), wire[count:]
        if not agent:
            self.client.receive(pipe.epoch, data)
            return
        if not pipe.joined:
            pipe.greeting += data
            data = bytes(pipe.greeting[GREETING_SIZE:])
            greeting = read_greeting(pipe.greeting)
            if greeting is None:
                return
            assert greeting.epoch == pipe.epoch
            pipe.joined = True
            if self.agent.core.answer(greeting) is None:
                assert self.agent.core.epoch >= pipe.epoch
        self.agent.receive(pipe.epoch, data)

    @precondition(lambda self: self.pipes)
    @rule(choice=st.integers(-3, -1), count=st.sampled_from([40, 100, 2000, 20_000, 1 << 20]), times=st.integers(1, 4))
    def exchange(self, choice: int, count: int, times: int) -> None:
        """Both ends send what they may; so many bytes of it arrive, which may end inside a frame."""
        for _ in range(times):
            for agent in (False, True):
                self.send(agent, 100_000)
                self.carry(not agent, choice, count)

    @rule(size=st.sampled_from([50, 500, 3000, 90_000]), count=st.integers(1, 5000), lost=st.booleans())
    def interrupt(self, size: int, count: int, lost: bool) -> None:
        """A new lane while bytes of the present one are on their way, part of a frame taken: they come late."""
        if not self.pipes:
            self.begin()
        old = self.pipes[-1]
        for agent in (False, True):
            self.write(agent, size, 1)
            self.exchange(-1, 1 << 20, 2)
            self.write(agent, size, 1)
            self.send(agent, 100_000)
            self.carry(not agent, -1, count)
        self.begin()
        if lost:
            self.client.core.lost(old.epoch)
        self.exchange(-1, 1 << 20, 1)
        late = len(self.pipes) - 2
        for agent in (False, True):
            self.carry(agent, late, 1 << 20)
        self.exchange(-1, 1 << 20, 2)

    @invariant()
    def nothing_is_lost_or_doubled_and_memory_is_bounded(self) -> None:
        for end, other in ((self.client, self.agent), (self.agent, self.client)):
            assert end.unread <= SMALL
            assert end.core.held - end.core.pending <= SMALL
            assert len(end.got) <= len(other.wrote)
            assert other.wrote.startswith(end.got[-1000:], max(0, len(end.got) - 1000))

    def teardown(self) -> None:
        self.begin()
        for _ in range(200):
            for agent in (False, True):
                self.send(agent, 1 << 20)
                self.carry(not agent, -1, 1 << 22)
                self.read(not agent, 1 << 30)
                self.end(not agent).core.acknowledge()
            ends = (self.client, self.agent)
            if all(len(end.got) == len(other.wrote) for end, other in (ends, ends[::-1])) and all(
                end.core.answered and not end.core.held and end.core.flushed == end.finished for end in ends
            ):
                break
        for end, other in ((self.client, self.agent), (self.agent, self.client)):
            assert end.got == other.wrote
            assert end.core.ended == other.finished == other.core.flushed
            assert end.core.held == 0
        self.send(False, 1)
        self.send(True, 1)
        assert self.client.core.over == self.agent.core.over == (self.client.finished and self.agent.finished)


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=120, stateful_step_count=60)


def joined(window: int = WINDOW) -> tuple[Resume, Resume]:
    client, agent = Resume(ID, Side.CLIENT, window), Resume(ID, Side.AGENT, window)
    join(client, agent)
    return client, agent


def join(client: Resume, agent: Resume) -> None:
    client.greet()
    first = b"".join(client.take(client.epoch))
    greeting = read_greeting(first)
    assert greeting is not None
    agent.answer(greeting)
    agent.receive(agent.epoch, first[GREETING_SIZE:])
    client.receive(client.epoch, b"".join(agent.take(agent.epoch)))


def carry(source: Resume, sink: Resume, most: int = 1 << 30) -> bytes:
    return b"".join(sink.receive(sink.epoch, b"".join(source.take(source.epoch, most))))


def frame(kind: int, offset: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload), offset) + payload


def test_the_first_lane_carries_data_with_its_greeting_later_ones_wait_for_the_answer() -> None:
    client, agent = Resume(ID, Side.CLIENT), Resume(ID, Side.AGENT)
    client.write(b"hello")
    client.finish()
    client.greet()
    first = b"".join(client.take(1))
    assert first[GREETING_SIZE:] == frame(Kind.DATA, 0, b"hello") + frame(Kind.END, 5)
    client.greet()
    assert b"".join(client.take(2)) == Greeting(ID, 2, fresh=True).encode()
    agent.answer(Greeting(ID, 2, fresh=True))
    assert client.receive(2, b"".join(agent.take(2))) == []
    assert carry(client, agent) == b"hello"
    assert agent.ended


@pytest.mark.parametrize("padding", [1, 9000])
def test_padding_behind_a_greeting_says_nothing(padding: int) -> None:
    client, agent = Resume(ID, Side.CLIENT), Resume(ID, Side.AGENT)
    client.write(b"hello")
    client.greet(padding)
    first = b"".join(client.take(1))
    assert len(first) == GREETING_SIZE + HEADER.size + padding + HEADER.size + len(b"hello")
    greeting = read_greeting(first)
    assert greeting is not None
    agent.answer(greeting, padding)
    assert b"".join(agent.receive(1, first[GREETING_SIZE:])) == b"hello"
    answer = b"".join(agent.take(1))
    assert len(answer) == GREETING_SIZE + HEADER.size + padding
    assert client.receive(1, answer) == []
    assert client.answered


def test_before_the_first_answer_only_a_first_window_is_sent() -> None:
    client, agent = Resume(ID, Side.CLIENT), Resume(ID, Side.AGENT)
    client.write(bytes(3 * FIRST_WINDOW))
    client.greet()
    first = b"".join(client.take(1, 1 << 30))
    assert len(first) == GREETING_SIZE + HEADER.size + FIRST_WINDOW
    agent.answer(Greeting(ID, 1, fresh=True))
    agent.receive(1, first[GREETING_SIZE:])
    client.receive(1, b"".join(agent.take(1)))
    assert len(carry(client, agent)) == 2 * FIRST_WINDOW


def test_a_sender_stops_at_the_window_and_goes_on_as_the_reader_consumes() -> None:
    client, agent = joined()
    client.write(bytes(WINDOW + 100_000))
    assert len(carry(client, agent)) == WINDOW
    assert not client.ready(1)
    agent.consumed(ACK_EVERY - 1)
    assert not agent.ready(1)
    agent.consumed(1)
    carry(agent, client)
    assert len(carry(client, agent)) == 100_000
    assert client.held == WINDOW + 100_000 - ACK_EVERY


def test_the_smaller_window_holds() -> None:
    client, agent = Resume(ID, Side.CLIENT), Resume(ID, Side.AGENT, FIRST_WINDOW)
    join(client, agent)
    client.write(bytes(WINDOW))
    assert len(carry(client, agent)) == FIRST_WINDOW


def test_what_an_old_lane_still_brings_is_not_taken() -> None:
    client, agent = joined()
    client.write(b"once")
    late = b"".join(client.take(1))
    join(client, agent)
    assert agent.receive(1, late) == []
    assert agent.answer(Greeting(ID, 1)) is None
    assert agent.answer(Greeting(ID, 2)) is None
    assert carry(client, agent) == b"once"
    assert client.take(1) == []
    client.lost(1)
    assert client.answered


def test_both_ends_reset() -> None:
    client, agent = joined()
    client.write(bytes(100))
    agent.reset("no such port")
    agent.reset("twice")
    carry(client, agent)
    carry(agent, client)
    assert client.reason == agent.reason == "no such port"
    assert client.over
    assert agent.over
    assert client.held == 0
    assert not client.ready(1)
    client.write(b"late")
    assert client.held == 0


def test_a_reset_without_a_lane_answers_the_next_one() -> None:
    client, agent = joined()
    agent.lost(1)
    agent.reset("the run ended")
    join(client, agent)
    assert client.reason == "the run ended"


def test_a_stream_that_is_not_served_is_refused() -> None:
    client = Resume(ID, Side.CLIENT)
    client.greet()
    client.receive(1, refusal("ü" * 5000))
    assert client.reason is not None
    assert set(client.reason) == {"ü"}


def test_the_end_is_told_once_and_acknowledged_though_the_lane_was_lost() -> None:
    client, agent = joined()
    client.write(b"bye")
    client.finish()
    assert carry(client, agent) == b"bye"
    assert agent.ended
    assert not client.flushed
    agent.consumed(3)
    join(client, agent)
    assert client.flushed
    assert client.take(2) == []


def test_a_flood_of_pings_is_answered_once() -> None:
    client, agent = joined()
    agent.receive(1, frame(Kind.PING) * 10_000)
    assert b"".join(agent.take(1)) == frame(Kind.PONG)
    assert client.receive(1, frame(Kind.PONG)) == []


@pytest.mark.parametrize(
    "bad",
    [
        frame(Kind.DATA, 1, b"x"),
        frame(Kind.DATA, 0, b""),
        HEADER.pack(Kind.DATA, FRAME + 1, 0),
        frame(Kind.DATA, 0, b"x") * 2,
        frame(Kind.END, 1),
        frame(Kind.END, 0) * 2,
        frame(Kind.END, 0) + frame(Kind.DATA, 0, b"x"),
        frame(Kind.END, 0) + frame(Kind.DATA, 1, b"x"),
        frame(Kind.ACK, 1),
        frame(Kind.ACK, 0, b"x"),
        frame(Kind.PING, 0, b"x"),
        frame(Kind.RESET, 0, bytes(1025)),
        frame(0),
        frame(8),
        Greeting(ID, 1).encode(),
        HEADER.pack(Kind.GREETING, 1 << 31, 0),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_the_protocol_does_not_allow_is_refused(bad: bytes, step: int) -> None:
    _, agent = joined()
    steps = [bad[at : at + step] for at in range(0, len(bad), step)]
    with pytest.raises(ProtocolError):
        collections.deque((agent.receive(1, part) for part in steps), maxlen=0)


def test_data_beyond_the_window_is_refused_at_its_header() -> None:
    _, agent = joined(FIRST_WINDOW)
    agent.receive(1, frame(Kind.DATA, 0, bytes(FIRST_WINDOW)))
    agent.consumed(5)
    agent.receive(1, frame(Kind.DATA, FIRST_WINDOW, bytes(5)))
    with pytest.raises(ProtocolError, match="window"):
        agent.receive(1, HEADER.pack(Kind.DATA, 1, FIRST_WINDOW + 5))


@pytest.mark.parametrize(
    "bad",
    [
        frame(Kind.DATA, 0, b"x"),
        frame(Kind.PONG),
        Greeting(b"x" * 16, 2).encode(),
        Greeting(ID, 1).encode(),
        Greeting(ID, 2, received=4).encode(),
        Greeting(ID, 2, received=0).encode(),
        Greeting(ID, 2, received=3, consumed=4).encode(),
    ],
)
def test_an_answer_that_cannot_be_is_refused(bad: bytes) -> None:
    client, agent = joined()
    client.write(b"abc")
    carry(client, agent)
    agent.consumed(3)
    agent.acknowledge()
    carry(agent, client)
    client.greet()
    client.take(2)
    with pytest.raises(ProtocolError):
        client.receive(2, bad)


def test_a_greeting_of_another_stream_version_or_kind_is_refused() -> None:
    good = Greeting(ID, 7, 5, 3, 1 << 20, fresh=True)
    assert read_greeting(good.encode()) == good
    assert read_greeting(good.encode()[:-1]) is None
    assert read_greeting(b"") is None
    _, agent = joined()
    with pytest.raises(ProtocolError):
        agent.answer(Greeting(b"x" * 16, 2))
    for bad in (
        b"G",
        frame(Kind.GREETING, 0, b"\x02" + good.encode()[HEADER.size + 1 :]),
        frame(Kind.GREETING, 0, b"x" * 50),
        Greeting(ID, 0).encode(),
        Greeting(ID, 1, received=1, consumed=2).encode(),
    ):
        with pytest.raises(ProtocolError):
            read_greeting(bad)
    with pytest.raises(ValueError):
        Resume(b"short", Side.CLIENT)
    with pytest.raises(ValueError):
        Resume(ID, Side.CLIENT, 1)


HEADERS = st.builds(
    struct.Struct("!BIQ").pack,
    st.integers(0, 9),
    st.one_of(st.integers(0, 60), st.sampled_from([FRAME, FRAME + 1, 2**32 - 1])),
    st.one_of(st.integers(0, 70), st.integers(0, 2**64 - 1)),
)


@settings(max_examples=400)
@given(
    side=st.sampled_from(Side),
    greeted=st.booleans(),
    parts=st.lists(st.one_of(st.binary(max_size=60), HEADERS), max_size=12),
    cuts=st.lists(st.integers(1, 40), max_size=20),
)
def test_any_bytes_are_frames_or_a_protocol_error(
    side: Side, greeted: bool, parts: list[bytes], cuts: list[int]
) -> None:
    client, agent = joined(FIRST_WINDOW)
    end = client if side is Side.CLIENT else agent
    end.write(b"x" * 40)
    if not greeted:
        client.greet()
        end = client
    end.take(end.epoch)
    data, got = b"".join(parts), 0
    try:
        for cut in [*cuts, len(data)]:
            got += sum(map(len, end.receive(end.epoch, data[:cut])))
            data = data[cut:]
            assert end.buffered <= 2 * 1100
            assert got <= FIRST_WINDOW
    except ProtocolError:
        assert end.buffered <= 2 * 1100


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9000)), max_size=40))
def test_pieces_are_a_queue_of_bytes(steps: list[tuple[bool, int]]) -> None:
    pieces, model, rng = Pieces(), bytearray(), random.Random(1)
    for add, size in steps:
        if add:
            data = rng.randbytes(size)
            pieces.append(data)
            model += data
        elif size % 3:
            assert b"".join(pieces.take(size)) == model[:size]
            del model[:size]
        else:
            pieces.drop(min(size, len(model)))
            del model[:size]
        assert pieces.size == len(model)


def test_small_writes_cost_what_they_hold() -> None:
    client, agent = joined()
    for _ in range(200_000):
        client.write(b"abcd")
        client.take(1)
    assert client.held == 800_000
    assert client.parts < 100
    join(client, agent)
    assert carry(client, agent) == b"abcd" * 200_000
