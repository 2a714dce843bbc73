"""Anything at all may come over the wire: the answer is a `ProtocolError`, and what is held stays small."""

import asyncio
import contextlib
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tunnel.ends import Owner
from tunnel import frames, resume, wire
from tunnel.door import LIMIT, framed, payload_of
from tunnel.frames import CHUNK, FIN, LIMITS, MORE, Frame, Kind
from tunnel.hello import HELLO_LIMIT, Hello, More, NotHello, read
from tunnel.link import Link, Side
from tunnel.memory import MemoryNetwork
from tunnel.mux import FIRST_WINDOW, MESSAGE_LIMIT, PART_LEAST, GotData, GotOpen, Mux
from tunnel.resume import HEADER, Greeting, Resume

STREAMS = st.integers(1, 4)
OFFSETS = st.sampled_from([0, 1, 5, FIRST_WINDOW, 2**32, 2**64 - 1])


@st.composite
def well_formed(draw: st.DrawFn) -> Frame:
    """A frame that can be read, with anything in it: of a stream that is there, was, or never will be."""
    kind = draw(st.sampled_from(list(Kind)))
    stream = draw(STREAMS) if kind in (Kind.OPEN, Kind.DATA, Kind.CREDIT, Kind.RESET) else 0
    flags = draw(st.sampled_from([0, {Kind.MESSAGE: MORE, Kind.DATA: FIN}.get(kind, 0)]))
    size = draw(st.sampled_from([0, 1, 5, PART_LEAST, LIMITS[kind]]))
    return Frame(kind, stream, draw(OFFSETS), bytes(min(size, LIMITS[kind])), flags)


@given(st.sampled_from(list(Side)), st.integers(0, 3), st.lists(well_formed(), max_size=40), st.booleans())
@settings(max_examples=300)
def test_frames_in_any_order(side: Side, opened: int, sent: list[Frame], reads: bool) -> None:
    mux = Mux(side)
    for _ in range(opened if side is Side.CONTROL else 0):
        stream = mux.open(b"x")
        mux.write(stream, b"data")
    held: dict[int, int] = {}
    with contextlib.suppress(wire.ProtocolError):
        for frame in sent:
            for event in mux.receive(frames.encode(frame)):
                if isinstance(event, GotOpen):
                    assert side is Side.AGENT, "an agent opens nothing"
                if isinstance(event, GotData):
                    held[event.stream] = held.get(event.stream, 0) + len(event.data)
                    assert held[event.stream] <= FIRST_WINDOW, "more than was granted"
                    if reads:
                        mux.consumed(event.stream, len(event.data), 0.0, None)
                        held[event.stream] = 0
            taken, _ = mux.take(CHUNK)
            assert len(taken) <= 4 * CHUNK
        assert mux.streams <= max(opened, 4)


@given(st.sampled_from(list(Side)), st.binary(max_size=400))
def test_any_bytes_to_a_mux(side: Side, data: bytes) -> None:
    with contextlib.suppress(wire.ProtocolError):
        Mux(side).receive(data)


