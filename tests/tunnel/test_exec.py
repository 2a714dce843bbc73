"""Programs beside a session, as frames: whole however they are cut, and nonsense refused."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import exec as frames
from tunnel.exec import Decoder, ExecError, Exit, Kind, Order, Size

FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.lists(st.integers(0, 3000), max_size=6))
def test_frames_come_out_as_they_went_in_however_they_are_cut(said: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
    raw = b"".join(frames.frame(kind, payload) for kind, payload in said)
    decoder = Decoder()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    heard = [found for a, b in itertools.pairwise(edges) for found in decoder.feed(raw[a:b])]
    assert heard == said


@given(st.binary(min_size=1, max_size=300_000))
def test_long_data_is_cut_and_put_together(data: bytes) -> None:
    heard = Decoder().feed(frames.frames(Kind.OUTPUT, data))
    assert b"".join(payload for _, payload in heard) == data
    assert all(len(payload) <= frames.DATA_LIMIT for _, payload in heard)


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    with contextlib.suppress(ExecError):
        assert sum(5 + len(payload) for _, payload in Decoder().feed(data)) <= len(data)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.ORDER, Order()),
        (Kind.ORDER, Order("ls", "", "xterm", Size(100, 40, 5, 6), {"A": "1"})),
        (Kind.RESIZE, Size(1, 2, 3, 4)),
        (Kind.EXIT, Exit(signal="TERM")),
        (Kind.EXIT, Exit(code=7)),
    ],
)
def test_what_is_told_is_read(kind: Kind, value: Order | Size | Exit) -> None:
    [(heard, payload)] = Decoder().feed(frames.told(kind, value))
    assert heard is kind
    read: Order | Size | Exit = frames.read(payload, type(value))  # type: ignore[type-var]
    assert read == value


@pytest.mark.parametrize("raw", [b"\x00\xff\xff\xff\xff", b"\x63\x00\x00\x00\x00"])
def test_too_long_and_unknown_frames_are_refused(raw: bytes) -> None:
    with pytest.raises(ExecError):
        Decoder().feed(raw)


def test_nonsense_inside_a_frame_is_refused() -> None:
    with pytest.raises(ExecError):
        frames.read(b"\xc1", Order)
    with pytest.raises(ExecError):
        frames.told(Kind.ORDER, Order("x" * frames.FRAME_LIMIT))
