"""The mux against a model: random use of two joined ends is byte-exact, in order, within credit and memory."""

import random
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Invalid, Unavailable
from tunnel import frames, mux
from tunnel.frames import CHUNK, FIN, Decoder, Frame, Kind
from tunnel.mux import FIRST_WINDOW, LARGEST_WINDOW, Mux, Side
from tunnel.wire import ProtocolError


class End:
    """One mux and what its users know."""

    def __init__(self, side: Side) -> None:
        self.mux = Mux(side)
        self.wrote: dict[int, bytearray] = defaultdict(bytearray)
        self.read: dict[int, bytearray] = defaultdict(bytearray)
        self.unread: dict[int, int] = defaultdict(int)
        self.messages: list[bytes] = []
        self.sent_messages: list[bytes] = []
        self.finished: set[int] = set()
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.open: set[int] = set()

    def receive(self, data: bytes) -> None:
        for event in self.mux.receive(data):
            match event:
                case mux.GotOpen(stream, _):
                    self.open.add(stream)
                case mux.GotData(stream, data):
                    assert stream not in self.ended | self.reset
                    self.read[stream] += data
                    self.unread[stream] += len(data)
                case mux.GotEnd(stream):
                    self.ended.add(stream)
                case mux.GotReset(stream, _):
                    self.reset.add(stream)
                case mux.GotMessage(message):
                    self.messages.append(message)
                case _:
                    pass


class Pair:
    """Two ends and the bytes between them."""

    def __init__(self) -> None:
        self.control, self.agent = End(Side.CONTROL), End(Side.AGENT)
        self.wires: dict[int, bytearray] = {id(self.control): bytearray(), id(self.agent): bytearray()}
        self.now = 0.0

    def other(self, end: End) -> End:
        return self.agent if end is self.control else self.control

    def carry(self, end: End, count: int) -> None:
        wire = self.wires[id(end)]
        wire += end.mux.take(CHUNK)[0]
        part, wire[:] = bytes(wire[:count]), wire[count:]
        self.other(end).receive(part)

    def settle(self) -> None:
        ends = (self.control, self.agent)
        while any(end.mux.ready or self.wires[id(end)] or any(end.unread.values()) for end in ends):
            for end in ends:
                self.carry(end, 1 << 20)
                for stream, count in list(end.unread.items()):
                    end.mux.consumed(stream, count, self.now, 0.01)
                    end.unread[stream] = 0


OPS = ["open", "write", "write", "write", "finish", "reset", "read", "send", "ping", "carry", "carry", "carry"]


def step(pair: Pair, rng: random.Random) -> None:
    pair.now += rng.random() / 50
    end = rng.choice((pair.control, pair.agent))
    stream = rng.choice(sorted(end.open)) if end.open else 0
    match rng.choice(OPS):
        case "open":
            pair.control.open.add(pair.control.mux.open(b"o"))
        case "write" if stream and stream not in end.finished | end.reset:
            data = rng.randbytes(rng.choice([1, 100, 5000, 200_000]))
            if end.mux.progress(stream) is not None:
                end.mux.write(stream, data)
                end.wrote[stream] += data
        case "finish" if stream:
            end.mux.finish(stream)
            end.finished.add(stream)
        case "reset" if stream and rng.random() < 0.2:
            end.mux.reset(stream, "enough")
            end.reset.add(stream)
        case "read" if stream:
            count = rng.randint(0, end.unread[stream])
            end.unread[stream] -= count
            end.mux.consumed(stream, count, pair.now, 0.01)
        case "send":
            message = rng.randbytes(rng.choice([1, 500, 150_000]))
            end.mux.send(message)
            end.sent_messages.append(message)
        case "ping":
            end.mux.ping(rng.randrange(2**64))
        case "carry":
            pair.carry(end, rng.choice([1, 17, 3000, 1 << 20]))
        case _:
            pass


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_two_ends_agree_on_every_byte(seed: int) -> None:
    pair, rng = Pair(), random.Random(seed)
    for _ in range(150):
        step(pair, rng)
        for end in (pair.control, pair.agent):
            # What an end holds for slow readers stays within the windows it gave.
            assert all(count <= LARGEST_WINDOW for count in end.unread.values())
    pair.settle()
    for end in (pair.control, pair.agent):
        other = pair.other(end)
        assert other.messages == end.sent_messages
        assert end.mux.queued == 0
        for stream, wrote in end.wrote.items():
            got = other.read[stream]
            if stream in end.reset | other.reset:
                assert wrote.startswith(got)
            else:
                assert got == wrote
                assert (stream in other.ended) == (stream in end.finished)
        over = end.reset | other.reset | (end.finished & other.finished)
        assert end.mux.streams == len(end.open - over)