def test_floods_are_not_kept() -> None:
    """Of answers only the newest; of a message no more than its limit; tiny parts, which cost more, not at all."""
    mux = Mux(Side.CONTROL)
    for token in range(10_000):
        mux.receive(frames.encode(Frame(Kind.PING, offset=token)))
    assert len(mux.take(CHUNK)[0]) < 100
    for _ in range(10_000):
        mux.receive(frames.encode(Frame(Kind.PONG, offset=1)))
    part = frames.encode(Frame(Kind.MESSAGE, payload=bytes(CHUNK), flags=MORE))
    for _ in range(MESSAGE_LIMIT // CHUNK):
        mux.receive(part)
    with pytest.raises(wire.ProtocolError, match=f"more than {MESSAGE_LIMIT}"):
        mux.receive(part)
    with pytest.raises(wire.ProtocolError, match="too short"):
        Mux(Side.CONTROL).receive(frames.encode(Frame(Kind.MESSAGE, payload=b"x", flags=MORE)))


BAD = {
    "an unknown type": bytes([99]) + bytes(17),
    "too long": frames.HEADER.pack(Kind.PING, 0, 0, 1, 0),
    "unknown flags": frames.HEADER.pack(Kind.PING, 4, 0, 0, 0),
    "a stream on a ping": frames.HEADER.pack(Kind.PING, 0, 7, 0, 0),
    "a stream that never was": frames.encode(Frame(Kind.DATA, 9, 0, b"x")),
    "a stream of an agent": frames.encode(Frame(Kind.OPEN, 1, 0, wire.encode(wire.OpenStream(run="r")))),
    "no message": frames.encode(Frame(Kind.MESSAGE, payload=b"\xc1")),
    "a message of the other side": frames.encode(Frame(Kind.MESSAGE, payload=wire.encode(wire.Forget(runs=[])))),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("what", BAD)
async def test_a_link_closes_with_an_error_that_says_what(what: str) -> None:
    network = MemoryNetwork()
    control, agent = Owner(), Owner()
    network.listen(lambda _: Link(control, side=Side.CONTROL))
    await network.dialer("a-1").dial(lambda: Link(agent, side=Side.AGENT))
    await asyncio.sleep(0.05)
    transport = agent.links[0]._transport
    assert transport is not None
    transport.write(BAD[what])
    await asyncio.sleep(0.1)
    [reason] = control.losses
    assert reason.startswith("protocol error: ")
    [told] = agent.losses
    assert "protocol error" in told, "and the other end is told"


@st.composite
def resume_bytes(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 9))
    payload = draw(st.binary(max_size=40))
    length = draw(st.sampled_from([len(payload), 0, 1, 2**16, 2**24 - 1])) if draw(st.booleans()) else len(payload)
    with contextlib.suppress(Exception):
        return HEADER.pack(kind, length, draw(OFFSETS)) + payload
    return bytes([kind]) + payload


@given(st.sampled_from(list(resume.Side)), st.lists(resume_bytes(), max_size=20), st.booleans())
@settings(max_examples=300)
def test_any_frames_to_a_resumable_stream(side: resume.Side, sent: list[bytes], greeted: bool) -> None:
    core = Resume(b"s" * resume.ID_SIZE, side)
    core.write(b"some of ours")
    epoch = core.greet() if side is resume.Side.CLIENT else 1
    with contextlib.suppress(wire.ProtocolError):
        if side is resume.Side.AGENT:
            core.answer(Greeting(b"s" * resume.ID_SIZE, 1, fresh=True))
        elif greeted:
            core.receive(epoch, Greeting(b"s" * resume.ID_SIZE, epoch).encode())
        for data in sent:
            got = core.receive(epoch, data)
            assert sum(map(len, got)) <= len(data)
            assert core.held <= resume.WINDOW
            assert core.buffered <= resume.REASON_LIMIT + HEADER.size
            assert sum(map(len, core.take(epoch))) <= 2 * resume.FRAME, "floods are not answered one by one"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_greeting_or_refused(data: bytes) -> None:
    with contextlib.suppress(wire.ProtocolError):
        greeting = resume.read_greeting(data)
        assert greeting is None or len(data) >= resume.GREETING_SIZE


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_a_door_reads_what_was_framed_and_no_more(payload: bytes, more: bytes) -> None:
    whole = framed(payload)
    assert payload_of(whole) == payload
    for cut in range(len(whole)):
        assert payload_of(whole[:cut]) is None
    if more:
        with pytest.raises(wire.ProtocolError):
            payload_of(whole + more)


@given(st.binary(max_size=100))
def test_any_bytes_to_a_door(data: bytes) -> None:
    with contextlib.suppress(wire.ProtocolError):
        payload = payload_of(data)
        assert payload is None or len(payload) <= LIMIT
        if payload is not None:
            wire.decode_open(payload)


def real_hello(protocol: str) -> bytes:
    """A ClientHello as OpenSSL makes it."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([protocol, "http/1.1"])
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="control.example").do_handshake()
    return out.read()


REAL = real_hello("atoll-ctl/1")


@given(st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(1, 255)), max_size=6), st.integers(0, len(REAL)))
@settings(max_examples=500)
def test_a_changed_hello_is_read_refused_or_waited_for(changes: list[tuple[int, int]], cut: int) -> None:
    raw = bytearray(REAL)
    for at, by in changes:
        raw[at] ^= by
    with contextlib.suppress(NotHello):
        answer = read(bytes(raw[:cut]))
        if isinstance(answer, More):
            assert cut < answer.size <= HELLO_LIMIT, "what is waited for can come"
        else:
            assert isinstance(answer, Hello)
            assert all(isinstance(name, str) for name in answer.protocols)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_hello_or_refused(data: bytes) -> None:
    for raw in (data, b"\x16\x03\x01" + data, b"\x16\x03\x01" + len(data).to_bytes(2, "big") + b"\x01" + data):
        with contextlib.suppress(NotHello):
            assert read(raw) is not None


def test_a_real_hello_is_read() -> None:
    found = read(REAL)
    assert isinstance(found, Hello)
    assert (found.name, found.protocols) == ("control.example", ("atoll-ctl/1", "http/1.1"))


def test_pings_of_a_resumable_stream_are_answered_once() -> None:
    core = Resume(b"s" * resume.ID_SIZE, resume.Side.AGENT)
    core.answer(Greeting(b"s" * resume.ID_SIZE, 1, fresh=True))
    core.take(1)
    core.receive(1, HEADER.pack(resume.Kind.PING, 0, 0) * 10_000)
    assert sum(map(len, core.take(1))) < 100
