"""Frames: any bytes become frames or a protocol error, however they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import frames
from tunnel.frames import CHUNK, FIN, HEADER, LIMITS, MORE, Decoder, Frame, Kind
from tunnel.wire import ProtocolError

FLAGS = {Kind.MESSAGE: MORE, Kind.DATA: FIN}
WITH_STREAM = {Kind.OPEN, Kind.DATA, Kind.CREDIT, Kind.RESET}


@st.composite
def some_frame(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(list(Kind)))
    stream = draw(st.integers(1, 2**32 - 1)) if kind in WITH_STREAM else 0
    flags = draw(st.sampled_from([0, FLAGS.get(kind, 0)]))
    payload = draw(st.binary(max_size=min(LIMITS[kind], 60)))
    return Frame(kind, stream, draw(st.integers(0, 2**64 - 1)), payload, flags)


def read(data: bytes, cuts: list[int]) -> tuple[list[Frame], bool]:
    """Feed `data` cut at places; return the frames and whether it was refused."""
    decoder, found = Decoder(), []
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        try:
            found += decoder.feed(data[start:end])
        except ProtocolError:
            return found, True
    return found, False


@given(st.lists(some_frame(), max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_frames_survive_any_cutting(sent: list[Frame], cuts: list[int]) -> None:
    assert read(b"".join(map(frames.encode, sent)), cuts) == (sent, False)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_any_bytes_are_frames_or_refused_whatever_the_cuts(data: bytes, cuts: list[int]) -> None:
    whole, refused = read(data, [])
    pieces, refused_in_pieces = read(data, cuts)
    assert refused == refused_in_pieces
    if not refused:
        assert whole == pieces


@given(st.lists(some_frame(), min_size=1, max_size=4), st.data())
def test_a_changed_byte_never_does_more_than_a_refusal(sent: list[Frame], data: st.DataObject) -> None:
    raw = bytearray(b"".join(map(frames.encode, sent)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    for frame in read(bytes(raw), [])[0]:
        assert len(frame.payload) <= LIMITS[frame.kind]


@pytest.mark.parametrize(
    "header",
    [
        (9, 0, 0, 0, 0),  # no such type
        (0, 0, 0, 0, 0),
        (Kind.DATA, 0, 1, CHUNK + 1, 0),  # too long
        (Kind.PING, 0, 0, 1, 0),
        (Kind.OPEN, 0, 1, 4097, 0),
        (Kind.DATA, 2 | 4, 1, 0, 0),  # unknown flag
        (Kind.PING, 1, 0, 0, 0),
        (Kind.DATA, 0, 0, 1, 0),  # stream missing
        (Kind.MESSAGE, 0, 5, 1, 0),  # stream on a message
    ],
)
def test_a_bad_header_is_refused_before_its_payload_comes(header: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(HEADER.pack(*header))


def test_golden_frames_of_protocol_1() -> None:
    assert frames.encode(Frame(Kind.PING, offset=7)).hex() == "0200" + "00000000" + "00000000" + "0000000000000007"
    data = Frame(Kind.DATA, 3, 65536, b"hi", FIN)
    assert frames.encode(data).hex() == "0502" + "00000003" + "00000002" + "0000000000010000" + "6869"


def test_reasons_are_cut_between_characters() -> None:
    cut = frames.reason_bytes("é" * 2000)
    assert len(cut) <= frames.REASON_LIMIT
    assert set(cut.decode()) == {"é"}