def opened() -> tuple[Mux, Mux, int]:
    control, agent = Mux(Side.CONTROL), Mux(Side.AGENT)
    stream = control.open(b"x")
    agent.receive(control.take(CHUNK)[0])
    return control, agent, stream


def data_frames(data: bytes) -> list[Frame]:
    return [frame for frame in Decoder().feed(data) if frame.kind is Kind.DATA]


def test_a_sender_never_passes_its_credit() -> None:
    control, _, stream = opened()
    control.write(stream, bytes(3 * FIRST_WINDOW))
    sent = b"".join(control.take(CHUNK)[0] for _ in range(40))
    assert sum(len(frame.payload) for frame in data_frames(sent)) == FIRST_WINDOW
    assert not control.ready
    assert control.pending(stream) == 2 * FIRST_WINDOW


def test_data_without_credit_or_out_of_order_is_refused() -> None:
    for offset, payload in ((1, b"x"), (0, b"")):
        _, agent, stream = opened()
        with pytest.raises(ProtocolError):
            agent.receive(frames.encode(Frame(Kind.DATA, stream, offset, payload)))
    _, agent, stream = opened()
    for at in range(0, FIRST_WINDOW, CHUNK):
        agent.receive(frames.encode(Frame(Kind.DATA, stream, at, bytes(CHUNK))))
    with pytest.raises(ProtocolError, match="without credit"):
        agent.receive(frames.encode(Frame(Kind.DATA, stream, FIRST_WINDOW, b"x")))


def test_control_overtakes_a_full_stream_and_pings_overtake_a_long_message() -> None:
    control, agent, stream = opened()
    control.write(stream, bytes(FIRST_WINDOW))
    control.take(1)
    control.send(b"m" * (3 * CHUNK))
    control.take(1)
    control.ping(5)
    kinds = [frame.kind for frame in Decoder().feed(control.take(10 * CHUNK)[0])]
    assert kinds == [Kind.PING, Kind.MESSAGE, Kind.MESSAGE, Kind.DATA, Kind.DATA, Kind.DATA]
    assert agent.streams == 1


def test_streams_take_turns() -> None:
    control, _, first = opened()
    second = control.open(b"y")
    control.take(CHUNK)
    control.write(first, bytes(2 * CHUNK))
    control.write(second, bytes(2 * CHUNK))
    order = [frame.stream for frame in data_frames(control.take(4 * CHUNK)[0])]
    assert order == [first, second, first, second]


def test_the_window_grows_only_for_a_fast_reader() -> None:
    def window_after(seconds_between: float) -> int:
        _, agent, stream = opened()
        at, now = 0, 0.0
        for _ in range(400):
            agent.receive(frames.encode(Frame(Kind.DATA, stream, at, bytes(CHUNK))))
            at += CHUNK
            now += seconds_between
            agent.consumed(stream, CHUNK, now, 0.05)
        granted = [frame.offset for frame in Decoder().feed(agent.take(CHUNK)[0]) if frame.kind is Kind.CREDIT]
        return granted[-1] - at

    assert window_after(1.0) <= FIRST_WINDOW
    assert window_after(0.001) > LARGEST_WINDOW // 2


def test_a_large_window_is_given_back_in_small_steps() -> None:
    _, agent, stream = opened()
    at, granted = 0, [0]
    for number in range(800):
        agent.receive(frames.encode(Frame(Kind.DATA, stream, at, bytes(CHUNK))))
        at += CHUNK
        told = agent.consumed(stream, CHUNK, number * 0.001, 0.05)
        assert told == agent.ready
        granted += [frame.offset for frame in Decoder().feed(agent.take(CHUNK)[0]) if frame.kind is Kind.CREDIT]
    assert granted[-1] - at > LARGEST_WINDOW - mux.CREDIT_STEP
    steps = [after - before for before, after in pairwise(granted[-20:])]
    assert steps == [mux.CREDIT_STEP] * len(steps)


def test_growth_is_bounded_over_all_streams() -> None:
    control, agent = Mux(Side.CONTROL), Mux(Side.AGENT)
    held = 0
    for _ in range(40):
        stream = control.open(b"x")
        agent.receive(control.take(CHUNK)[0])
        at = 0
        for _ in range(300):
            agent.receive(frames.encode(Frame(Kind.DATA, stream, at, bytes(CHUNK))))
            at += CHUNK
            agent.consumed(stream, CHUNK, 0.0, 1.0)
        granted = [f.offset for f in Decoder().feed(agent.take(CHUNK)[0]) if f.kind is Kind.CREDIT]
        held += granted[-1] - at
    assert held <= mux.GROWTH_BUDGET + 40 * FIRST_WINDOW


def test_a_flood_of_pings_is_answered_once() -> None:
    agent = Mux(Side.AGENT)
    agent.receive(b"".join(frames.encode(Frame(Kind.PING, offset=token)) for token in range(10_000)))
    assert [frame.offset for frame in Decoder().feed(agent.take(CHUNK)[0])] == [9_999]


def test_limits() -> None:
    control = Mux(Side.CONTROL)
    with pytest.raises(Invalid):
        control.send(bytes(mux.MESSAGE_LIMIT + 1))
    with pytest.raises(Invalid):
        control.open(bytes(5000))
    for _ in range(mux.STREAMS_LIMIT):
        control.open(b"x")
    with pytest.raises(Unavailable):
        control.open(b"x")


def test_a_message_longer_than_the_limit_is_refused_while_it_comes() -> None:
    agent = Mux(Side.AGENT)
    part = frames.encode(Frame(Kind.MESSAGE, payload=bytes(CHUNK), flags=frames.MORE))
    for _ in range(mux.MESSAGE_LIMIT // CHUNK):
        agent.receive(part)
    with pytest.raises(ProtocolError, match="more than"):
        agent.receive(part)


def test_only_control_opens_and_ids_only_rise() -> None:
    with pytest.raises(ProtocolError, match="may not open"):
        Mux(Side.CONTROL).receive(frames.encode(Frame(Kind.OPEN, 1)))
    _, agent, stream = opened()
    with pytest.raises(ProtocolError, match="opened after"):
        agent.receive(frames.encode(Frame(Kind.OPEN, stream)))
    with pytest.raises(ProtocolError, match="never opened"):
        agent.receive(frames.encode(Frame(Kind.DATA, stream + 1, 0, b"x")))


def test_late_frames_of_a_reset_stream_are_ignored() -> None:
    control, agent, stream = opened()
    control.write(stream, b"late")
    late = control.take(CHUNK)[0]
    agent.reset(stream, "no")
    assert agent.receive(late) == []
    assert control.receive(agent.take(CHUNK)[0]) == [mux.GotReset(stream, "no")]
    assert control.streams == agent.streams == 0


def test_half_close() -> None:
    control, agent, stream = opened()
    control.finish(stream)
    assert agent.receive(control.take(CHUNK)[0]) == [mux.GotEnd(stream)]
    agent.write(stream, b"still here")
    agent.finish(stream)
    sent = agent.take(CHUNK)[0]
    assert data_frames(sent)[0].flags == FIN
    assert control.receive(sent) == [mux.GotData(stream, b"still here"), mux.GotEnd(stream)]
    assert control.streams == agent.streams == 0
